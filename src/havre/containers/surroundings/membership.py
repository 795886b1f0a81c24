"""Connects containers to networks and disconnects them.

Of a stopped container only the row changes: the networks asked for are joined at the next start. A running container
gets or loses a device at once; its hosts and resolv.conf are edited in place, because they are bind mounts.

`check_connect` refuses conflicting networks with dockerd's messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec.structs import replace

from havre.aio import in_thread
from havre.containers.container import Container
from havre.containers.live import Index, Live
from havre.containers.networking import guest_of, links_of, links_without, own_hosts_of, renamed_links
from havre.containers.surroundings.assembly import Assembly
from havre.containers.surroundings.hosts import rewrite_hosts
from havre.errors import Conflict, Failed, Forbidden, NotFound
from havre.networks.endpoints import check_settings
from havre.networks.networks import Networks
from havre.networks.sandbox import Sandbox
from havre.networks.spec import Network
from havre.wire.config import EndpointSettings, PortBinding
from havre.wire.values import ContainerId

PortBindings = Mapping[str, list[PortBinding] | None]
"""Host ports of a container's ports, by `80/tcp`."""

_HOST_MODE = "container cannot be disconnected from host network or connected to host network"
_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


class Membership:
    """Changes which networks containers are connected to."""

    def __init__(self, index: Index, networks: Networks, assembly: Assembly) -> None:
        self._index = index
        self._networks = networks
        self._assembly = assembly

    async def connect(self, network_ref: str, container_ref: str, asked: EndpointSettings | None) -> None:
        """Connect a container to a network. Raises `NotFound`, `Forbidden`, `InvalidInput` (addresses)."""
        live = self._index.get(container_ref)
        network = self._networks.find(network_ref)
        await self._connect(live, network, asked or EndpointSettings())

    async def _connect(self, live: Live, network: Network, asked: EndpointSettings) -> None:
        async with live.lock:
            container = live.container
            self._refuse(live)
            check_settings(network, asked)
            check_connect(container, network)
            asked = replace(asked, network_id="", endpoint_id="")
            if live.process is not None:
                await self._change(container, await self._networks.connect(guest_of(container), network, asked))
            else:
                there = {**container.run.networks, network.name: replace(asked, network_id=network.id)}
                container.note_run(networks=there)
            container.respecify(networks={**container.spec.networks, network.name: asked})
            await self._index.save(container)

    async def disconnect(self, network_ref: str, container_ref: str, force: bool) -> None:
        """Disconnect a container. Deleted networks are removed from the row; if it runs, only with `force`."""
        live = self._index.find(container_ref) if force else self._index.get(container_ref)
        try:
            network = self._networks.find(network_ref)
        except NotFound:
            if live is None or (live.process is not None and not force):
                raise
            await self._forget(live, network_ref)
            return
        if live is None:
            raise NotFound(f"endpoint {container_ref} not found")
        await self._disconnect(live, network)

    async def _forget(self, live: Live, network_name: str) -> None:
        """Remove a deleted network from the row."""
        async with live.lock:
            container = live.container
            self._refuse(live)
            if network_name not in {*container.run.networks, *container.spec.networks}:
                raise Failed(f"container {container.id} is not connected to the network {network_name}")
            _drop_network(container, network_name)
            await self._index.save(container)

    async def _disconnect(self, live: Live, network: Network) -> None:
        async with live.lock:
            container = live.container
            self._refuse(live)
            if network.name == "host" or container.spec.host_config.network_mode == "host":
                raise Forbidden(_HOST_MODE)
            if live.process is None and network.name not in {*container.run.networks, *container.spec.networks}:
                raise Failed(f"container {container.id} is not connected to the network {network.name}")
            if network.name not in container.run.networks:
                raise Forbidden(f"container {container.id} is not connected to network {network.name}")
            if live.process is not None and network.name != "none":
                await self._change(container, await self._networks.disconnect(guest_of(container), network))
            _drop_network(container, network.name)
            await self._index.save(container)

    async def take_ports(self, ref: str, bindings: PortBindings, givers: Sequence[str]) -> None:
        """Publish ports of a running container; `givers` release theirs. Raises `Conflict`, `Failed`, `NotFound`."""
        live = self._index.get(ref)
        others = {id(other): other for giver in givers if (other := self._index.find(giver)) not in (None, live)}
        await self._take_ports(live, [other for other in others.values() if other is not None], bindings)

    async def _take_ports(self, live: Live, others: Sequence[Live], bindings: PortBindings) -> None:
        async with AsyncExitStack() as locks:
            for each in sorted((live, *others), key=lambda each: each.container.id):  # lock order: no deadlock
                await locks.enter_async_context(each.lock)
            live.running()
            self._index.check_sound(live)
            container, before = live.container, live.container.spec.host_config
            wanted = replace(before, port_bindings={**(before.port_bindings or {}), **bindings})
            container.respecify(host_config=wanted)
            try:
                changed = await self._networks.take_ports(
                    guest_of(container), [guest_of(other.container) for other in others]
                )
            except BaseException:
                container.respecify(host_config=before)
                raise
            for row in (container, *(other.container for other in others)):
                if published := changed.get(row.id):
                    row.note_run(ports=published.ports)
                    row.respecify(host_config=replace(row.spec.host_config, port_bindings=published.bindings))
                    await self._index.save(row)

    async def renamed(self, container: Container, old: str) -> None:
        """Update networks and links of other containers after the container was renamed from `old`."""
        self._networks.renamed(guest_of(container), old)
        for live in self._index:
            host = live.container.spec.host_config
            links = renamed_links(host.links or (), old, container.name)
            if host.links and links != host.links:
                live.container.respecify(host_config=replace(host, links=links))
                await self._index.save(live.container)

    async def unlink(self, ref: str) -> None:
        """Remove the link `CONTAINER/ALIAS`. Raises `NotFound`, `Conflict` (a container's own name)."""
        owner, _, alias = ref.removeprefix("/").rpartition("/")
        if (live := self._index.find(owner or ref)) is None:
            raise NotFound(f"No such container: {ref}")
        if not owner:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        await self._unlink(live, owner, alias, ref)

    async def _unlink(self, live: Live, owner: str, alias: str, ref: str) -> None:
        async with live.lock:
            self._index.check_sound(live)
            container, host = live.container, live.container.spec.host_config
            left = links_without(host.links or (), alias)
            if container.name != owner or alias.lower() not in links_of(container):
                raise NotFound(f"No such container: {ref}")
            container.respecify(host_config=replace(host, links=left or None))
            if live.process is not None:
                await self._networks.unlink(ContainerId(container.id), alias)
            await self._index.save(container)

    def _refuse(self, live: Live) -> None:
        """Refuse changes to a container that is being removed or has a damaged row."""
        self._index.check_sound(live)
        if live.removing or live.container.state.dead:
            id = live.container.id
            raise Conflict(f"container {id} is marked for removal and cannot be connected or disconnected")

    async def _change(self, container: Container, sandbox: Sandbox) -> None:
        before = own_hosts_of(container)
        container.note_run(networks=dict(sandbox.endpoints), ports=dict(sandbox.ports))
        directory = self._assembly.directory(container)
        await in_thread(_rewrite, directory, before, own_hosts_of(container), sandbox.resolv_conf)


def _drop_network(container: Container, name: str) -> None:
    spec, run = container.spec.networks, container.run.networks
    container.respecify(networks={other: asked for other, asked in spec.items() if other != name})
    container.note_run(networks={other: endpoint for other, endpoint in run.items() if other != name})


def _rewrite(directory: Path, old: list[tuple[str, str]], new: list[tuple[str, str]], resolv_conf: str) -> None:
    """Edit both files in place: bind mounts refer to their inodes."""
    rewrite_hosts(directory / "hosts", old, new)
    (directory / "resolv.conf").write_text(resolv_conf)


def check_connect(container: Container, network: Network) -> None:
    """Refuse a network that conflicts with the container's network mode."""
    if network.name == "host":
        raise Forbidden(_HOST_MODE)
    mode = container.spec.host_config.network_mode
    if mode == "host" or mode.startswith("container:"):
        raise Forbidden(_SHARED)
    if "none" in container.spec.networks or (network.name == "none" and container.spec.networks):
        raise Forbidden(_PRIVATE)
