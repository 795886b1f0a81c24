"""Applies network plans to links, addresses, routes and namespaces (`firewall` applies nftables rules).

A `Host` has one rtnetlink socket in the network namespace of the thread that opens it. Calls run in the shared thread
pool and always complete: a cancelled caller waits for the thread. Each step has an idempotent inverse here, so that
callers may register the inverse before they act.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import ParamSpec, TypeVar

from havre.aio import in_thread, spawn
from havre.dataplane.ipam import Address, Subnet
from havre.dataplane.plan import Bridge, Endpoint, bridge_link, choose_ways, dummy_parent, vlan_of
from havre.errors import Failed, HavreError, InvalidInput, Unsupported
from havre.linux import namespaces, netlink
from havre.linux.conntrack import Conntrack
from havre.linux.idmap import IdRange
from havre.linux.netlink import Interface, Link, Netlink

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_SYSCTL = Path("/proc/sys/net")
_LO = 1
_GATHER_S = 0.1
_NOBODY_ELSE = IPv4Address("127.0.0.1")
"""Local address of a VXLAN device without peers: on an address reachable by others, they could inject frames."""


class Host:
    """The host's links, addresses and routes, changed by plan.

    `owner` identifies the daemon; it is the alias of the devices made for networks. `ruled`: IPv4 rules are loaded,
    which
    block what the sysctls set here would let in.

    Devices are deleted in the background, in batches. The kernel needs 10 to 40 ms to delete one, holds the RTNL lock
    for
    most of that, and takes no longer for twenty. A device no longer needed is brought down and put into the owner's
    device
    group, which is deleted a moment later, or by the next daemon (docs/why/networks.md#links-and-namespaces).
    """

    def __init__(self, owner: str, *, ruled: bool = True) -> None:
        self._ruled = ruled
        self._note = f"made by {owner}"
        self._group = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4]) | 1 << 31
        self._netlink = Netlink()
        self._endings = Netlink()
        self._shutting: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._conntrack = Conntrack()

    def close(self) -> None:
        """Close the sockets; all devices stay."""
        self._netlink.close()
        self._endings.close()
        self._conntrack.close()

    # -- bridges

    async def ensure_bridge(self, bridge: Bridge) -> None:
        """Create the bridge, or update an existing one to the plan. A bridge not made by us is used, but never
        deleted."""
        if bridge.vni:
            await self.settle()  # a device being deleted still occupies its VXLAN identifier
        await act(f"set up bridge {bridge.link}", self._ensure_bridge, bridge)

    async def drop_bridge(self, bridge: Bridge) -> None:
        """Remove the bridge's addresses and routes, and delete it in the background, unless a user chose its name.

        A bridge not made by us stays. Idempotent.
        """
        await act(f"shut bridge {bridge.link}", self._shut_bridge, bridge)
        if bridge.link == bridge_link(bridge.id):
            self._end_soon()
        else:
            await self.settle()

    async def bridge_addresses(self, name: str) -> list[Interface]:
        """The addresses of a bridge made by the administrator; Failed where none has that name."""
        return await act(f"look at bridge {name}", self._bridge_addresses, name)

    async def probe_parent(self, bridge: Bridge) -> None:
        """Create and delete a device on the network's parent device. Unsupported where the kernel lacks the driver.

        A missing parent is created: a VLAN of the device in its name (`eth0.10`), or a dummy device.
        """
        await act(f"make a {bridge.kind} device on {bridge.parent}", self._probe_parent, bridge)

    async def delete_parent(self, bridge: Bridge) -> None:
        """Delete a network's parent device if we made it. Idempotent."""
        await act(f"delete device {bridge.parent}", self._delete_parent, bridge)

    async def delete_veth(self, name: str) -> None:
        """Delete a veth pair by the name of one end. Idempotent."""
        await act(f"delete link {name}", self._delete_link, name)

    async def delete_orphans(self, bridges: Collection[Bridge]) -> None:
        """Delete the devices that an earlier daemon made for networks not in `bridges`."""
        kept = {name for bridge in bridges for name in (bridge.link, bridge.tunnel, bridge.parent)}
        for link in await self.links():
            if link.alias == self._note and link.name not in kept:
                await act(f"delete device {link.name}", self._delete_link, link.name)

    async def links(self) -> list[Link]:
        """All devices of the host."""
        return await act("list links", self._netlink.links)

    async def routes(self, except_links: Collection[str] = ()) -> list[Subnet]:
        """Destinations of the host's routes, except those by the named devices."""
        return await act("list routes", self._routes, except_links)

    def _ensure_bridge(self, bridge: Bridge) -> None:
        link = self._netlink.link(bridge.link)
        if link is None:
            made = netlink.new_bridge(bridge.link, bridge.mac, bridge.mtu)
            self._netlink.run(made, netlink.set_alias(bridge.link, self._note))
            link = self._netlink.link(bridge.link)
        if link is None or link.kind != "bridge":
            raise Failed(f"{bridge.link} exists and is not a bridge", "remove or rename that device")
        present = [address for address in self._netlink.addresses(link.index) if not address.ip.is_link_local]
        surplus = [address for address in present if address not in bridge.interfaces and link.mac == bridge.mac]
        stale = [netlink.delete_address(link.index, address) for address in surplus]
        missing = [netlink.new_address(link.index, own) for own in bridge.interfaces if own not in present]
        self._netlink.run(*stale, *missing, *([] if link.up else [netlink.set_up(link.index)]))
        # Lets the host reach a published port by 127.0.0.1; the table's guard chain stops others (CVE-2020-8558).
        # With isolated bridge ports, traffic between linked containers is routed: the host answers ARP for their
        # addresses.
        routed = {} if bridge.icc or not self._ruled else {netlink.PROXY_ARP_PVLAN: 1, netlink.SEND_REDIRECTS: 0}
        self._netlink.run(netlink.set_inet(link.index, {netlink.ROUTE_LOCALNET: int(self._ruled), **routed}))
        if link.mac == bridge.mac:
            # Ignore containers' router advertisements (CVE-2020-13401), and skip duplicate address detection: a
            # tentative address
            # cannot do neighbour discovery for the first second.
            for setting in ("accept_ra", "accept_dad"):
                _sysctl(f"ipv6/conf/{bridge.link}/{setting}", "0")
        if bridge.vni and self._netlink.link(bridge.tunnel) is None:
            tunnel = netlink.new_vxlan(bridge.tunnel, link.index, bridge.mtu, bridge.vni, _NOBODY_ELSE)
            self._create("vxlan", tunnel, netlink.set_alias(bridge.tunnel, self._note))

    def _bridge_addresses(self, name: str) -> list[Interface]:
        link = self._netlink.link(name)
        if link is None or link.kind != "bridge":
            raise Failed(
                f'error creating default "bridge" network: bridge device with non default name {name} must be created '
                "manually",
                f"make it (ip link add {name} type bridge) or leave --bridge out",
            )
        return self._netlink.addresses(link.index)

    def _probe_parent(self, bridge: Bridge) -> None:
        if self._netlink.link(bridge.parent) is None:
            self._make_parent(bridge)
        try:
            parent = self._parent(bridge)
            child = netlink.new_child(bridge.kind, bridge.link, parent.index, bridge.mode, parent.mtu)
            self._create(bridge.kind, child)
            self._delete_link(bridge.link)
        except BaseException:
            self._delete_parent(bridge)
            raise

    def _make_parent(self, bridge: Bridge) -> None:
        noted = netlink.set_alias(bridge.parent, self._note)
        if bridge.parent == dummy_parent(bridge.id):
            self._create("dummy", netlink.new_dummy(bridge.parent), noted)
            return
        base, number = vlan_of(bridge.parent)
        device = self._netlink.link(base)
        if device is None:
            raise InvalidInput(f"the parent device {base} of {bridge.parent} does not exist")
        self._create("8021q", netlink.new_vlan(bridge.parent, device.index, number), noted)

    def _create(self, module: str, request: netlink.Request, *more: netlink.Request) -> None:
        """Create a device of a kind whose driver the kernel may lack."""
        try:
            self._netlink.run(request, *more)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise Unsupported(
                    f"cannot {request.what}: this kernel has no {module} driver", f"load the module {module}"
                ) from error
            raise

    def _delete_parent(self, bridge: Bridge) -> None:
        link = self._netlink.link(bridge.parent)
        if link is not None and link.alias == self._note:
            self._delete_link(bridge.parent)

    def _parent(self, bridge: Bridge) -> Link:
        parent = self._netlink.link(bridge.parent)
        if parent is None:
            raise Failed(f"the parent device {bridge.parent} of network {bridge.name} is gone")
        if parent.name == "lo":
            raise InvalidInput(f"loopback interface is not a valid {bridge.kind} parent link")
        return parent

    def _shut_bridge(self, bridge: Bridge) -> None:
        link = self._netlink.link(bridge.link)
        if link is not None and link.kind == "bridge" and link.mac == bridge.mac:
            present = self._netlink.addresses(link.index)
            self._netlink.run(*_without(link.index, present))
            self._shut_links([bridge.link])
        if bridge.vni:
            self._shut_links([bridge.tunnel])

    def _shut_links(self, links: Sequence[str]) -> None:
        for link in links:
            _ignoring(errno.ENODEV, self._netlink.run, netlink.move_to_group(link, self._group))

    def _delete_link(self, name: str) -> None:
        _ignoring(errno.ENODEV, self._netlink.run, netlink.delete_link(name))

    def _routes(self, except_links: Collection[str]) -> list[Subnet]:
        ours = {link.index for link in self._netlink.links() if link.name in except_links}
        return [destination for destination, index in self._netlink.routes() if index not in ours]

    # -- sandboxes

    async def open_netns(
        self, path: Path, endpoints: Sequence[Endpoint], then: Callable[[], T], owner: IdRange | Path | None = None
    ) -> T:
        """Create a network namespace at `path`: `lo` up, a device for each endpoint, a default route. Returns `then()`,
        run inside.

        `owner` is the user namespace that owns it, as for `namespaces.create_netns`.
        """
        return await act(f"set up network namespace {path.name}", self._open_netns, path, endpoints, then, owner)

    async def hold_netns(self, path: Path, pid: int, *, owned: bool) -> None:
        """Bind the network namespace of process `pid` to `path`, as `namespaces.hold_netns`.

        Best effort: a failure, such as a process that has just ended, is logged.
        """
        try:
            await act(f"hold network namespace {path.name}", namespaces.hold_netns, path, pid, owned=owned)
        except HavreError as error:
            log.error("a running container's network namespace cannot be found: %s", error)

    async def close_netns(self, path: Path, links: Sequence[str]) -> None:
        """Unmount the namespace, and delete its devices in the background. Idempotent."""
        await act(f"remove network namespace {path.name}", namespaces.delete_netns, path)
        if links:
            task = spawn(self._shut(links), f"shut devices of {path.name}")
            self._shutting.add(task)
            task.add_done_callback(self._shutting.discard)

    async def _shut(self, links: Sequence[str]) -> None:
        await act(f"shut {', '.join(links)}", self._shut_links, links)
        self._end_soon()

    def _end_soon(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_GATHER_S, lambda: spawn(self.settle(), "delete devices"))

    async def forget_flows(self, address: Address) -> None:
        """Drop the conntrack entries of an address, so that the flows of UDP clients are translated anew."""
        if not await act(f"forget flows of {address}", self._conntrack.forget, address):
            log.debug("this kernel cannot drop the flows of one address: %s", address)

    async def settle(self) -> None:
        """Delete what is pending now; returns when it is gone."""
        if self._shutting:
            await asyncio.wait(self._shutting)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ending = netlink.delete_group(self._group)
        await act("delete devices", _ignoring, errno.ENODEV, self._endings.run, ending)

    async def attach(self, path: Path, endpoint: Endpoint, ways: Mapping[int, Endpoint]) -> None:
        """Add a device to an existing namespace; the default routes are then those of `ways`, by IP version."""

        def inside() -> None:
            self._attach_inside(path, endpoint)
            _route_by(ways)

        await act(f"attach to {endpoint.bridge.name}", namespaces.in_netns, path, inside)

    async def detach(self, path: Path, endpoint: Endpoint, ways: Mapping[int, Endpoint]) -> None:
        """Remove a device from a namespace; the default routes are then those of `ways`. Idempotent."""
        on_host = endpoint.bridge.on_host

        def inside() -> None:
            _leave(endpoint.interface, endpoint.link if on_host else "")
            _route_by(ways)

        await act(f"detach from {endpoint.bridge.name}", namespaces.in_netns, path, inside)
        if on_host:
            await act(f"shut {endpoint.link}", self._shut_links, [endpoint.link])
            spawn(self.settle(), f"delete {endpoint.link}")

    async def inside(self, path: Path, work: Callable[[], T]) -> T:
        """Run `work` in the namespace at `path` and return its result."""
        return await act(f"work in network namespace {path.name}", namespaces.in_netns, path, work)

    async def look_into(self, paths: Sequence[Path], look: Callable[[], T]) -> dict[Path, T]:
        """Run `look` in each namespace and return the results by path."""
        return await act("look into network namespaces", namespaces.in_each_netns, paths, look)

    async def enslave(self, endpoint: Endpoint) -> bool:
        """Make an endpoint's device a port of its bridge again; returns False when the device is gone."""
        return await act(f"attach {endpoint.link}", self._enslave, endpoint)

    def _open_netns(
        self, path: Path, endpoints: Sequence[Endpoint], then: Callable[[], T], owner: IdRange | Path | None
    ) -> T:
        def inside() -> T:
            # Devices created from here on have no IPv6 unless a network has it: no link-local addresses by default.
            _sysctl("ipv6/conf/default/disable_ipv6", "1")
            with Netlink() as own:
                own.run(netlink.set_up(_LO))
            for endpoint in endpoints:
                self._attach_inside(path, endpoint)
            _route_by(choose_ways(endpoints))
            return then()

        return namespaces.create_netns(path, inside, owner)

    def _attach_inside(self, path: Path, endpoint: Endpoint) -> None:
        bridge = endpoint.bridge
        if bridge.on_host:
            self._make_pair(path, endpoint)
        else:
            parent = self._parent(bridge)
            with path.open("rb") as target:
                there = target.fileno()
                child = netlink.new_child(
                    bridge.kind, endpoint.interface, parent.index, bridge.mode, parent.mtu, endpoint.mac, there
                )
                self._netlink.run(child)
        with Netlink() as own:
            device = own.link(endpoint.interface)
            assert device is not None, "a device just created exists"
            addresses = (*endpoint.inside, *endpoint.link_local)
            if any(each.version == 6 for each in addresses):
                _sysctl(f"ipv6/conf/{endpoint.interface}/disable_ipv6", "0")
            own.run(netlink.set_up(device.index), *(netlink.new_address(device.index, each) for each in addresses))
        for name, value in endpoint.sysctls:
            _set_sysctl(name, value)

    def _make_pair(self, path: Path, endpoint: Endpoint) -> None:
        bridge = endpoint.bridge
        master = self._netlink.link(bridge.link)
        if master is None:
            raise Failed(f"bridge {bridge.link} of network {bridge.name} is gone", "restart the daemon to restore it")
        with path.open("rb") as target:
            pair = netlink.new_veth(
                endpoint.link, master.index, bridge.mtu, endpoint.interface, endpoint.mac, target.fileno()
            )
            self._netlink.run(pair, netlink.set_port(endpoint.link, isolated=not bridge.icc))

    def _enslave(self, endpoint: Endpoint) -> bool:
        if not endpoint.bridge.on_host:
            return bool(endpoint.interface)
        port, master = self._netlink.link(endpoint.link), self._netlink.link(endpoint.bridge.link)
        if port is None or master is None:
            return False
        if port.master != master.index:
            self._netlink.run(
                netlink.set_master(port.index, master.index),
                netlink.set_port(endpoint.link, isolated=not endpoint.bridge.icc),
            )
        return True

    def enable_forwarding(self, *, ipv6: bool) -> None:
        """Enable IP forwarding on the host, as dockerd does. OSError where that is not permitted."""
        for name in ("ipv4/ip_forward", *(("ipv6/conf/all/forwarding",) if ipv6 else ())):
            if _sysctl(name, "1"):
                log.info("enabled net.%s: containers need it, and it stays on after the daemon ends", name)


def _leave(name: str, rest: str) -> None:
    """Remove a device of the calling thread's namespace: at once, or, as an end of a pair, with the pair.

    In the latter case it loses its addresses and routes and is renamed to `rest`, which frees its name.
    """
    with Netlink() as own:
        device = own.link(name)
        if device is None:
            return
        if not rest:
            own.run(netlink.delete_link(name))
            return
        present = [each for each in own.addresses(device.index) if each.version == 4]
        own.run(netlink.set_down(device.index), *_without(device.index, present), netlink.rename(device.index, rest))


def _without(index: int, addresses: Sequence[Interface]) -> list[netlink.Request]:
    """Requests that remove all addresses, last first: removing the first of a subnet removes its secondaries too."""
    return [netlink.delete_address(index, each) for each in reversed(addresses)]


def _route_by(ways: Mapping[int, Endpoint]) -> None:
    """Set the default routes of the calling thread's namespace, by IP version, and remove the others."""
    with Netlink() as own:
        for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
            way = ways.get(version)
            device = own.link(way.interface) if way is not None else None
            if way is not None and device is not None:
                address = next(each for each in way.addresses if each.version == version)
                own.run(netlink.new_default_route(device.index, way.bridge.pool_of(address).router))
                continue
            none = (errno.ESRCH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
            _ignoring(none, own.run, netlink.delete_default_route(family))


def _ignoring(number: int | tuple[int, ...], function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call, ignoring an OSError of this number or these numbers."""
    try:
        function(*args, **kwargs)
    except OSError as error:
        if error.errno not in (number if isinstance(number, tuple) else (number,)):
            raise


async def act(what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread to completion, even when cancelled: an inverse must not overtake its step.

    An OSError becomes Failed, "cannot WHAT".
    """
    work = asyncio.ensure_future(in_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
    except OSError as error:
        raise _failed(what, error) from error


def _failed(what: str, error: OSError) -> HavreError:
    hint = "the daemon needs CAP_NET_ADMIN and CAP_SYS_ADMIN" if error.errno == errno.EPERM else None
    return Failed(f"cannot {what}: {error.strerror or error}", hint)


def _set_sysctl(name: str, value: str) -> None:
    """Set a user's sysctl. InvalidInput where the kernel has no such setting or rejects the value."""
    try:
        (_SYSCTL / name).write_text(value)
    except OSError as error:
        raise InvalidInput(f"cannot set net/{name} to {value}: {error.strerror}") from error


def _sysctl(name: str, value: str) -> bool:
    """Set a sysctl of the calling thread's network namespace; returns False when it already had the value."""
    path = _SYSCTL / name
    try:
        if path.read_text().strip() == value:
            return False
        path.write_text(value)
    except FileNotFoundError:  # the kernel is built without IPv6
        return False
    return True
