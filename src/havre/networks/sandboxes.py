"""Sandboxes of running containers: allocate addresses, ports and names, and configure the kernel.

A sandbox is opened as a whole and undone in reverse order if a step fails; a running one is changed by the same
steps:

    decide    addresses, MACs (dataplane.ipam, dataplane.plan)       join ─▶ attach ─▶ ports follow the default route
    hold      host ports, by sockets (dataplane.ports)               leave ◀─ detach ◀─┘
    apply     namespace, veth pairs, addresses, routes (dataplane.apply)
    publish   ports in the firewall, one transaction (dataplane.firewall)
    name      register on its networks, start its name server (dataplane.nameserver)

Published ports lead to the endpoint with the default route, and move with it. Callers serialize changes of one
container. Messages are dockerd's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from havre.aio import in_thread
from havre.dataplane import hostfiles as files
from havre.dataplane import ipam, nameserver
from havre.dataplane.apply import Host
from havre.dataplane.firewall import Firewall
from havre.dataplane.ipam import Address, Pool
from havre.dataplane.nameserver import NameServer, Quota
from havre.dataplane.plan import VETH_PREFIX, Endpoint
from havre.dataplane.ports import Ports, Publish, Reservation
from havre.dataplane.relay import relay_budget
from havre.dataplane.zones import View, Zone, parse_links
from havre.errors import Conflict, Failed, Forbidden, HavreError, InvalidInput
from havre.failpoints import failpoint
from havre.linux import netlink
from havre.linux.namespaces import is_netns
from havre.networks import sandbox as texts
from havre.networks import spec as words
from havre.networks.endpoints import extras_of
from havre.networks.guest import Guest
from havre.networks.linking import Linking, Relinked
from havre.networks.links import variables_of
from havre.networks.rows import NetworkOptions, NetworkRows
from havre.networks.sandbox import Held, Published, Sandbox
from havre.networks.spec import Network, NetworkContainer
from havre.wire.config import EndpointSettings
from havre.wire.values import ContainerId

log = logging.getLogger(__name__)

_KERNEL_IPV6 = Path("/proc/sys/net/ipv6")
_RESOLVED_STUB, _RESOLVED_FILE = "127.0.0.53", Path("/run/systemd/resolve/resolv.conf")


class Sandboxes:
    """The network resources of all running containers."""

    def __init__(
        self,
        rows: NetworkRows,
        netns_dir: Path,
        options: NetworkOptions,
        host: Host,
        firewall: Firewall,
        relinked: Relinked,
    ) -> None:
        self._rows = rows
        self._netns_dir = netns_dir
        self._options = options
        self._host = host
        self._firewall = firewall
        self._ports = Ports(_ephemeral_range(), relays=options.relays, ruled=options.ruled, api=options.api)
        self._held: dict[ContainerId, Held] = {}
        self._used: dict[str, dict[Address, ContainerId]] = {}
        self._zones: dict[str, Zone] = {}
        self._quota, self._relayed = Quota(), relay_budget()
        self.links = Linking(rows, firewall, self._held, relinked)

    def members(self, network_id: str) -> dict[str, NetworkContainer]:
        """The running containers with an endpoint on a network, by ID."""
        found = {held.id: held.member(network_id) for held in self._held.values()}
        return {id: member for id, member in found.items() if member is not None}

    def users(self, network_id: str) -> set[ContainerId]:
        """The IDs of running containers with an endpoint on a network."""
        held = ((id, held) for id, held in self._held.items() if not held.left)
        return {id for id, each in held if network_id in each.endpoints or network_id in each.others}

    def all(self) -> list[Held]:
        """The resources of every running container."""
        return list(self._held.values())

    def get(self, id: ContainerId) -> Held | None:
        """The resources of one; None if it does not run, or shares another container's network."""
        return self._held.get(id)

    def forget_network(self, network_id: str) -> None:
        """Drop the state of a removed network."""
        self._used.pop(network_id, None)
        self._zones.pop(network_id, None)

    # -- whole sandboxes

    async def open(self, guest: Guest, userns: Path | None = None) -> Held:
        """Create namespace, endpoints, ports and names of a container about to start. A failure leaves nothing behind.

        The namespace is owned by the container's user namespace: that at `userns`, or one created for its `ids`.
        """
        id = ContainerId(guest.id)
        await self.close(id)
        asked = self._asked(guest)
        shares_host = any(self._rows[network].driver == "host" for network in asked)
        held = Held.of(guest, None if shares_host else self._netns_dir / guest.id)
        self._held[id] = held
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.close, id)
            self.links.check(held)
            for network_id, settings in asked.items():
                self._join(held, self._rows[network_id], settings)
            self._hold_ports(held, guest)
            await self.links.follow()
            failpoint("sandbox.held")
            if held.netns is not None:
                owner = userns or guest.ids
                then = nameserver.open_sockets if self._is_named(held) else nameserver.make_sockets
                held.sockets = await self._host.open_netns(held.netns, list(held.endpoints.values()), then, owner)
                held.led = self._is_named(held)
                await self._name(held, guest)
            failpoint("sandbox.made")
            await self._firewall.publish(held.maps())
            failpoint("sandbox.published")
            await self._serve(held)
            held.sandbox = self._describe(held, guest)
            undo.pop_all()
        return held

    def _asked(self, guest: Guest) -> dict[str, EndpointSettings]:
        """The requested networks, by ID; without the default bridge if it is disabled, as with dockerd."""
        absent = "bridge" if not self._options.bridge.wanted else ""
        asked = guest.asked.items()
        return {self._rows.find(name).id: settings for name, settings in asked if name != absent}

    async def close(self, id: ContainerId) -> Held | None:
        """Release all resources of a container and return them. Idempotent; every step is tried even if one fails."""
        held = self._held.pop(id, None)
        if held is None:
            return None
        async with AsyncExitStack() as steps:
            steps.callback(failpoint, "sandbox.closed")
            steps.callback(self._free_addresses, held)
            steps.push_async_callback(self._firewall.relink, self.links.maps_of(held), ())
            if held.netns is not None:
                steps.push_async_callback(self._host.close_netns, held.netns, held.devices())
            steps.callback(failpoint, "sandbox.retracted")
            steps.push_async_callback(self._retract, held)
            steps.callback(self._unname, held)
        return held

    def is_held(self, id: ContainerId) -> None:
        """conmon has inherited the sockets for a name server: close our copies of those that are unused."""
        held = self._held.get(id)
        if held is not None and held.names is None and held.sockets is not None:
            held.sockets.close()
            held.sockets = None

    def shared(self, other: ContainerId) -> Sandbox:
        """The sandbox of the container whose network another one joins."""
        held = self._held.get(other)
        if held is None or held.sandbox is None:
            raise Conflict(f"cannot join network of a non running container: {other}")
        return held.sandbox

    def let_go(self) -> None:
        """Close all sockets; kernel objects stay."""
        for held in self._held.values():
            for reservation in held.reservations:
                self._ports.release(reservation)
            _close_names(held)

    # -- one endpoint of a running container

    async def connect(self, guest: Guest, network: Network, asked: EndpointSettings) -> Held:
        """Connect a running container to another network. A failure changes nothing."""
        held = self._held[ContainerId(guest.id)]
        if network.id in held.endpoints:
            raise Forbidden(f"endpoint with name {held.name} already exists in network {network.name}")
        assert held.netns is not None, "a container in the host's network cannot be connected to others"
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.disconnect, guest, network)
            before = held.gateway()
            self._join(held, network, asked)
            await self._host.attach(held.netns, held.endpoints[network.id], held.gateway())
            failpoint("endpoint.attached")
            if before is None and held.gateway() is not None:
                self._hold_ports(held, guest)
                await self._firewall.publish(held.maps())
                await self._serve(held)
            await self._name(held, guest)
            held.sandbox = self._describe(held, guest)
            undo.pop_all()
        return held

    async def disconnect(self, guest: Guest, network: Network) -> Held:
        """Disconnect a running container from a network. Idempotent."""
        held = self._held[ContainerId(guest.id)]
        before, endpoint = held.gateway(), held.endpoints.pop(network.id, None)
        held.asked.pop(network.id, None)
        if endpoint is None or held.netns is None:
            self._free_addresses(held, network.id)
            return held
        self._zone(network).remove(endpoint.id)
        after = held.gateway()
        if before is endpoint:
            await self._move_ports(held, guest, endpoint, after)
            failpoint("endpoint.ports-moved")
        await self._host.detach(held.netns, endpoint, after)
        failpoint("endpoint.detached")
        self._free_addresses(held, network.id)
        if held.names is not None:
            self._see(held, guest)
        held.sandbox = self._describe(held, guest)
        return held

    async def _move_ports(self, held: Held, guest: Guest, old: Endpoint, new: Endpoint | None) -> None:
        """Point the published ports at another endpoint or, without one, release them."""
        if new is None or new.bridge.access != old.bridge.access:
            await self._retract(held)
            self._hold_ports(held, guest)
        else:
            await self._firewall.retract(held.maps())
            for reservation in held.reservations:
                reservation.retarget(new.address, new.address6)
        await self._firewall.publish(held.maps())
        await self._serve(held)

    async def take_ports(self, guest: Guest, givers: Sequence[Guest]) -> dict[str, Published]:
        """Publish a running container's requested ports that are not yet published, in one firewall transaction.

        Ports of `givers` are taken over; their established connections continue. Returns the ports of the container
        and of those that gave up any, by ID.
        """
        held = self._held[ContainerId(guest.id)]
        others = [(self._held[ContainerId(each.id)], each) for each in givers if ContainerId(each.id) in self._held]
        endpoint = held.gateway()
        if endpoint is None or not endpoint.bridge.on_host:
            raise Conflict(f"container {held.name} has no network that ports can be published on")
        own = [(held, each) for each in held.reservations]
        offered = [(other, each) for other, _ in others for each in other.reservations]
        new: list[Reservation] = []
        taken: list[tuple[Held, Reservation, Reservation]] = []
        async with AsyncExitStack() as undo:
            for wish in self._wishes(endpoint, guest):
                if _pick(own, wish):
                    continue
                if wish.hosts and (found := _pick(offered, wish)):
                    heir = found[1].for_heir(wish, endpoint.address, held.name, endpoint.address6)
                    taken.append((*found, heir))
                else:
                    new.append(self._ports.reserve(wish, endpoint.address, held.name, endpoint.address6))
                    undo.callback(self._ports.release, new[-1])
            opened = [port for each in (*new, *(heir for _, _, heir in taken)) for port in each.maps()]
            await self._firewall.exchange([port for _, given, _ in taken for port in given.maps()], opened)
            undo.pop_all()
        for other, given, heir in taken:
            self._ports.hand_over(given, heir)
            other.reservations.remove(given)
            other.given.update(port.address for port in given.maps())
            new.append(heir)
        held.reservations += new
        for each in new:
            try:
                await each.serve(self._relayed)
            except OSError as error:  # the firewall forwards it all the same
                log.error("container %s is not served at port %d: %s", held.name, each.host_port, error)
        gave = {other.id: [given.wish for owner, given, _ in taken if owner is other] for other, _ in others}
        changed = [(held, guest), *((other, its) for other, its in others if gave[other.id])]
        return {each.id: self._published(each, its, gave.get(each.id, ())) for each, its in changed}

    def _published(self, held: Held, guest: Guest, given: Iterable[Publish]) -> Published:
        endpoint = held.gateway()
        assert endpoint is not None, "a container with published ports has a default route"
        held.sandbox = self._describe(held, guest)
        return Published(held.sandbox.ports, texts.bindings_left(guest, self._wishes(endpoint, guest), given))

    async def _retract(self, held: Held) -> None:
        maps = held.maps()
        for reservation in held.reservations:
            self._ports.release(reservation)
        held.reservations.clear()
        await self._firewall.retract(maps)
        for address in {port.address for port in maps} | held.given:
            await self._host.forget_flows(address)

    async def _serve(self, held: Held) -> None:
        for reservation in held.reservations:
            await reservation.serve(self._relayed)

    # -- addresses and ports

    def _join(self, held: Held, network: Network, asked: EndpointSettings) -> None:
        held.asked[network.id] = asked
        if network.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        if network.driver in ("host", "null"):
            held.others[network.id] = secrets.token_hex(32)
            return
        mac = ipam.parse_mac(asked.mac_address) if asked.mac_address else ""
        extras = extras_of(asked)
        bridge, wanted = self._rows.bridge(network.id), asked.ipam_config
        address = self._allocate(held, network, bridge.pools_of(4), wanted.ipv4_address if wanted else "")
        mac, address6 = mac or ipam.mac_for(address), None
        if bridge.ipv6:
            pools = bridge.pools_of(6)
            derived = ipam.address_from(mac, pools[0].range) if network.name in words.PREDEFINED else None
            address6 = self._allocate(held, network, pools, wanted.ipv6_address if wanted else "", derived)
        elif wanted and wanted.ipv6_address:
            raise InvalidInput(f"invalid endpoint settings:\nnetwork {network.name} has no IPv6 subnet")
        interface = extras.interface or f"eth{held.free_number()}"
        if any(interface == other.interface for other in held.endpoints.values()):
            raise InvalidInput(f"invalid endpoint settings:\ntwo networks ask for the interface name {interface}")
        held.endpoints[network.id] = Endpoint(
            secrets.token_hex(32),
            bridge,
            address,
            mac,
            interface,
            address6,
            extras.priority,
            extras.link_local,
            extras.settings(interface),
        )

    def _allocate(
        self, held: Held, network: Network, pools: Sequence[Pool], wanted: str, derived: Address | None = None
    ) -> Address:
        if wanted:
            _check_wanted(network, pools, wanted)
        used = self._used.setdefault(network.id, {})
        named = f"{network.name} ({network.id})"
        address = ipam.allocate_from(pools, used, named, ipam.parse_address(wanted) if wanted else derived)
        used[address] = ContainerId(held.id)
        held.addresses.append((network.id, address))
        return address

    def _free_addresses(self, held: Held, network_id: str | None = None) -> None:
        """Release the addresses on one network, or on all."""
        for owner, address in list(held.addresses):
            if network_id in (None, owner):
                self._used.get(owner, {}).pop(address, None)
                held.addresses.remove((owner, address))

    def _hold_ports(self, held: Held, guest: Guest) -> None:
        endpoint = held.gateway()
        if endpoint is None or not endpoint.bridge.on_host:
            return  # it has its own device in the outside network
        wishes = self._wishes(endpoint, guest)
        try:
            for wish in sorted(wishes, key=texts.freedom):
                held.reservations.append(
                    self._ports.reserve(wish, endpoint.address, held.name, target6=endpoint.address6)
                )
        except Failed as error:
            where = f"driver failed programming external connectivity on endpoint {held.name} ({endpoint.id})"
            raise Failed(f"{where}: {error.message}", error.hint) from error
        held.reservations.sort(key=lambda each: wishes.index(each.wish))

    def _wishes(self, endpoint: Endpoint, guest: Guest) -> list[Publish]:
        options = self._rows[endpoint.bridge.id].options
        bindings = options.get(words.HOST_BINDING, ""), options.get(words.HOST_BINDING6, "")
        return texts.wishes_of(guest, *bindings, endpoint.bridge.access)

    # -- names

    def _zone(self, network: Network) -> Zone:
        return self._zones.setdefault(network.id, Zone(network.name))

    def _is_named(self, held: Held) -> bool:
        return any(self._rows[network_id].name not in words.PREDEFINED for network_id in held.endpoints)

    async def _name(self, held: Held, guest: Guest) -> None:
        """Register the container's names on its user-defined networks, and start or update its name server."""
        if not self._is_named(held):
            return
        for network_id, endpoint in held.endpoints.items():
            network = self._rows[network_id]
            if network.name not in words.PREDEFINED:
                names = guest.dns_names(held.asked[network_id])
                self._zone(network).add(endpoint.id, names, endpoint.addresses)
        if held.names is None:
            if held.sockets is None or not held.led:
                await self._lead_names(held, guest.pid)
            assert held.sockets is not None, "they were adopted or opened above"
            held.names = await NameServer.serve(held.sockets, View(), nameserver.Upstream(), self._quota, held.name)
        self._see(held, guest)

    async def _lead_names(self, held: Held, pid: int) -> None:
        """Redirect DNS queries to the sockets that conmon has kept for a running container, or to new ones."""
        assert held.netns is not None, "a container on a bridge has a namespace"
        held.sockets = held.sockets or await in_thread(nameserver.find_sockets, pid)
        if held.sockets is None:
            held.sockets = await self._host.inside(held.netns, nameserver.open_sockets)
        elif not (held.led and held.sockets.are_bound):
            await self._host.inside(held.netns, held.sockets.lead)
        held.led = True

    def _see(self, held: Held, guest: Guest) -> None:
        """Update the name server's view to the container's current networks."""
        networks = [self._rows[id] for id in held.endpoints if self._rows[id].name not in words.PREDEFINED]
        links = {network.name: parse_links(held.asked[network.id].links or ()) for network in networks}
        assert held.names is not None, "the view belongs to a name server"
        held.names.view = View([self._zone(network) for network in networks], dict(links))
        held.names.upstream = texts.upstream_of(guest, held, self._resolver())

    def withdraw(self, id: ContainerId) -> None:
        """Remove the container's names from DNS. Idempotent."""
        if (held := self._held.get(id)) is not None:
            self._forget_names(held)

    def _forget_names(self, held: Held) -> None:
        for network_id, endpoint in held.endpoints.items():
            if network_id in self._zones:
                self._zones[network_id].remove(endpoint.id)

    def _unname(self, held: Held) -> None:
        self._forget_names(held)
        _close_names(held)

    def rename(self, guest: Guest, old: str) -> None:
        """Rename the container from `old` in DNS and in links to it."""
        self.links.rename(old, guest.name)
        held = self._held.get(ContainerId(guest.id))
        if held is None:
            return
        held.name = guest.name
        for network_id, endpoint in held.endpoints.items():
            if network_id in self._zones:
                self._zones[network_id].remove(endpoint.id)
                names = guest.dns_names(held.asked[network_id])
                self._zones[network_id].add(endpoint.id, names, endpoint.addresses)

    # -- words

    def _describe(self, held: Held, guest: Guest) -> Sandbox:
        endpoints: dict[str, EndpointSettings] = {}
        for network_id, endpoint in held.endpoints.items():
            network = self._rows[network_id]
            named = network.name not in words.PREDEFINED
            endpoints[network.name] = texts.describe_endpoint(held.asked[network_id], endpoint, guest, named)
        for network_id, endpoint_id in held.others.items():
            got = msgspec.structs.replace(held.asked[network_id], network_id=network_id, endpoint_id=endpoint_id)
            endpoints[self._rows[network_id].name] = got
        ports = texts.describe_ports(guest, held.reservations) if held.endpoints else {}
        hosts, resolv_conf = self._files(held, guest)
        kept = held.sockets.descriptors if held.sockets is not None else ()
        return Sandbox(held.netns, endpoints, ports, hosts, resolv_conf, variables_of(held.links), kept)

    def _files(self, held: Held, guest: Guest) -> tuple[str, str]:
        """The texts of /etc/hosts and resolv.conf."""
        extra = guest.extra_hosts
        if held.netns is None:
            hosts = files.append_hosts(_read(Path("/etc/hosts")), extra, self._host_gateway())
        else:
            own = texts.own_hosts(guest, held.endpoints.values())
            lines, ipv6 = [*held.link_lines(), *own], _KERNEL_IPV6.exists() and guest.ipv6_loopback
            hosts = files.render_hosts(lines, extra, self._host_gateway(), ipv6=ipv6)
        resolver = texts.resolver_of(guest, self._resolver(), shares_host=held.netns is None)
        if held.names is not None:
            resolver = files.embedded_resolver(resolver, nameserver.ADDRESS)
        return hosts, files.render_resolv_conf(resolver)

    def _host_gateway(self) -> str:
        """The address of `host-gateway`: the default bridge's, unless configured."""
        network = self._rows.named("bridge")
        own = str(self._rows.bridge(network.id).pools[0].gateway) if network is not None else ""
        return self._options.host_gateway or own

    def _resolver(self) -> files.Resolver:
        host = files.parse_resolv_conf(_read(Path("/etc/resolv.conf")))
        if host.servers == (_RESOLVED_STUB,) and _RESOLVED_FILE.exists():
            host = files.parse_resolv_conf(_read(_RESOLVED_FILE))
        return files.container_resolver(host, self._options.resolver, shares_host=True)

    # -- after a start of the daemon

    async def adopt(self, containers: Iterable[Guest]) -> None:
        """Adopt the resources of running containers: addresses, devices, ports, names."""
        alone = {self._netns_dir / guest.id: guest for guest in containers if not guest.mode.startswith("container:")}
        for path, guest in alone.items():
            if not (self._shares_host(guest) or is_netns(path)):
                await self._host.hold_netns(path, guest.pid, owned=guest.ids is not None)
        found = await self._host.look_into([path for path in alone if is_netns(path)], _look_here)
        links = {link.name: link for link in await self._host.links()}
        for path, guest in alone.items():
            await self._adopt(guest, path, found.get(path, ([], False)), links)

    def _shares_host(self, guest: Guest) -> bool:
        rows = (self._rows.get(settings.network_id) for settings in guest.endpoints.values())
        return any(row is not None and row.driver == "host" for row in rows)

    async def _adopt(self, guest: Guest, path: Path, found: Inside, on_host: Mapping[str, netlink.Link]) -> None:
        held = Held.of(guest, None if self._shares_host(guest) else path)
        self._held[ContainerId(held.id)] = held
        inside, held.led = found
        interfaces = {link.mac: link.name for link in inside if not link.name.startswith(VETH_PREFIX)}
        for name, settings in guest.endpoints.items():
            self._adopt_endpoint(held, name, settings, interfaces)
        for network_id, endpoint in held.endpoints.items():
            if endpoint.interface and _is_port(endpoint, on_host):
                continue
            if not (endpoint.interface and await self._host.enslave(endpoint)):
                await self._attach_again(held, network_id)
        target = held.gateway()
        if target is not None and target.bridge.on_host:
            self._hold_again(held, guest, target)

    def _hold_again(self, held: Held, guest: Guest, target: Endpoint) -> None:
        """Reserve the ports that a container had under another daemon, each for its requested binding."""
        for wish, number in texts.numbered(self._wishes(target, guest), guest.ports):
            same = replace(wish, first=number, last=number) if number else wish
            try:
                reservation = self._ports.reserve(same, target.address, held.name, target.address6)
            except Failed as error:
                log.error("container %s is no longer reachable at a published port: %s", held.name, error)
                continue
            reservation.wish = wish
            held.reservations.append(reservation)

    def _adopt_endpoint(self, held: Held, name: str, settings: EndpointSettings, interfaces: Mapping[str, str]) -> None:
        network = self._rows.get(settings.network_id)
        if network is None:
            log.error("container %s is on network %s, which does not exist any more", held.name, name)
            return
        held.asked[network.id] = settings
        if network.driver in ("host", "null"):
            held.others[network.id] = settings.endpoint_id
        elif settings.ip_address:
            bridge = self._rows.bridge(network.id)
            given = settings.global_ipv6_address if bridge.ipv6 else ""
            endpoint = Endpoint(
                settings.endpoint_id,
                bridge,
                ipam.parse_address(settings.ip_address),
                settings.mac_address,
                interfaces.get(settings.mac_address.lower(), ""),
                ipam.parse_address(given) if given else None,
                extras_of(settings).priority,
            )
            for address in endpoint.addresses:
                self._used.setdefault(network.id, {})[address] = ContainerId(held.id)
                held.addresses.append((network.id, address))
            held.endpoints[network.id] = endpoint

    async def _attach_again(self, held: Held, network_id: str) -> None:
        """Create a container's device again that a daemon had detached when it was killed before recording it."""
        endpoint, extras = held.endpoints[network_id], extras_of(held.asked[network_id])
        interface = extras.interface or f"eth{held.free_number()}"
        endpoint = held.endpoints[network_id] = replace(
            endpoint, interface=interface, link_local=extras.link_local, sysctls=extras.settings(interface)
        )
        log.warning("container %s has lost its device on network %s: creating another", held.name, endpoint.bridge.name)
        try:
            await self._host.delete_veth(endpoint.link)
            if held.netns is not None:
                await self._host.attach(held.netns, endpoint, held.gateway())
        except HavreError as error:
            log.error("container %s is not on network %s: %s", held.name, endpoint.bridge.name, error)

    async def serve(self, guest: Guest) -> None:
        """Start serving an adopted container's ports and names."""
        held = self._held.get(ContainerId(guest.id))
        if held is not None:
            await self._serve(held)
            if held.netns is not None:
                await self._name(held, guest)
            held.sandbox = self._describe(held, guest)

    async def reclaim(self) -> None:
        """Remove namespaces and devices of containers and networks that no longer exist."""
        await self._host.delete_orphans([*self._rows.bridges(), *self._rows.children()])
        kept = {held.id for held in self._held.values()}
        for path in self._netns_dir.iterdir() if self._netns_dir.is_dir() else ():
            if path.stem not in kept:  # the owning user namespace is kept beside it
                await self._host.close_netns(path.with_suffix(""), [])
        expected = {link for held in self._held.values() for link in held.devices()}
        bridges = {bridge.link for bridge in self._rows.bridges()}
        links = await self._host.links()
        masters = {link.index for link in links if link.name in bridges}
        for link in links:
            ours = link.kind == "veth" and link.name.startswith(VETH_PREFIX)
            if ours and link.master in masters and link.name not in expected:
                await self._host.delete_veth(link.name)


