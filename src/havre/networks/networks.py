"""Networks, and the containers on them.

The room's face. `rows` stores the networks, `sandboxes` what running containers use; this module connects them with
the kernel's bridges and the firewall, and publishes events.

After `kill -9` the kernel's state is still present: `start` compares it with the rows, adopts devices of running
containers, restores what is missing, and removes the rest. Messages are dockerd's.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from havre.dataplane import ipam
from havre.dataplane.apply import Host
from havre.dataplane.firewall import Firewall
from havre.dataplane.plan import Bridge
from havre.errors import Forbidden, HavreError, InvalidInput, NotFound
from havre.failpoints import failpoint
from havre.linux.netlink import Interface
from havre.networks import spec as words
from havre.networks.guest import Guest
from havre.networks.linking import Relinked
from havre.networks.rows import NetworkOptions, NetworkRows, NetworkTable
from havre.networks.sandbox import Held, Published, Sandbox
from havre.networks.sandboxes import Sandboxes
from havre.networks.spec import IpamStatus, Network, NetworkSpec, NetworkStatus, SubnetStatus
from havre.wire import times
from havre.wire.config import EndpointSettings
from havre.wire.filters import Filters, check_keys, matches_labels
from havre.wire.values import ContainerId

__all__ = ["Network", "NetworkOptions", "NetworkSpec", "Networks", "Sandbox"]

log = logging.getLogger(__name__)


class Publisher(Protocol):
    """Publishes events."""

    def publish(self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None: ...


def tag_for(run_root: Path) -> str:
    """The tag of a daemon, from its run directory: empty for the default one."""
    return "" if run_root == Path("/run/havre") else hashlib.sha256(str(run_root).encode()).hexdigest()[:6]


class Networks:
    """Docker's networks. Sockets to the kernel are opened by `open`, in the network namespace of its thread.

    `relinked` is called when a container's lines of links in /etc/hosts change.
    """

    def __init__(
        self,
        table: NetworkTable,
        run_root: Path,
        options: NetworkOptions,
        events: Publisher | None = None,
        relinked: Relinked | None = None,
    ) -> None:
        self._rows = NetworkRows(table)
        self._netns_dir = run_root / "netns"
        self._options = options
        self._events = events
        self._host: Host | None = None
        self._firewall: Firewall | None = None
        self._sandboxes: Sandboxes | None = None
        self._relinked = relinked or _nobody_told

    # -- life

    def open(self) -> None:
        """Open the netlink sockets. Called before containers are adopted, as the firewall's needs a low descriptor."""
        options = self._options
        self._firewall = Firewall(options.table, options.ruled, overrides=options.publish_policy == "docker")
        self._host = Host(options.table, ruled=4 in options.ruled)

    async def start(self, endpoints: Mapping[ContainerId, Guest]) -> None:
        """Bring the kernel in line with the rows; `endpoints` are the running containers."""
        if self._host is None:
            self.open()
        host, firewall = self._kernel()
        await host.settle()  # complete what a killed daemon had begun
        sandboxes = self._sandboxes = Sandboxes(
            self._rows, self._netns_dir, self._options, host, firewall, self._relinked
        )
        await self._rows.load()
        ours = {self._options.link, *(bridge.link for bridge in self._rows.bridges())}
        await self._ensure_predefined(host, ours)
        for bridge in self._rows.bridges():
            await self._restore(host.ensure_bridge(bridge), bridge)
        for child in self._rows.children():
            await self._restore(host.probe_parent(child), child)
        await sandboxes.adopt(endpoints.values())
        await sandboxes.reclaim()
        ports = [port for held in sandboxes.all() for port in held.maps()]
        sandboxes.links.find()
        await firewall.start(self._rows.bridges(), ports, sandboxes.links.maps())
        for guest in endpoints.values():
            try:
                await sandboxes.serve(guest)
            except HavreError as error:
                log.error("container %s keeps running without DNS or relayed ports: %s", guest.name, error)
        self._enable_forwarding()
        self._warn_of_drops()

    async def stop(self) -> None:
        """Close the sockets. Kernel objects stay while containers run, otherwise all are removed."""
        host, firewall = self._kernel()
        sandboxes = self._open()
        idle = not any(held.endpoints for held in sandboxes.all())
        await firewall.stop(remove=idle)
        for bridge in self._rows.bridges() if idle else ():
            await host.drop_bridge(bridge)
        await host.settle()
        sandboxes.let_go()  # last: name servers answer until then
        host.close()
        self._host = self._firewall = self._sandboxes = None

    # -- rows

    def get(self, name_or_id: str) -> Network:
        """The network with this ID, name, or unambiguous ID prefix, with its containers."""
        network = self._rows.find(name_or_id)
        return msgspec.structs.replace(network, containers=self._open().members(network.id))

    def status(self, network_id: str) -> NetworkStatus:
        """The use of a network's subnets."""
        used = self._open().used(network_id)
        counted = {str(each.subnet): ipam.occupancy(each, used) for each in self._rows.pools(network_id)}
        most = (1 << 64) - 1
        subnets = {net: SubnetStatus(min(busy, most), min(free, most)) for net, (busy, free) in counted.items()}
        return NetworkStatus(ipam=IpamStatus(subnets=subnets))

    def find(self, name_or_id: str) -> Network:
        """As `get`, without its containers and the cost of listing them."""
        return self._rows.find(name_or_id)

    def name_of(self, name_or_id: str) -> str:
        """The name of the network that `get` finds, without listing its containers."""
        return self._rows.find(name_or_id).name

    def list(self, filters: Filters) -> list[Network]:
        """The networks that match the filters; `containers` is empty, as with dockerd."""
        return self._rows.listed(filters, lambda id: bool(self.containers_on(id)))

    async def create(self, spec: NetworkSpec) -> Network:
        """Create a network."""
        host, firewall = self._kernel()
        network = self._rows.decide(
            spec, self._options, await host.routes([bridge.link for bridge in self._rows.bridges()])
        )
        async with AsyncExitStack() as undo:
            self._rows.add(network)
            undo.push_async_callback(self._drop, network.id)
            if not network.config_only:
                await self._make(self._rows.bridge(network.id), host, firewall)
            failpoint("network.made")
            await self._rows.save(network)
            failpoint("network.recorded")
            undo.pop_all()
        self._publish("create", network)
        return network

    async def _make(self, bridge: Bridge, host: Host, firewall: Firewall) -> None:
        if not bridge.on_host:
            await host.probe_parent(bridge)
            return
        await host.ensure_bridge(bridge)
        failpoint("network.bridge")
        await firewall.add_bridge(bridge)
        if bridge.ipv6:
            self._enable_forwarding()

    async def remove(self, name_or_id: str) -> None:
        """Remove a network without running containers."""
        try:
            network = self._rows.find(name_or_id)
        except NotFound:
            if await self._rows.discard(name_or_id):
                return
            raise
        if network.name in words.PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if self._rows.users_of(network):
            raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
        if self.containers_on(network.id):
            raise Forbidden(
                f"error while removing network: network {network.name} id {network.id} has active endpoints"
            )
        await self._drop(network.id)
        failpoint("network.dropped")
        await self._rows.delete(network.id)
        self._publish("destroy", network)

    def prunable(self, filters: Filters) -> Sequence[Network]:
        """The networks without running containers that match `label` and `until`."""
        check_keys(filters, ("label", "label!", "until"))
        limit = _until(filters)
        return [
            network
            for network in self._rows
            if network.name not in words.PREDEFINED
            and not network.config_only
            and not self.containers_on(network.id)
            and matches_labels(filters, network.labels)
            and times.parse(network.created) < limit
        ]

    async def prune(self, filters: Filters) -> tuple[str, ...]:
        """Remove the `prunable` networks. Returns their names, without those that a client takes or removes first."""
        gone = []
        for network in self.prunable(filters):
            with suppress(NotFound, Forbidden):
                await self.remove(network.id)
                gone.append(network.name)
        if self._events is not None:
            self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return tuple(gone)

    def containers_on(self, network_id: str) -> set[ContainerId]:
        """The running containers with an endpoint on the network."""
        return self._open().users(network_id)

    # -- containers

    async def open_sandbox(
        self, guest: Guest, userns: Path | None = None, joined: ContainerId | None = None
    ) -> Sandbox:
        """Create namespace, endpoints and ports of a container about to start. A failure leaves nothing behind.

        `userns` is the file of the user namespace of another container that it joins; `joined` is the container
        whose network it shares, whose sandbox is then returned.
        """
        sandboxes = self._open()
        if joined is not None:
            return sandboxes.shared(joined)
        held = await sandboxes.open(guest, userns)
        for network_id in (*held.endpoints, *held.others):
            self._publish("connect", self._rows[network_id], guest.id)
        return _described(held)

    def is_held(self, id: ContainerId) -> None:
        """The container was created: conmon has inherited the sandbox's descriptors, so our copies may be closed."""
        self._open().is_held(id)

    def leave(self, id: ContainerId) -> None:
        """The container has ended: it no longer counts as on its networks, though its sandbox is not yet closed."""
        if self._sandboxes is not None and (held := self._sandboxes.get(id)) is not None:
            held.left = True

    async def close_sandbox(self, id: ContainerId) -> None:
        """Release everything that the container uses. Idempotent.

        Does nothing after `stop`: the next `start` removes what is left.
        """
        held = await self._sandboxes.close(id) if self._sandboxes is not None else None
        if held is None or held.sandbox is None:
            return
        for network_id in (*held.endpoints, *held.others):
            if network_id in self._rows:
                self._publish("disconnect", self._rows[network_id], held.id)

    async def connect(self, guest: Guest, network: Network, asked: EndpointSettings) -> Sandbox:
        """Connect a running container to another network. NotFound if that was removed meanwhile."""
        if network.id not in self._rows:
            raise NotFound(f"network {network.name} not found")
        held = await self._open().connect(guest, network, asked)
        self._publish("connect", network, guest.id)
        return _described(held)

    async def disconnect(self, guest: Guest, network: Network) -> Sandbox:
        """Disconnect a running container from a network."""
        held = await self._open().disconnect(guest, network)
        self._publish("disconnect", network, guest.id)
        return _described(held)

    async def take_ports(self, guest: Guest, givers: Sequence[Guest]) -> dict[str, Published]:
        """Publish the ports of a running container's current configuration, taking them over from `givers`.

        Returns the ports of the container and of those that gave up any, by ID.
        """
        return await self._open().take_ports(guest, givers)

    def withdraw(self, id: ContainerId) -> None:
        """Remove a running container's names from DNS; it keeps its addresses. Idempotent."""
        self._open().withdraw(id)

    def renamed(self, guest: Guest, old: str) -> None:
        """The container was renamed from `old`."""
        self._open().rename(guest, old)

    async def unlink(self, id: ContainerId, alias: str) -> None:
        """Remove the link `alias` of a running container."""
        await self._open().links.unlink(id, alias)

    async def _drop(self, network_id: str) -> None:
        host, firewall = self._kernel()
        self._open().forget_network(network_id)
        bridge = self._rows.forget(network_id)
        await firewall.remove_bridge(network_id)
        failpoint("network.unruled")
        if bridge is None:
            return
        if bridge.on_host:
            await host.drop_bridge(bridge)
        elif not self._rows.on_parent(bridge.parent):
            await host.delete_parent(bridge)

    def _publish(self, action: str, network: Network, container_id: str = "") -> None:
        if self._events is not None:
            attributes = {"name": network.name, "type": network.driver}
            self._events.publish(
                "network", action, network.id, {"container": container_id, **attributes} if container_id else attributes
            )

    def _kernel(self) -> tuple[Host, Firewall]:
        if self._host is None or self._firewall is None:
            raise RuntimeError("Networks is used before start() or after stop()")
        return self._host, self._firewall

    def _open(self) -> Sandboxes:
        if self._sandboxes is None:
            raise RuntimeError("Networks is used before start() or after stop()")
        return self._sandboxes

    # -- starting

    async def _ensure_predefined(self, host: Host, ours: Collection[str]) -> None:
        wanted = self._options.bridge
        wanted.check()
        for flag in wanted.idle:
            log.warning("%s has no effect without --ipv6", flag)
        old = self._rows.named("bridge")
        left = self._rows.bridge(old.id) if old is not None else None
        present: Sequence[Interface] = ()
        if wanted.link and wanted.wanted:
            present = await host.bridge_addresses(wanted.link)
        await self._rows.ensure_predefined(self._options, await host.routes(ours), present)
        if left is not None and (not wanted.wanted or left.link != self._options.link):
            await host.drop_bridge(left)

    async def _restore(self, work: Awaitable[None], bridge: Bridge) -> None:
        """Restore a network; a failure of a user-defined one is logged, so that the others work."""
        try:
            await work
        except HavreError as error:
            if bridge.link == self._options.link:
                raise
            log.error("network %s is not available: %s", bridge.name, error)

    def _enable_forwarding(self) -> None:
        host, _ = self._kernel()
        if not self._options.forwarding:
            return
        try:
            host.enable_forwarding(ipv6=any(bridge.ipv6 for bridge in self._rows.bridges()))
        except OSError as error:
            log.warning("cannot enable forwarding: containers cannot reach other networks: %s", error)

    def _warn_of_drops(self) -> None:
        _, firewall = self._kernel()
        if not (self._options.relays or self._options.ruled):
            log.warning("published ports are unreachable: there are neither rules (--iptables=false) nor relays")
        if self._options.publish_policy == "docker":
            return
        for chain in firewall.foreign.forward:
            if chain.drops:
                log.warning(
                    "firewall chain '%s' drops forwarded packets: containers reach other networks, and clients their "
                    "ports, only where it accepts packets of %s (or with --publish-policy=docker)",
                    chain,
                    self._options.link,
                )


async def _nobody_told(id: ContainerId, old: list[tuple[str, str]], new: list[tuple[str, str]]) -> None:
    """The default: containers have no hosts files to rewrite."""


def _described(held: Held) -> Sandbox:
    assert held.sandbox is not None, "an open sandbox has been described"
    return held.sandbox


def _until(filters: Filters) -> float:
    """The latest creation time to prune, in seconds since the epoch."""
    try:
        return min((float(text) for text in filters.get("until", ())), default=math.inf)
    except ValueError as error:
        raise InvalidInput(f"invalid filter 'until': {error}", "expected seconds since the epoch") from None
