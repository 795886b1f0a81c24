"""Published ports: parsing, allocation of host ports, and the sockets that reserve them.

A socket bound to the host port reserves it while it is published: no other program can take it, and a conflict is found
before anything is set up. nftables sends IPv4 traffic straight to the container; what still arrives at the sockets
(IPv6, or everything while the rules are missing) is served by a `Relay`.

    -p 8080:80            0.0.0.0:8080 and [::]:8080
    -p 127.0.0.1::53/udp  127.0.0.1, any free port of net.ipv4.ip_local_port_range
    -p 9000-9010:80       the first free port of the range

`parse_*` is pure. Messages are dockerd's, since clients match them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

from havre.dataplane.ipam import Address, parse_address
from havre.dataplane.plan import TRANSLATED, Access, PortMap
from havre.dataplane.relay import Relay
from havre.errors import Failed
from havre.golang.ports import parse_host_port, parse_port
from havre.listening import Budget

EPHEMERAL = (32768, 60999)
ANY4, ANY6 = IPv4Address("0.0.0.0"), IPv6Address("::")
ANY: Mapping[int, Address] = {4: ANY4, 6: ANY6}

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_NO_SUCH_PROTOCOL = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT)


@dataclass(frozen=True)
class Publish:
    """A requested port mapping: container port `port`, on `host` (None: every address), to a host port `first`..`last`.

    `first` 0 means "any free port". With `host6` the same port number is reserved there, too. `access` says which IP
    versions need no host port.
    """

    protocol: str
    port: int
    host: Address | None = None
    first: int = 0
    last: int = 0
    host6: Address | None = None
    access: Access = TRANSLATED

    @property
    def asked(self) -> tuple[Address, ...]:
        """The host addresses requested."""
        if self.host6 is not None:
            return (self.host or ANY4, self.host6)
        return (ANY4, ANY6) if self.host is None else (self.host,)

    @property
    def hosts(self) -> tuple[Address, ...]:
        """The host addresses on which the port is reserved."""
        return tuple(host for host in self.asked if host.version not in self.access.routed)

    def accepts(self, number: int) -> bool:
        """Report whether it may get that host port."""
        return not self.first or self.first <= number <= self.last

    def versions(self, among: Collection[int]) -> list[int]:
        """Its IP versions that are in `among`."""
        return sorted({host.version for host in self.asked}.intersection(among))


def parse_bindings(
    bindings: Mapping[str, Sequence[tuple[str, str]] | None], exposed: Collection[str] = (), publish_all: bool = False
) -> list[Publish]:
    """Parse Docker's `PortBindings`, as (host IP, host port) by container port; `publish_all` adds other exposed
    ports."""
    wishes: list[Publish] = []
    for name, wanted in bindings.items():
        port, protocol = parse_port(name)
        for host, host_port in wanted or [("", "")]:
            first, last = parse_host_port(host_port) if host_port else (0, 0)
            wishes.append(Publish(protocol, port, parse_address(host) if host else None, first, last))
    if publish_all:
        given = {(wish.port, wish.protocol) for wish in wishes}
        rest = sorted({parse_port(name) for name in exposed} - given)
        wishes += [Publish(protocol, port) for port, protocol in rest]
    return wishes


@dataclass
class Reservation:
    """A host port reserved on one or two addresses for a container's port, until `release`."""

    wish: Publish
    host_port: int
    hosts: tuple[Address, ...]
    target: Address | None
    holder: str
    target6: Address | None = None
    relayed: bool = True
    sockets: list[socket.socket] = field(default_factory=list)
    relays: list[Relay] = field(default_factory=list)

    def maps(self) -> list[PortMap]:
        """The mappings for the firewall."""
        wish = self.wish
        targets = {4: self.target, 6: self.target6}
        held = [(host, self.host_port) for host in self.hosts]
        opened = [(ANY[version], 0) for version in wish.versions(wish.access.opened)]
        return [
            PortMap(wish.protocol, host, host_port, target, wish.port)
            for host, host_port in (*held, *opened)
            if (target := targets[host.version]) is not None
        ]

    def meets(self, wish: Publish) -> bool:
        """Report whether this reservation satisfies `wish`."""
        own = self.wish
        if replace(own, port=0, first=0, last=0) != replace(wish, port=0, first=0, last=0):
            return False
        if not wish.hosts or not wish.first:  # no host port, or any free one
            return own.port == wish.port and not (wish.hosts and own.first)
        return wish.accepts(self.host_port)

    def for_heir(self, wish: Publish, target: Address | None, holder: str, target6: Address | None) -> Reservation:
        """The reservation that another container gets from it by `Ports.hand_over`, for a wish that it satisfies."""
        return Reservation(wish, self.host_port, self.hosts, target, holder, target6, self.relayed)

    def retarget(self, target: Address | None, target6: Address | None) -> None:
        """Change the container's addresses; `serve` again afterwards."""
        for relay in self.relays:
            relay.close()
        self.relays.clear()
        self.target, self.target6 = target, target6

    def serve(self, budget: Budget | None = None) -> None:
        """Relay what arrives at the sockets themselves; `budget` limits the clients of all relays."""
        target = (str(self.target or self.target6), self.wish.port)
        for held in self.sockets if self.relayed else ():
            if self.wish.protocol != "sctp":
                self.relays.append(Relay(held, self.wish.protocol, target, budget))


