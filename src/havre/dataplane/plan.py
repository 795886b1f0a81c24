"""What a network and an endpoint are in the kernel, decided in values. Pure.

Owns names of links, MAC addresses, and the firewall's contents as data; `apply` carries it out, `rules` writes it down.

    Bridge   hv-1f0e...  172.18.0.1/16   ◀── one per network (havre0 for the default one)
      │
    Endpoint hve93c1... ═══ veth pair ═══ eth0 172.18.0.2/16   ◀── one per container on it
      │
    PortMap  tcp 0.0.0.0:8080 ──▶ 172.18.0.2:80
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface

from havre.dataplane.ipam import Address, Pool
from havre.errors import InvalidInput
from havre.linux.netlink import Interface

DEFAULT_MTU = 1500
VETH_PREFIX = "hve"


NAT, ROUTED, UNPROTECTED, ISOLATED = GATEWAY_MODES = ("nat", "routed", "nat-unprotected", "isolated")
"""How packets pass between a network and the world: translated; by the containers' own addresses; translated, and the
containers' ports all open to who has a route; not at all, and the host is no part of the network."""


@dataclass(frozen=True)
class Access:
    """How published ports are reached: of the IP versions `opened` directly, of `routed` by no port of the host's."""

    routed: frozenset[int] = frozenset()
    opened: frozenset[int] = frozenset()


TRANSLATED = Access()
"""By ports of the host's alone."""


@dataclass(frozen=True)
class Bridge:
    """A network's place in the kernel: `link` is its device, `mac` the device's.

    `icc`: its containers may talk to each other.
    `internal` networks have no way out or in; `masquerade`: others see the host's address instead of the container's.
    `pools` are its subnets; an endpoint has an address of each IP version among them. Of kind macvlan and ipvlan there
    is no bridge: endpoints are devices on the host's device `parent`, in the driver's `mode`, and the gateway is a
    router of the network outside. `vni` is there on overlays: the bridge has a VXLAN device as one of its ports.
    `gateways` are the modes of IP versions, where not NAT; `inhibited` versions have no address of the host's. From the
    devices `trusted` published ports are reached at the containers' own addresses. `sources` are the addresses that
    others see, one of an IP version, where that is not to be the one of the device by which packets leave.
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
        """The address of the host's that others see, where one is fixed."""
        return next((each for each in self.sources if each.version == version), None)

    def gateway_mode(self, version: int) -> str:
        """NAT, ROUTED, UNPROTECTED or ISOLATED."""
        return dict(self.gateways).get(version, NAT)

    def hides(self, version: int) -> bool:
        """Whether others see the host's address in place of its containers'."""
        return self.masquerade and not self.internal and self.gateway_mode(version) in (NAT, UNPROTECTED)

    @property
    def access(self) -> Access:
        """How its containers' published ports are reached."""
        versions = frozenset(pool.subnet.version for pool in self.pools)
        routed = frozenset(version for version in versions if self.gateway_mode(version) == ROUTED)
        # Nor has a network that is routed by IPv4 alone a port of the host's for IPv6 clients.
        return Access(routed | ({6} - versions if routed else set()), versions if self.trusted else routed)

    @property
    def on_host(self) -> bool:
        """Whether it is a bridge of the host's, and the host routes its packets."""
        return self.kind in ("bridge", "overlay")

    @property
    def tunnel(self) -> str:
        """The name of an overlay's VXLAN device."""
        return f"hx-{self.id[:12]}"

    @property
    def ipv6(self) -> bool:
        """Whether its endpoints have an IPv6 address."""
        return bool(self.pools_of(6))

    def pools_of(self, version: int) -> list[Pool]:
        """The subnets of one IP version."""
        return [pool for pool in self.pools if pool.subnet.version == version]

    def pool_of(self, address: Address) -> Pool:
        """The subnet that an address of the network belongs to."""
        return next((pool for pool in self.pools if address in pool), self.pools[0])

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The gateways with their subnets' prefix lengths, as the device carries them."""
        own = [pool for pool in self.pools if pool.subnet.version not in self.inhibited]
        return tuple(ip_interface((pool.gateway, pool.subnet.prefixlen)) for pool in own)

    @property
    def mac(self) -> str:
        """A locally administered address, made of the link's name: by it a device is known as one we made."""
        return (b"\x02" + hashlib.sha256(self.link.encode()).digest()[:5]).hex(":")


@dataclass(frozen=True)
class Endpoint:
    """A container's place on a bridge; `interface` is the device inside, `link` its other end on the host.

    `link_local` are further addresses, `sysctls` settings of the device (path below /proc/sys/net, value).
    """

    id: str
    bridge: Bridge
    address: Address
    mac: str
    interface: str
    address6: Address | None = None
    priority: int = 0
    link_local: tuple[Interface, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()

    @property
    def link(self) -> str:
        """Name of the host's end; 15 characters is the kernel's limit."""
        return f"{VETH_PREFIX}{self.id[:12]}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What the container is reached at."""
        return (self.address,) if self.address6 is None else (self.address, self.address6)

    @property
    def inside(self) -> tuple[Interface, ...]:
        """The container's addresses on the network, with the prefix lengths of their subnets."""
        return tuple(ip_interface((each, self.bridge.pool_of(each).subnet.prefixlen)) for each in self.addresses)


@dataclass(frozen=True, order=True)
class PortMap:
    """A published port: what arrives at the host's address and port goes to the container's. `host` 0.0.0.0 is any.

    `host_port` 0: the container's port is open at its own address.
    """

    protocol: str
    host: IPv4Address | IPv6Address
    host_port: int
    address: Address
    port: int


@dataclass(frozen=True, order=True)
class LinkMap:
    """A port that one container may reach on another of a network whose containers otherwise do not meet."""

    source: Address
    target: Address
    protocol: str
    port: int


def choose_gateway(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint with the default route and the published ports: of the highest priority on a network with a way out.

    Among equals it is the first that was joined.
    """
    ways_out = [endpoint for endpoint in endpoints if not endpoint.bridge.internal]
    return max(ways_out, key=lambda endpoint: endpoint.priority, default=None)


def dummy_parent(network_id: str) -> str:
    """The parent device of a network whose user has named none, as dockerd calls it."""
    return f"dm-{network_id[:12]}"


def vlan_of(parent: str) -> tuple[str, int]:
    """`eth0.10` as device and VLAN; InvalidInput in dockerd's words for what is none."""
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
    """The device of a network that a user made."""
    return f"hv-{network_id[:12]}"
