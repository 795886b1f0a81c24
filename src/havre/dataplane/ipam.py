"""IP address management: chooses networks' subnets and endpoints' addresses. Pure.

Owns the arithmetic and Docker's error texts. The caller keeps the state (networks, the host's routes, addresses in use)
and passes it in.

    pools  172.17.0.0/16 ... 172.31.0.0/16, then 192.168.0.0/20 ... 192.168.240.0/20      as dockerd's defaults
    subnet 172.18.0.0/16     first pool that overlaps no network and no route of the host
    gateway 172.18.0.1       first address, unless given
    address 172.18.0.2 ...   lowest free one of the ip range, so that the same start order gives the same addresses

IPv6 networks without a subnet of their own get a random /64 of fd00::/8 (RFC 4193), unless pools are configured.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from havre.errors import Forbidden, InvalidInput, Unavailable

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

_MAC = re.compile(
    r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{4}(\.[0-9A-Fa-f]{4}){2}"
)
_INVALID = "invalid network config:\n"

DEFAULT_POOLS: tuple[Subnet, ...] = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)

LAST_POOLS: tuple[Subnet, ...] = tuple(IPv4Network("10.0.0.0/8").subnets(new_prefix=20))[::-1]
"""Fallback pools of a default bridge when all others are taken, as by many daemons on one host."""


@dataclass(frozen=True)
class Pool:
    """A network's subnet: endpoints get addresses of `range`, `reserved` ones are never allocated.

    `gateway` is the network's own address, `router` the destination of its endpoints' default routes.
    """

    subnet: Subnet
    gateway: Address
    range: Subnet
    reserved: frozenset[Address] = frozenset()
    other_router: Address | None = None

    @property
    def router(self) -> Address:
        """The router: the gateway, unless another was named."""
        return self.other_router or self.gateway

    def __contains__(self, address: Address) -> bool:
        return address in self.subnet


def parse_pool(
    subnet: str, gateway: str = "", ip_range: str = "", auxiliary: Collection[str] = (), router: str = ""
) -> Pool:
    """A pool from a user's request; InvalidInput names the value that is wrong."""
    net = _parse_subnet(subnet)
    span = _parse_subnet(ip_range, strict=False) if ip_range else net
    if not _within(span, net):
        raise InvalidInput(_INVALID + f"invalid ip-range {ip_range}: parent subnet {net} doesn't contain ip-range")
    reserved = frozenset(parse_address(text) for text in auxiliary)
    first = parse_address(gateway) if gateway else default_gateway(net)
    for name, address in (("gateway", first), *(("auxiliary address", given) for given in reserved)):
        if address not in net:
            text = f"invalid {name} {address}: parent subnet {net} doesn't contain this address"
            raise InvalidInput(_INVALID + text)
    return Pool(net, first, span, reserved, parse_address(router) if router else None)


def parse_span(text: str) -> Subnet:
    """The subnet of an address with prefix length, as Go's ParseCIDR returns it. InvalidInput otherwise."""
    return _parse_subnet(text, strict=False)


def parse_address(text: str) -> Address:
    """Parse an IP address. InvalidInput otherwise."""
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidInput(f"invalid IP address: {text}", "expected an address as in 172.18.0.5") from None