class Ports:
    """The host ports reserved by this engine, in the network namespace of the thread that reserves them.

    Without `relays` (`--userland-proxy=false`) the sockets are bound and do not listen, so that connections that the
    rules
    do not translate are refused at once. `ruled` are the IP versions with rules, `api` the daemon's own listening
    addresses.
    """

    def __init__(
        self,
        ephemeral: tuple[int, int] = EPHEMERAL,
        *,
        relays: bool = True,
        ruled: Collection[int] = (4, 6),
        api: Collection[tuple[Address, int]] = (),
    ) -> None:
        self._api = tuple(api)
        self._relays = relays
        self._ruled = frozenset(ruled)
        self._ephemeral = ephemeral
        self._next = ephemeral[0]
        self._held: dict[tuple[str, int], list[Reservation]] = {}

    def reserve(
        self, wish: Publish, target: Address | None, holder: str, target6: Address | None = None
    ) -> Reservation:
        """Reserve a host port for `wish`, or raise Failed in dockerd's words; `holder` names the container.

        `target` and `target6` are the container's IPv4 and IPv6 addresses; if it has one of them alone, that serves
        clients of both IP versions.
        """
        hosts = wish.hosts
        if not hosts:
            return Reservation(wish, 0, (), target, holder, target6)
        if wish.protocol == "sctp" and not any(host.version in self._ruled for host in hosts):
            raise Failed(
                f"cannot publish {wish.port}/sctp: there are no rules (--iptables=false), and no relay knows SCTP",
                "give the container the host's network, or let the daemon have rules",
            )
        failure: Failed | None = None
        for number in self._candidates(wish):
            try:
                held = self._hold(wish, number, hosts, target, holder)
                held.target6 = target6
                return held
            except Failed as refused:
                failure = refused
        if failure is None or not wish.first:
            raise Failed("all ports are allocated", "free some, or widen net.ipv4.ip_local_port_range")
        raise failure

    def release(self, reservation: Reservation) -> None:
        """Free the port. Idempotent."""
        for relay in reservation.relays:
            relay.close()
        for held in reservation.sockets:
            held.close()
        reservation.relays.clear()
        reservation.sockets.clear()
        key = (reservation.wish.protocol, reservation.host_port)
        left = [other for other in self._held.get(key, []) if other is not reservation]
        if left:
            self._held[key] = left
        else:
            self._held.pop(key, None)

    def hand_over(self, held: Reservation, heir: Reservation) -> None:
        """Transfer the port from `held` to `heir`, with the same sockets: it stays reserved throughout."""
        for relay in held.relays:
            relay.leave()
        heir.sockets, held.sockets = held.sockets, []
        held.relays = []
        holders = self._held[held.wish.protocol, held.host_port]
        holders[next(index for index, each in enumerate(holders) if each is held)] = heir

    def _candidates(self, wish: Publish) -> Iterable[int]:
        return range(wish.first, wish.last + 1) if wish.first else self._free_ports()

    def _free_ports(self) -> Iterator[int]:
        """Yield every ephemeral port once, from the end of the last search: a port just freed is not reused at once."""
        first, last = self._ephemeral
        size = last - first + 1
        for _ in range(size):
            number = self._next
            self._next = first + (number + 1 - first) % size
            yield number

    def _hold(
        self, wish: Publish, number: int, hosts: tuple[Address, ...], target: Address | None, holder: str
    ) -> Reservation:
        for own, port in self._api if wish.protocol == "tcp" else ():
            if port == number and any(_clash(own, host) for host in hosts):
                raise Failed(f"Bind for {_shown(own, port)} failed: port is already allocated", "the API listens there")
        others = self._held.get((wish.protocol, number), [])
        for other in others:
            if any(_clash(a, b) for a in hosts for b in other.hosts):
                at = _shown(hosts[0], number)
                raise Failed(f"Bind for {at} failed: port is already allocated", f"container {other.holder} holds it")
        reservation = Reservation(wish, number, hosts, target, holder, relayed=self._relays)
        with contextlib.ExitStack() as undo:
            for host in hosts:
                implied = wish.host is None and wish.host6 is None and host == ANY6
                held = _bind(wish.protocol, host, number, implied, listen=self._relays)
                if held is not None:
                    reservation.sockets.append(undo.enter_context(held))
                elif implied:
                    reservation.hosts = (ANY4,)
            undo.pop_all()
        self._held.setdefault((wish.protocol, number), []).append(reservation)
        return reservation


def _bind(protocol: str, host: Address, port: int, implied: bool, *, listen: bool) -> socket.socket | None:
    """A socket that reserves the port; None where the kernel lacks the protocol, or IPv6 if that was only `implied`."""
    kind, number = _KINDS[protocol]
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    try:
        held = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if error.errno in _NO_SUCH_PROTOCOL:
            return None
        raise
    try:
        if host.version == 6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            # Connections in TIME_WAIT must not prevent binding (socket(7)); listening keeps the port exclusive
            # nevertheless.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((str(host), port))
        if protocol != "udp" and listen:
            held.listen(128)
    except OSError as error:
        held.close()
        if implied and error.errno == errno.EADDRNOTAVAIL:
            return None
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise Failed(f"listen {protocol}{host.version} {_shown(host, port)}: bind: {reason}") from error
    return held


def _clash(one: Address, other: Address) -> bool:
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


def _shown(host: Address, port: int) -> str:
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"
