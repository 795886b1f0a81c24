"""Sandboxes of running containers: allocate addresses, ports and names, and configure the kernel.

A sandbox is opened as a whole and undone in reverse order if a step fails; a running one is changed by the same
steps:

    decide    addresses, MACs (dataplane.ipam)                      join ─▶ attach ─▶ ports follow the default route
    hold      host ports, by sockets (publishing)                   leave ◀─ detach ◀─┘
    apply     namespace, veth pairs, addresses, routes (dataplane.apply)
    publish   ports in the firewall, one transaction (publishing)
    name      register on its networks, start its name server (naming)

Published ports lead to the endpoint with the default route, and move with it. Callers serialize changes of one
container. Messages are dockerd's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from havre.dataplane import ipam, nameserver
from havre.dataplane.apply import Host
from havre.dataplane.firewall import Firewall
from havre.dataplane.ipam import Address, Pool
from havre.dataplane.plan import VETH_PREFIX, Endpoint
from havre.dataplane.ports import Publish
from havre.errors import Conflict, Forbidden, HavreError, InvalidInput
from havre.failpoints import failpoint
from havre.linux import netlink
from havre.linux.namespaces import is_netns
from havre.networks import sandbox as texts
from havre.networks import spec as words
from havre.networks.endpoints import extras_of
from havre.networks.guest import Guest
from havre.networks.linking import Linking, Relinked
from havre.networks.links import variables_of
from havre.networks.naming import Naming, close_names
from havre.networks.publishing import Publishing
from havre.networks.rows import NetworkOptions, NetworkRows
from havre.networks.sandbox import Held, Published, Sandbox
from havre.networks.spec import Network, NetworkContainer
from havre.wire.config import EndpointSettings
from havre.wire.values import ContainerId

log = logging.getLogger(__name__)


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
        self._held: dict[ContainerId, Held] = {}
        self._used: dict[str, dict[Address, ContainerId]] = {}
        self._publishing = Publishing(rows, options, host, firewall)
        self._naming = Naming(rows, options, host)
        self.links = Linking(rows, firewall, self._held, relinked)

    def members(self, network_id: str) -> dict[str, NetworkContainer]:
        """The running containers with an endpoint on a network, by ID."""
        found = {held.id: held.member(network_id) for held in self._held.values()}
        return {id: member for id, member in found.items() if member is not None}

    def users(self, network_id: str) -> set[ContainerId]:
        """The IDs of running containers with an endpoint on a network."""
        held = ((id, held) for id, held in self._held.items() if not held.left)
        return {id for id, each in held if network_id in each.endpoints or network_id in each.others}

    def used(self, network_id: str) -> Collection[Address]:
        """The addresses of running containers on a network."""
        return self._used.get(network_id, {})

    def all(self) -> list[Held]:
        """The resources of every running container."""
        return list(self._held.values())

    def get(self, id: ContainerId) -> Held | None:
        """The resources of one; None if it does not run, or shares another container's network."""
        return self._held.get(id)

    def forget_network(self, network_id: str) -> None:
        """Drop the state of a removed network."""
        self._used.pop(network_id, None)
        self._naming.forget_network(network_id)

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
            self._publishing.hold(held, guest)
            await self.links.follow()
            failpoint("sandbox.held")
            if held.netns is not None:
                owner = userns or guest.ids
                then = nameserver.open_sockets if self._naming.is_named(held) else nameserver.make_sockets
                held.sockets = await self._host.open_netns(held.netns, list(held.endpoints.values()), then, owner)
                held.led = self._naming.is_named(held)
                await self._naming.name(held, guest)
            failpoint("sandbox.made")
            await self._firewall.publish(held.maps())
            failpoint("sandbox.published")
            self._publishing.serve(held)
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
            steps.push_async_callback(self._publishing.retract, held)
            steps.callback(self._naming.unname, held)
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
            self._publishing.let_go(held)
            close_names(held)

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
            await self._host.attach(held.netns, held.endpoints[network.id], held.ways())
            failpoint("endpoint.attached")
            if before is None and held.gateway() is not None:
                self._publishing.hold(held, guest)
                await self._firewall.publish(held.maps())
                self._publishing.serve(held)
            await self._naming.name(held, guest)
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
        self._naming.left(network, endpoint)
        after = held.gateway()
        if before is endpoint:
            await self._publishing.move(held, guest, endpoint, after)
            failpoint("endpoint.ports-moved")
        await self._host.detach(held.netns, endpoint, held.ways())
        failpoint("endpoint.detached")
        self._free_addresses(held, network.id)
        if held.names is not None:
            self._naming.see(held, guest)
        held.sandbox = self._describe(held, guest)
        return held

    async def take_ports(self, guest: Guest, givers: Sequence[Guest]) -> dict[str, Published]:
        """Publish a running container's requested ports that are not yet published, in one firewall transaction.

        Ports of `givers` are taken over; their established connections continue. Returns the ports of the container
        and of those that gave up any, by ID.
        """
        held = self._held[ContainerId(guest.id)]
        others = [(self._held[ContainerId(each.id)], each) for each in givers if ContainerId(each.id) in self._held]
        gave = await self._publishing.take(held, guest, others)
        changed = [(held, guest), *((other, its) for other, its in others if gave[other.id])]
        return {each.id: self._published(each, its, gave.get(each.id, ())) for each, its in changed}

    def _published(self, held: Held, guest: Guest, given: Iterable[Publish]) -> Published:
        endpoint = held.gateway()
        assert endpoint is not None, "a container with published ports has a default route"
        held.sandbox = self._describe(held, guest)
        left = texts.bindings_left(guest, self._publishing.wishes(endpoint, guest), given)
        return Published(held.sandbox.ports, left)

    # -- names

    def withdraw(self, id: ContainerId) -> None:
        """Remove the container's names from DNS. Idempotent."""
        if (held := self._held.get(id)) is not None:
            self._naming.forget(held)

    def rename(self, guest: Guest, old: str) -> None:
        """Rename the container from `old` in DNS and in links to it."""
        self.links.rename(old, guest.name)
        if (held := self._held.get(ContainerId(guest.id))) is not None:
            held.name = guest.name
            self._naming.rename(held, guest)

    # -- addresses

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
        address = self._allocate(held, network, 4, wanted.ipv4_address if wanted else "")
        mac = mac or (ipam.mac_for(address) if address is not None else "")
        derives = bridge.ipv6 and network.name in words.PREDEFINED
        derived = ipam.address_from(mac, bridge.pools_of(6)[0].range) if derives else None
        address6 = self._allocate(held, network, 6, wanted.ipv6_address if wanted else "", derived)
        if not mac:
            assert address6 is not None, "a network has IPv4 or IPv6"
            mac = ipam.mac_for(address6)
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
        self, held: Held, network: Network, version: int, wanted: str, derived: Address | None = None
    ) -> Address | None:
        """An address of an IP version; None if the network has none of that."""
        pools = self._rows.bridge(network.id).pools_of(version)
        if not pools and wanted:
            raise InvalidInput(f"invalid endpoint settings:\nnetwork {network.name} has no IPv{version} subnet")
        if not pools:
            return None
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
        hosts, resolv_conf = self._naming.files_of(held, guest)
        kept = held.sockets.descriptors if held.sockets is not None else ()
        return Sandbox(held.netns, endpoints, ports, hosts, resolv_conf, variables_of(held.links), kept)

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
            self._publishing.hold_again(held, guest, target)

    def _adopt_endpoint(self, held: Held, name: str, settings: EndpointSettings, interfaces: Mapping[str, str]) -> None:
        network = self._rows.get(settings.network_id)
        if network is None:
            log.error("container %s is on network %s, which does not exist any more", held.name, name)
            return
        held.asked[network.id] = settings
        if network.driver in ("host", "null"):
            held.others[network.id] = settings.endpoint_id
        elif settings.ip_address or settings.global_ipv6_address:
            bridge = self._rows.bridge(network.id)
            given = settings.global_ipv6_address if bridge.ipv6 else ""
            endpoint = Endpoint(
                settings.endpoint_id,
                bridge,
                ipam.find_address(settings.ip_address),
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
                await self._host.attach(held.netns, endpoint, held.ways())
        except HavreError as error:
            log.error("container %s is not on network %s: %s", held.name, endpoint.bridge.name, error)

    async def serve(self, guest: Guest) -> None:
        """Start serving an adopted container's ports and names."""
        held = self._held.get(ContainerId(guest.id))
        if held is not None:
            self._publishing.serve(held)
            if held.netns is not None:
                await self._naming.name(held, guest)
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
