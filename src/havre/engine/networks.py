"""Networks and the sandboxes of running containers.

Owns which address and which port belongs to which container, and the order in which the kernel is told; the networks
themselves are in `networkrows`. A sandbox is opened in one go and undone in reverse when any step fails:

    decide    addresses, MACs (network.ipam, network.plan)
    hold      host ports, by sockets (network.ports)
    apply     namespace, veth pairs, addresses, routes (network.apply)
    publish   ports in the firewall, one transaction (network.firewall)

After `kill -9` the kernel's state is still there: `start` compares it with the rows, adopts what belongs to containers
that run on, restores what is missing, and removes the rest. Messages are dockerd's.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from havre.engine import network as words
from havre.engine import sandbox as texts
from havre.engine import times
from havre.engine.filters import Filters, check_keys, matches_labels
from havre.engine.model import Container, ContainerId, EndpointSettings
from havre.engine.network import Network, NetworkSpec, bridge_of
from havre.engine.networkrows import NetworkOptions, NetworkRows, NetworkTable
from havre.engine.sandbox import Held, Sandbox
from havre.errors import Conflict, Failed, Forbidden, HavreError, InvalidInput
from havre.linux.namespaces import is_netns
from havre.network import files, ipam
from havre.network.apply import Host
from havre.network.firewall import Firewall
from havre.network.ipam import Address
from havre.network.plan import VETH_PREFIX, Bridge, Endpoint, plan_endpoint
from havre.network.ports import Ports

__all__ = ["Network", "NetworkOptions", "NetworkSpec", "Networks", "Sandbox"]

log = logging.getLogger(__name__)

_RESOLVED_STUB, _RESOLVED_FILE = "127.0.0.53", Path("/run/systemd/resolve/resolv.conf")


class Publisher(Protocol):
    """Where events go."""

    def publish(self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None: ...


def tag_for(run_root: Path) -> str:
    """The tag of a daemon by its run directory: none for the default one."""
    return "" if run_root == Path("/run/havre") else hashlib.sha256(str(run_root).encode()).hexdigest()[:6]


class Networks:
    """Docker's networks. Sockets to the kernel are opened by `start`, in the network namespace of its thread."""

    def __init__(
        self, table: NetworkTable, run_root: Path, options: NetworkOptions, events: Publisher | None = None
    ) -> None:
        self._rows = NetworkRows(table)
        self._netns_dir = run_root / "netns"
        self._options = options
        self._events = events
        self._held: dict[ContainerId, Held] = {}
        self._used: dict[str, dict[Address, ContainerId]] = {}
        self._ports = Ports()
        self._host: Host | None = None
        self._firewall: Firewall | None = None

    # -- life

    async def start(self, endpoints: Mapping[ContainerId, Container]) -> None:
        """Bring the kernel to what the rows say; `endpoints` are the containers that run on."""
        self._host = Host()
        self._firewall = Firewall(self._options.table)
        self._ports = Ports(_ephemeral_range())
        await self._rows.load()
        ours = {self._options.link, *(bridge.link for bridge in self._rows.bridges())}
        await self._rows.ensure_predefined(self._options, await self._host.routes(ours))
        for bridge in self._rows.bridges():
            await self._restore_bridge(bridge)
        for container in endpoints.values():
            await self._adopt(container)
        await self._reclaim()
        await self._firewall.start(self._rows.bridges(), [port for held in self._held.values() for port in held.maps()])
        for held in self._held.values():
            await _serve(held)
        self._enable_forwarding()
        await self._warn_of_drops()

    async def stop(self) -> None:
        """Let go. What running containers use stays in the kernel; without any, nothing of ours does."""
        host, firewall = self._kernel()
        for held in self._held.values():
            for reservation in held.reservations:
                self._ports.release(reservation)
        idle = not any(held.endpoints for held in self._held.values())
        await host.settle()
        await firewall.stop(remove=idle)
        if idle:
            for bridge in self._rows.bridges():
                await host.delete_bridge(bridge)
        host.close()
        self._host = self._firewall = None

    # -- rows

    def get(self, name_or_id: str) -> Network:
        """The network of that ID, name, or unambiguous beginning of an ID, with its containers."""
        network = self._rows.find(name_or_id)
        members = {held.id: held.member(network.id) for held in self._held.values()}
        return msgspec.structs.replace(network, containers={id: m for id, m in members.items() if m is not None})

    def list(self, filters: Filters) -> list[Network]:
        """The networks that pass; `containers` is left empty, as dockerd does."""
        return self._rows.listed(filters, lambda id: bool(self.containers_on(id)))

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a bridge network."""
        host, firewall = self._kernel()
        network = self._rows.decide(spec, await host.routes([bridge.link for bridge in self._rows.bridges()]))
        async with AsyncExitStack() as undo:
            self._rows.add(network)
            bridge = self._rows.bridge(network.id)
            undo.push_async_callback(self._drop, network.id)
            await host.ensure_bridge(bridge)
            await firewall.add_bridge(bridge)
            await self._rows.save(network)
            undo.pop_all()
        self._tell("create", network)
        return network

    async def remove(self, name_or_id: str) -> None:
        """Remove a network that no running container is on."""
        network = self._rows.find(name_or_id)
        if network.name in words.PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if self.containers_on(network.id):
            raise Forbidden(
                f"error while removing network: network {network.name} id {network.id} has active endpoints"
            )
        await self._drop(network.id)
        await self._rows.delete(network.id)
        self._tell("destroy", network)

    async def prune(self, filters: Filters) -> tuple[str, ...]:
        """Remove the networks that no running container is on; their names."""
        check_keys(filters, ("label", "label!", "until"))
        limit = _until(filters)
        idle = [
            network
            for network in self._rows
            if network.name not in words.PREDEFINED
            and not self.containers_on(network.id)
            and matches_labels(filters, network.labels)
            and times.parse(network.created) < limit
        ]
        for network in idle:
            await self.remove(network.id)
        return tuple(network.name for network in idle)

    def containers_on(self, network_id: str) -> set[ContainerId]:
        """The running containers that have an endpoint there."""
        return {id for id, held in self._held.items() if held.member(network_id) is not None}

    # -- sandboxes

    async def open_sandbox(self, container: Container) -> Sandbox:
        """Namespace, endpoints and ports of a container that is about to start; nothing stays on failure."""
        host, firewall = self._kernel()
        id = ContainerId(container.id)
        mode = container.host_config.network_mode
        if mode.startswith("container:") and not container.config.network_disabled:
            return self._shared(ContainerId(mode.removeprefix("container:")))
        await self.close_sandbox(id)
        networks = {self._rows.find(name).id: asked for name, asked in texts.asked_of(container).items()}
        shares_host = any(self._rows[network].driver == "host" for network in networks)
        held = Held(container.id, container.name.lstrip("/"), None if shares_host else self._netns_dir / container.id)
        self._held[id] = held
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.close_sandbox, id)
            self._join(held, networks)
            self._hold_ports(held, container)
            if held.netns is not None:
                await host.open_netns(held.netns, list(held.endpoints.values()))
            await firewall.publish(held.maps())
            await _serve(held)
            held.sandbox = self._describe(held, container, networks)
            undo.pop_all()
        for network_id in networks:
            self._tell("connect", self._rows[network_id], container.id)
        return held.sandbox

    async def close_sandbox(self, id: ContainerId) -> None:
        """Give back all a container holds. Idempotent; every step is tried even when one fails.

        After `stop` nothing happens: the next `start` removes what is left.
        """
        held = self._held.pop(id, None) if self._host is not None else None
        if held is None:
            return
        host, firewall = self._kernel()
        async with AsyncExitStack() as steps:
            steps.callback(self._free_addresses, held)
            if held.netns is not None:
                steps.push_async_callback(host.close_netns, held.netns, held.links())
            for reservation in held.reservations:
                steps.callback(self._ports.release, reservation)
            for address in {port.address for port in held.maps()}:
                steps.push_async_callback(host.forget_flows, address)
            steps.push_async_callback(firewall.retract, held.maps())
        for network_id in (*held.endpoints, *held.others) if held.sandbox is not None else ():
            if network_id in self._rows:
                self._tell("disconnect", self._rows[network_id], held.id)

    def _shared(self, other: ContainerId) -> Sandbox:
        held = self._held.get(other)
        if held is None or held.sandbox is None:
            raise Conflict(f"cannot join network of a non running container: {other}")
        return held.sandbox

    def _join(self, held: Held, networks: Mapping[str, EndpointSettings]) -> None:
        for network_id, asked in networks.items():
            network = self._rows[network_id]
            if network.driver != "bridge":
                held.others[network_id] = secrets.token_hex(32)
                continue
            if asked.mac_address:
                ipam.check_mac(asked.mac_address)
            address = self._allocate(held, network, asked)
            number = len(held.endpoints)
            endpoint = plan_endpoint(
                secrets.token_hex(32), self._rows.bridge(network_id), address, number, asked.mac_address
            )
            held.endpoints[network_id] = endpoint

    def _allocate(self, held: Held, network: Network, asked: EndpointSettings) -> Address:
        wanted = asked.ipam_config.ipv4_address if asked.ipam_config else ""
        if wanted:
            _check_wanted(network, wanted)
        pool, used = self._rows.bridge(network.id).pool, self._used.setdefault(network.id, {})
        named = f"{network.name} ({network.id})"
        address = ipam.allocate(pool, used, named, ipam.parse_address(wanted) if wanted else None)
        used[address] = ContainerId(held.id)
        held.addresses.append((network.id, address))
        return address

    def _hold_ports(self, held: Held, container: Container) -> None:
        endpoint = next((e for e in held.endpoints.values() if not e.bridge.internal), None)
        if endpoint is None:
            return
        binding = self._rows[endpoint.bridge.id].options.get(words.HOST_BINDING, "")
        try:
            for wish in texts.wishes_of(container, binding):
                held.reservations.append(self._ports.reserve(wish, endpoint.address, held.name))
        except Failed as error:
            where = f"driver failed programming external connectivity on endpoint {held.name} ({endpoint.id})"
            raise Failed(f"{where}: {error.message}", error.hint) from error

    def _describe(self, held: Held, container: Container, asked: Mapping[str, EndpointSettings]) -> Sandbox:
        endpoints: dict[str, EndpointSettings] = {}
        for network_id, endpoint in held.endpoints.items():
            network = self._rows[network_id]
            named = network.name not in words.PREDEFINED
            endpoints[network.name] = texts.describe_endpoint(asked[network_id], endpoint, container, named)
        for network_id, endpoint_id in held.others.items():
            got = msgspec.structs.replace(asked[network_id], network_id=network_id, endpoint_id=endpoint_id)
            endpoints[self._rows[network_id].name] = got
        host_hosts = _read(Path("/etc/hosts")) if held.netns is None else ""
        hosts, resolv_conf = texts.render_files(
            container, held.endpoints.values(), self._host_gateway(), host_hosts, self._resolver()
        )
        ports = texts.describe_ports(container, held.reservations) if held.endpoints else {}
        return Sandbox(held.netns, endpoints, ports, hosts, resolv_conf)

    def _free_addresses(self, held: Held) -> None:
        for network_id, address in held.addresses:
            self._used.get(network_id, {}).pop(address, None)

    def _host_gateway(self) -> str:
        """What `host-gateway` stands for: the default bridge's address."""
        return str(self._rows.bridge(self._rows.find("bridge").id).pool.gateway)

    def _resolver(self) -> files.Resolver:
        host = files.parse_resolv_conf(_read(Path("/etc/resolv.conf")))
        if host.servers == (_RESOLVED_STUB,) and _RESOLVED_FILE.exists():
            host = files.parse_resolv_conf(_read(_RESOLVED_FILE))
        return files.container_resolver(host, self._options.resolver, shares_host=True)

    async def _drop(self, network_id: str) -> None:
        host, firewall = self._kernel()
        self._used.pop(network_id, None)
        bridge = self._rows.forget(network_id)
        await firewall.remove_bridge(network_id)
        if bridge is not None:
            await host.delete_bridge(bridge)

    def _tell(self, action: str, network: Network, container_id: str = "") -> None:
        if self._events is not None:
            attributes = {"name": network.name, "type": network.driver}
            self._events.publish(
                "network", action, network.id, {"container": container_id, **attributes} if container_id else attributes
            )

    def _kernel(self) -> tuple[Host, Firewall]:
        if self._host is None or self._firewall is None:
            raise RuntimeError("Networks is used before start() or after stop()")
        return self._host, self._firewall

    # -- starting

    async def _restore_bridge(self, bridge: Bridge) -> None:
        """A network that a user made and that cannot be had any more must not keep the others from working."""
        host, _ = self._kernel()
        try:
            await host.ensure_bridge(bridge)
        except HavreError as error:
            if bridge.link == self._options.link:
                raise
            log.error("network %s is not available: %s", bridge.name, error)

    async def _adopt(self, container: Container) -> None:
        """Take over what a container that ran on holds: addresses, devices, ports."""
        host, _ = self._kernel()
        id = ContainerId(container.id)
        if container.host_config.network_mode.startswith("container:"):
            return
        netns = self._netns_dir / container.id
        held = Held(container.id, container.name.lstrip("/"), netns if is_netns(netns) else None)
        self._held[id] = held
        for name, settings in container.networks.items():
            await self._adopt_endpoint(held, name, settings, host)
        target = next((e for e in held.endpoints.values() if not e.bridge.internal), None)
        if target is not None:
            for wish in texts.wishes_again(container.ports):
                try:
                    held.reservations.append(self._ports.reserve(wish, target.address, held.name))
                except Failed as error:
                    log.error("container %s is no longer reachable at a published port: %s", held.name, error)
        asked = {settings.network_id: settings for settings in container.networks.values()}
        held.sandbox = self._describe(held, container, asked)

    async def _adopt_endpoint(self, held: Held, name: str, settings: EndpointSettings, host: Host) -> None:
        network = self._rows.get(settings.network_id)
        if network is None:
            log.error("container %s runs on network %s, which is gone", held.name, name)
        elif network.driver != "bridge":
            held.others[network.id] = settings.endpoint_id
        elif settings.ip_address:
            address = ipam.parse_address(settings.ip_address)
            bridge = self._rows.bridge(network.id)
            endpoint = Endpoint(settings.endpoint_id, bridge, address, settings.mac_address, "", False)
            self._used.setdefault(network.id, {})[address] = ContainerId(held.id)
            held.addresses.append((network.id, address))
            held.endpoints[network.id] = endpoint
            if not await host.enslave(endpoint):
                log.error("container %s has lost its device on network %s", held.name, name)

    async def _reclaim(self) -> None:
        """Remove namespaces and devices of containers that are gone."""
        host, _ = self._kernel()
        kept = {held.id for held in self._held.values()}
        for path in self._netns_dir.iterdir() if self._netns_dir.is_dir() else ():
            if path.name not in kept:
                await host.close_netns(path, [])
        expected = {link for held in self._held.values() for link in held.links()}
        bridges = {bridge.link for bridge in self._rows.bridges()}
        links = await host.links()
        masters = {link.index for link in links if link.name in bridges}
        for link in links:
            ours = link.kind == "veth" and link.name.startswith(VETH_PREFIX)
            if ours and link.master in masters and link.name not in expected:
                await host.delete_veth(link.name)

    def _enable_forwarding(self) -> None:
        host, _ = self._kernel()
        try:
            host.enable_forwarding()
        except OSError as error:
            log.warning("cannot set net.ipv4.ip_forward: containers reach no other network: %s", error)

    async def _warn_of_drops(self) -> None:
        _, firewall = self._kernel()
        try:
            drops = await firewall.foreign_drops()
        except HavreError as error:
            log.warning("cannot look at the host's other firewall rules: %s", error)
            return
        for chain in drops:
            log.warning(
                "firewall chain '%s' drops forwarded packets by policy: containers reach the world, and others their "
                "ports, only where it accepts packets of %s",
                chain,
                self._options.link,
            )


async def _serve(held: Held) -> None:
    for reservation in held.reservations:
        await reservation.serve()


def _check_wanted(network: Network, wanted: str) -> None:
    where = f"invalid config for network {network.name}: invalid endpoint settings:\n"
    if network.name in words.PREDEFINED:
        raise InvalidInput(where + "user specified IP address is supported on user defined networks only")
    if ipam.parse_address(wanted) not in bridge_of(network).pool:
        raise InvalidInput(where + f"no configured subnet or ip-range contain the IP address {wanted}")


def _until(filters: Filters) -> float:
    """Seconds since the epoch before which a network was made to be pruned."""
    try:
        return min((float(text) for text in filters.get("until", ())), default=math.inf)
    except ValueError as error:
        raise InvalidInput(f"invalid filter 'until': {error}", "expected seconds since the epoch") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _ephemeral_range() -> tuple[int, int]:
    first, last = _read(Path("/proc/sys/net/ipv4/ip_local_port_range")).split() or ("32768", "60999")
    return int(first), int(last)
