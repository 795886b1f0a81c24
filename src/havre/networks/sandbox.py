"""A container's network while it runs, as values, and its texts as Docker shows them. Pure.

`Sandbox` is the input of a container's start; `Held` is what `Networks` must release afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from havre.dataplane import hostfiles as files
from havre.dataplane.ipam import Address
from havre.dataplane.nameserver import NameServer, Sockets, Upstream
from havre.dataplane.plan import TRANSLATED, Access, Endpoint, PortMap, choose_gateway, choose_ways
from havre.dataplane.ports import ANY, ANY4, ANY6, Publish, Reservation, parse_bindings
from havre.golang.ports import parse_port
from havre.networks.guest import Guest
from havre.networks.links import Exposed, Link, exposed_of
from havre.networks.spec import NetworkContainer
from havre.wire.config import EndpointSettings, PortBinding


@dataclass(frozen=True)
class Sandbox:
    """The result of opening a container's network: the namespace (None: the host's) and the texts of two files.

    `kept_descriptors` are its name server's sockets. conmon inherits these descriptors, so that a restarted daemon
    can answer queries that arrived meanwhile.
    """

    netns: Path | None
    endpoints: dict[str, EndpointSettings]
    ports: dict[str, list[PortBinding] | None]
    hosts: str
    resolv_conf: str
    link_variables: tuple[str, ...] = ()
    kept_descriptors: tuple[int, ...] = ()


class Published(NamedTuple):
    """A container's ports after a handover: as shown, and its new `PortBindings`."""

    ports: dict[str, list[PortBinding] | None]
    bindings: dict[str, list[PortBinding] | None]


@dataclass
class Held:
    """The resources of one running container; `asked`, `endpoints` and `others` (host, none) are keyed by network ID.

    `wanted_links` are names by alias, `link_ids` the IDs of those containers, `links` the resolved links. `given`
    are addresses of ports that were handed over; `sockets` are those of its name server, which may not serve yet;
    `led`: DNS queries are redirected to them. `left`: the container has ended and is to be released.
    """

    id: str
    name: str
    netns: Path | None
    sandbox: Sandbox | None = None
    asked: dict[str, EndpointSettings] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    addresses: list[tuple[str, Address]] = field(default_factory=list)
    reservations: list[Reservation] = field(default_factory=list)
    given: set[Address] = field(default_factory=set)
    sockets: Sockets | None = None
    led: bool = False
    names: NameServer | None = None
    left: bool = False
    exposed: Exposed = field(default_factory=Exposed)
    wanted_links: dict[str, str] = field(default_factory=dict)
    link_ids: dict[str, str] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)

    @classmethod
    def of(cls, guest: Guest, netns: Path | None) -> Held:
        """A container without resources."""
        meant = dict(guest.links), dict(guest.link_ids)
        return cls(guest.id, guest.name, netns, exposed=exposed_of(guest), wanted_links=meant[0], link_ids=meant[1])

    def link_lines(self) -> list[tuple[str, str]]:
        """The lines of /etc/hosts for its links."""
        return [link.host_line() for link in self.links]

    def maps(self) -> list[PortMap]:
        """The published ports, for the firewall."""
        return [port for reservation in self.reservations for port in reservation.maps()]

    def devices(self) -> list[str]:
        """The host's ends of its veth pairs."""
        return [endpoint.link for endpoint in self.endpoints.values() if endpoint.bridge.on_host]

    def gateway(self) -> Endpoint | None:
        """The endpoint with published ports and a default route."""
        return choose_gateway(self.endpoints.values())

    def ways(self) -> dict[int, Endpoint]:
        """The endpoints with the default routes, by IP version."""
        return choose_ways(self.endpoints.values())

    def free_number(self) -> int:
        """The number of the next interface in the container."""
        taken = {endpoint.interface for endpoint in self.endpoints.values()}
        return next(number for number in itertools.count() if f"eth{number}" not in taken)

    def member(self, network_id: str) -> NetworkContainer | None:
        """The container as `network inspect` lists it; None if it is not on that network."""
        if self.left:
            return None
        endpoint = self.endpoints.get(network_id)
        if endpoint is not None:
            shown = {interface.version: str(interface) for interface in endpoint.inside}
            return NetworkContainer(
                name=self.name,
                endpoint_id=endpoint.id,
                mac_address=endpoint.mac,
                ipv4_address=shown.get(4, ""),
                ipv6_address=shown.get(6, ""),
            )
        other = self.others.get(network_id)
        return NetworkContainer(name=self.name, endpoint_id=other) if other is not None else None


def wishes_of(guest: Guest, host_binding: str, host_binding6: str = "", access: Access = TRANSLATED) -> list[Publish]:
    """The ports to publish; those without a host IP get the network's `host_binding` of each family."""
    given = {name: _pairs(wanted) for name, wanted in guest.bindings.items()}
    wishes = parse_bindings(given, guest.exposed, guest.publish_all)
    default = None if host_binding in ("", str(ANY4)) else ip_address(host_binding)
    default6 = None if host_binding6 in ("", str(ANY6)) else ip_address(host_binding6)
    return [
        replace(wish, access=access) if wish.host else replace(wish, host=default, host6=default6, access=access)
        for wish in wishes
    ]