def find_address(text: str) -> Address | None:
    """Parse an IP address; None otherwise."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def default_gateway(subnet: Subnet) -> Address:
    """The first host address of a subnet."""
    return next(_hosts(subnet, subnet))


def choose_subnet(taken: Iterable[Subnet], pools: Iterable[Subnet] = DEFAULT_POOLS) -> Subnet:
    """The first pool that overlaps nothing in `taken` (other networks and the host's routes). Unavailable when none
    is free."""
    busy = list(taken)
    for pool in pools:
        if not overlapping(pool, busy):
            return pool
    raise Forbidden(
        "all predefined address pools have been fully subnetted",
        "give a subnet of your own with --subnet, or remove networks that are not used",
    )


def parse_pools(given: Iterable[tuple[str, int]]) -> tuple[tuple[Subnet, int], ...]:
    """Address pools from the configuration: (base, prefix length of the networks cut from it)."""
    pools = []
    for base, size in given:
        net = _parse_subnet(base, strict=False)
        if not net.prefixlen <= size <= net.max_prefixlen:
            raise InvalidInput(f"invalid size {size} of address pool {base}", f"expected {net.prefixlen} or more")
        pools.append((net, size))
    return tuple(pools)


def cut(pools: Iterable[tuple[Subnet, int]], version: int) -> Iterator[Subnet]:
    """Yield the subnets of one address family that the pools contain, in order."""
    for net, size in pools:
        if net.version == version:
            yield from net.subnets(new_prefix=size)


def unique_local(random: bytes) -> IPv6Network:
    """The /64 of fd00::/8 with these seven random bytes (RFC 4193)."""
    return IPv6Network((b"\xfd" + random[:7] + bytes(8), 64))


def check_free(subnet: Subnet, networks: Iterable[Subnet]) -> None:
    """Raise Forbidden for a subnet that overlaps another network of this engine."""
    if overlapping(subnet, networks):
        raise Forbidden("Pool overlaps with other one on this address space")


def overlapping(subnet: Subnet, others: Iterable[Subnet]) -> list[Subnet]:
    """Those of `others` that overlap `subnet`."""
    return [other for other in others if other.version == subnet.version and subnet.overlaps(other)]


def allocate(pool: Pool, used: Collection[Address], network: str, wanted: Address | None = None) -> Address:
    """The address `wanted`, or the lowest free one; `network` is "NAME (ID)" for the error message."""
    if wanted is not None:
        if wanted not in pool:
            raise InvalidInput(f"no configured subnet or ip-range contain the IP address {wanted}")
        if wanted in used or wanted == pool.gateway:
            raise Forbidden("Address already in use", f"{wanted} belongs to another endpoint of network {network}")
        return wanted
    for address in _hosts(pool.range, pool.subnet):
        if address not in used and address != pool.gateway and address not in pool.reserved:
            return address
    version = pool.subnet.version
    raise Unavailable(
        f"no available IPv{version} addresses on this network's address pools: {network}",
        "remove containers from it, or create a network with a larger subnet",
    )


def allocate_from(
    pools: Sequence[Pool], used: Collection[Address], network: str, wanted: Address | None = None
) -> Address:
    """`allocate` from the pool that contains `wanted`, or from the first pool with a free address."""
    if wanted is not None:
        return allocate(next((pool for pool in pools if wanted in pool), pools[0]), used, network, wanted)
    for pool in pools[:-1]:
        try:
            return allocate(pool, used, network)
        except Unavailable:
            continue
    return allocate(pools[-1], used, network)


def occupancy(pool: Pool, used: Collection[Address]) -> tuple[int, int]:
    """How many addresses of the subnet are in use or reserved, and how many of its range can still be allocated."""
    net = pool.subnet
    taken = {pool.gateway, *pool.reserved, *(address for address in used if address in pool)}
    if net.num_addresses > 2:
        taken |= {net.network_address, net.broadcast_address} if net.version == 4 else {net.network_address}
    return len(taken), pool.range.num_addresses - sum(address in pool.range for address in taken)


def mac_for(address: Address) -> str:
    """Docker's scheme: 02:42 and the four bytes of the address, so that an address keeps its MAC."""
    return (b"\x02\x42" + address.packed[-4:]).hex(":")


def parse_mac(text: str) -> str:
    """Normalise a unicast MAC address of six bytes, in any form that Go's net.ParseMAC reads, to the kernel's form."""
    digits = re.sub(r"[:.-]", "", text)
    if not _MAC.fullmatch(text) or int(digits[:2], 16) & 1:
        raise InvalidInput(f"invalid MAC address {text}", "expected a unicast address as in 02:42:ac:11:00:02")
    return bytes.fromhex(digits).hex(":")


def address_from(mac: str, span: Subnet) -> Address | None:
    """Docker's scheme on the default bridge: the MAC in the last 48 bits of `span`; None where it has fewer bits."""
    if span.version != 6 or span.prefixlen > 80:
        return None
    return span.network_address + int(mac.replace(":", ""), 16)


def _parse_subnet(text: str, *, strict: bool = True) -> Subnet:
    try:
        net = ip_network(text, strict=False)
    except ValueError:
        raise InvalidInput(_INVALID + f"invalid subnet {text}: invalid CIDR block notation") from None
    if "/" not in text:
        raise InvalidInput(_INVALID + f"invalid subnet {text}: invalid CIDR block notation")
    if strict and net.network_address != ip_address(text.partition("/")[0]):
        raise InvalidInput(_INVALID + f"invalid subnet {text}: it should be {net}")
    return net


def _within(inner: Subnet, outer: Subnet) -> bool:
    return inner.version == outer.version and inner.network_address in outer and inner.broadcast_address in outer


def _hosts(span: Subnet, subnet: Subnet) -> Iterator[Address]:
    """Yield the addresses of `span` except those of `subnet` that no host may have; lazy, since a span may be huge."""
    reserve = subnet.num_addresses > 2
    for number in range(int(span.network_address), int(span.broadcast_address) + 1):
        address = type(span.network_address)(number)
        last = subnet.version == 4 and address == subnet.broadcast_address
        if not (reserve and (address == subnet.network_address or last)):
            yield address
