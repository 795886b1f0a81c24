"""Plans of networks and endpoints as values. Pure.

Owns names of links, MAC addresses, and the firewall's contents as data; `apply` applies it, `rules` renders it.

    Bridge   hv-1f0e...  172.18.0.1/16   ◀── one per network (havre0 for the default one)
       │
    Endpoint hve93c1... ═══ veth pair ═══ eth0 172.18.0.2/16   ◀── one per container on it
       │
    PortMap  tcp 0.0.0.0:8080 ──▶ 172.18.0.2:80
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface

from havre.dataplane.ipam import Address, Pool
from havre.errors import InvalidInput
from havre.linux.netlink import Interface

DEFAULT_MTU = 1500
VETH_PREFIX = "hve"


NAT, ROUTED, UNPROTECTED, ISOLATED = GATEWAY_MODES = ("nat", "routed", "nat-unprotected", "isolated")
"""How a network's packets are forwarded: NAT; routed with the containers' own addresses; NAT with all container ports
reachable to hosts that have a route; not at all, and the host has no address on the network.
"""


@dataclass(frozen=True)
class Access:
    """How published ports are reached. `opened`: IP versions at the container's address; `routed`: without a host
    port."""

    routed: frozenset[int] = frozenset()
    opened: frozenset[int] = frozenset()


TRANSLATED = Access()
"""By host ports only."""


@dataclass(frozen=True)
class Bridge:
    """A network in the kernel: `link` is its device, `mac` the device's MAC.

    `icc`: containers may communicate with each other. `internal`: no traffic from or to other networks. `masquerade`:
    source
    NAT to the host's address. `pools`: the subnets; an endpoint has an address of each IP version among them. Kinds
    macvlan
    and ipvlan have no bridge: endpoints are devices on the host's device `parent`, in the driver's `mode`, and the
    gateway is
    an external router. `vni` is set on overlays: the bridge has a VXLAN device as a port. `gateways` are the modes of
    IP
    versions that are not NAT; the host has no address of `inhibited` versions. From the devices `trusted`, published
    ports
    are reached at the containers' own addresses. `sources` are fixed source NAT addresses, one for each IP version,
    where it
    is not the address of the outgoing device.
    """

    id: str
    name: str
    link: str
    pools: tuple[Pool, ...]
    mtu: int = DEFAULT_MTU
    internal: bool = False
    masquerade: bool = True
    icc: bool = True
    kind: str = "bridge"
    parent: str = ""
    mode: str = ""
    vni: int = 0
    gateways: tuple[tuple[int, str], ...] = ()
    inhibited: frozenset[int] = frozenset()
    trusted: tuple[str, ...] = ()
    sources: tuple[Address, ...] = ()

    def source(self, version: int) -> Address | None:
        """The fixed source NAT address of an IP version, or None."""
        return next((each for each in self.sources if each.version == version), None)

    def gateway_mode(self, version: int) -> str:
        """NAT, ROUTED, UNPROTECTED or ISOLATED."""
        return dict(self.gateways).get(version, NAT)

    def hides(self, version: int) -> bool:
        """Report whether the host's address replaces its containers' (source NAT)."""
        return self.masquerade and not self.internal and self.gateway_mode(version) in (NAT, UNPROTECTED)

    @property
    def access(self) -> Access:
        """How its containers' published ports are reached."""
        versions = frozenset(pool.subnet.version for pool in self.pools)
        routed = frozenset(version for version in versions if self.gateway_mode(version) == ROUTED)
        # A network routed by its only IP version has no host port for clients of the other one either.
        return Access(routed | ({4, 6} - versions if routed else set()), versions if self.trusted else routed)

    @property
    def on_host(self) -> bool:
        """Report whether it is a bridge on the host, through which the host routes."""
        return self.kind in ("bridge", "overlay")

    @property
    def tunnel(self) -> str:
        """The name of an overlay's VXLAN device."""
        return f"hx-{self.id[:12]}"

    @property
    def ipv6(self) -> bool:
        """Report whether its endpoints have IPv6 addresses."""
        return bool(self.pools_of(6))

    def pools_of(self, version: int) -> list[Pool]:
        """The subnets of one IP version."""
        return [pool for pool in self.pools if pool.subnet.version == version]

    def pool_of(self, address: Address) -> Pool:
        """The subnet that contains an address of the network."""
        return next((pool for pool in self.pools if address in pool), self.pools[0])

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The gateways with their subnets' prefix lengths: the addresses of the device."""
        own = [pool for pool in self.pools if pool.subnet.version not in self.inhibited]
        return tuple(ip_interface((pool.gateway, pool.subnet.prefixlen)) for pool in own)

    @property
    def mac(self) -> str:
        """A locally administered address derived from the link's name; it identifies a device that we made."""
        return (b"\x02" + hashlib.sha256(self.link.encode()).digest()[:5]).hex(":")