def freedom(wish: Publish) -> tuple[bool, int]:
    """Sort key: ports without a free choice first, so that others do not take theirs."""
    return not wish.first, wish.last - wish.first


def numbered(wishes: Iterable[Publish], ports: Mapping[str, list[PortBinding] | None]) -> list[tuple[Publish, int]]:
    """The requested ports, each with its host port in `ports`; 0 if missing there.

    For a container that ran on while the daemon was down. Those with the least choice come first.
    """
    left = [
        (*parse_port(name), ip_address(binding.host_ip or str(ANY4)), int(binding.host_port or 0))
        for name, bindings in ports.items()
        for binding in bindings or []
    ]
    found: list[tuple[Publish, int]] = []
    for wish in sorted(wishes, key=freedom):
        own = (at for at in left if at[:2] == (wish.port, wish.protocol) and at[2] in wish.hosts[:1])
        at = next((at for at in own if wish.accepts(at[3])), None)
        if at is not None:
            left.remove(at)
        found.append((wish, at[3] if at is not None else 0))
    return found


def bindings_left(
    guest: Guest, wishes: Sequence[Publish], given: Iterable[Publish]
) -> dict[str, list[PortBinding] | None]:
    """The `PortBindings` of a container except those `given` away; `wishes` are its ports of those bindings."""
    gone, left = list(given), dict[str, list[PortBinding] | None]()
    wanted = guest.bindings.items()
    asked = [(name, binding) for name, bindings in wanted for binding in bindings or [PortBinding()]]
    for (name, binding), wish in zip(asked, wishes, strict=False):  # wishes beyond these come from `PublishAllPorts`
        if wish in gone:
            gone.remove(wish)
        else:
            left[name] = [*(left.get(name) or []), binding]
    return left


def describe_ports(guest: Guest, reservations: Iterable[Reservation]) -> dict[str, list[PortBinding] | None]:
    """`NetworkSettings.Ports`: every exposed port with its bindings."""
    shown: dict[str, list[PortBinding] | None] = {}
    for name in guest.exposed:
        port, protocol = parse_port(name)
        shown[f"{port}/{protocol}"] = None
    for held in reservations:
        bindings = [PortBinding(host_ip=str(host), host_port=str(held.host_port)) for host in held.hosts]
        access = held.wish.access
        bindings += [PortBinding(host_ip=str(ANY[each])) for each in held.wish.versions(access.routed & access.opened)]
        name = f"{held.wish.port}/{held.wish.protocol}"
        shown[name] = [*(shown.get(name) or []), *bindings]
    return dict(sorted(shown.items()))


def describe_endpoint(asked: EndpointSettings, endpoint: Endpoint, guest: Guest, named: bool) -> EndpointSettings:
    """The container's endpoint on a bridge, as requested and completed; `named` networks have DNS names."""
    address, address6 = endpoint.address, endpoint.address6
    pool = endpoint.bridge.pool_of(address) if address is not None else None
    pool6 = endpoint.bridge.pool_of(address6) if address6 is not None else None
    way_out = not endpoint.bridge.internal
    return EndpointSettings(
        ipam_config=asked.ipam_config,
        links=asked.links,
        aliases=asked.aliases,
        driver_opts=asked.driver_opts,
        mac_address=endpoint.mac,
        network_id=endpoint.bridge.id,
        endpoint_id=endpoint.id,
        gateway=str(pool.router) if pool and way_out else "",
        ip_address=str(address or ""),
        ip_prefix_len=pool.subnet.prefixlen if pool else 0,
        ipv6_gateway=str(pool6.router) if pool6 and way_out else "",
        global_ipv6_address=str(address6 or ""),
        global_ipv6_prefix_len=pool6.subnet.prefixlen if pool6 else 0,
        dns_names=guest.dns_names(asked) if named else None,
        gw_priority=asked.gw_priority,
    )


def own_hosts(guest: Guest, endpoints: Iterable[Endpoint]) -> list[tuple[str, str]]:
    """The container's own lines in /etc/hosts: address, names."""
    names = guest.host_names
    return [(str(address), names) for endpoint in endpoints for address in endpoint.addresses if names]


def resolver_of(guest: Guest, daemon: files.Resolver, shares_host: bool) -> files.Resolver:
    """The container's DNS configuration; with `shares_host`, servers on the host's loopback are usable."""
    override = files.Resolver(tuple(guest.dns), tuple(guest.dns_search), tuple(guest.dns_options))
    return files.container_resolver(daemon, override, shares_host=shares_host)


def upstream_of(guest: Guest, held: Held, daemon: files.Resolver) -> Upstream:
    """The upstream servers of the container's name server: none if no network of its has an outside route.

    Servers configured for this container are queried from its own namespace, the host's from the host's.
    """
    if held.gateway() is None:
        return Upstream()
    servers = resolver_of(guest, daemon, shares_host=True).servers
    return Upstream(servers, held.netns if guest.dns else None)


def _pairs(wanted: list[PortBinding] | None) -> list[tuple[str, str]] | None:
    return None if wanted is None else [(binding.host_ip, binding.host_port) for binding in wanted]