def _pick(pool: list[tuple[Held, Reservation]], wish: Publish) -> tuple[Held, Reservation] | None:
    """Remove from `pool`, and return, the container that publishes the requested port, and its reservation."""
    found = next((number for number, (_, each) in enumerate(pool) if each.meets(wish)), None)
    return pool.pop(found) if found is not None else None


def _close_names(held: Held) -> None:
    if held.names is not None:
        held.names.close()
        held.names = None
    if held.sockets is not None:
        held.sockets.close()
        held.sockets = None


Inside = tuple[list[netlink.Link], bool]
"""The devices of a network namespace, and whether DNS queries are redirected there."""


def _look_here() -> Inside:
    with netlink.Netlink() as own:
        return own.links(), nameserver.are_led()


def _is_port(endpoint: Endpoint, links: Mapping[str, netlink.Link]) -> bool:
    """Report whether its device is a port of its bridge, by the host's `links`."""
    port, master = links.get(endpoint.link), links.get(endpoint.bridge.link)
    return port is not None and master is not None and port.master == master.index


def _check_wanted(network: Network, pools: Sequence[Pool], wanted: str) -> None:
    where = f"invalid config for network {network.name}: invalid endpoint settings:\n"
    if network.name in words.PREDEFINED:
        raise InvalidInput(where + "user specified IP address is supported on user defined networks only")
    if not any(ipam.parse_address(wanted) in pool for pool in pools):
        raise InvalidInput(where + f"no configured subnet or ip-range contain the IP address {wanted}")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _ephemeral_range() -> tuple[int, int]:
    first, last = _read(Path("/proc/sys/net/ipv4/ip_local_port_range")).split() or ("32768", "60999")
    return int(first), int(last)