@dataclass(frozen=True)
class Endpoint:
    """A container's attachment to a bridge. `interface` is the device inside, `link` its other end on the host.

    It has an IPv4 `address`, an IPv6 `address6`, or both.

    `link_local` are additional addresses, `sysctls` settings of the device (path below /proc/sys/net, value).
    """

    id: str
    bridge: Bridge
    address: Address | None
    mac: str
    interface: str
    address6: Address | None = None
    priority: int = 0
    link_local: tuple[Interface, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()

    @property
    def link(self) -> str:
        """Name of the host's end; the kernel's limit is 15 characters (IFNAMSIZ)."""
        return f"{VETH_PREFIX}{self.id[:12]}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The container's addresses on the network."""
        return tuple(each for each in (self.address, self.address6) if each is not None)

    @property
    def inside(self) -> tuple[Interface, ...]:
        """The same with the prefix lengths of their subnets."""
        return tuple(ip_interface((each, self.bridge.pool_of(each).subnet.prefixlen)) for each in self.addresses)


@dataclass(frozen=True, order=True)
class PortMap:
    """A published port: packets to the host's address and port go to the container's. `host` 0.0.0.0 means any.

    `host_port` 0: the container's port is opened at its own address.
    """

    protocol: str
    host: IPv4Address | IPv6Address
    host_port: int
    address: Address
    port: int


@dataclass(frozen=True, order=True)
class LinkMap:
    """A port that a linked container may reach on another, on a network without inter-container communication."""

    source: Address
    target: Address
    protocol: str
    port: int


def choose_gateway(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that provides published ports and a default route: the highest gateway priority on an external
    network.

    Ties go to the one connected first.
    """
    ways_out = [endpoint for endpoint in endpoints if not endpoint.bridge.internal]
    return max(ways_out, key=lambda endpoint: endpoint.priority, default=None)


def choose_ways(endpoints: Collection[Endpoint]) -> dict[int, Endpoint]:
    """The endpoint that provides the default route of each IP version, chosen as by `choose_gateway`."""
    having = {
        version: choose_gateway(each for each in endpoints if any(own.version == version for own in each.addresses))
        for version in (4, 6)
    }
    return {version: endpoint for version, endpoint in having.items() if endpoint is not None}


def dummy_parent(network_id: str) -> str:
    """The parent device of a network created without one, named as in dockerd."""
    return f"dm-{network_id[:12]}"


def vlan_of(parent: str) -> tuple[str, int]:
    """Split `eth0.10` into device and VLAN. InvalidInput, in dockerd's words, for other names."""
    base, dot, number = parent.rpartition(".")
    if not (base and dot):
        raise InvalidInput(
            f"invalid subinterface vlan name {parent}, example formatting is eth0.10",
            f"or make the device {parent}, or leave -o parent out for a network of its own",
        )
    if not (number.isascii() and number.isdigit() and 1 <= int(number) <= 4094):
        raise InvalidInput(f"unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)")
    return base, int(number)


def bridge_link(network_id: str) -> str:
    """The device name of a user-defined network."""
    return f"hv-{network_id[:12]}"
