"""Maintains our nftables table against changes by other programs.

Owns the desired contents (bridges and published ports as values) and applies them: an element for a port, the whole
table
for a network, each in one transaction. A change of the table by another program is reverted within a fraction of a
second: a firewall reload by `flush ruleset` must not open or close ports (CVE-2025-54388).

It also reads other programs' chains. With the policy `host` their drops apply to published ports, with the policy
`docker` rules of ours in them let the traffic pass (`foreign`).

    somebody: nft flush ruleset ──▶ kernel ──NFNLGRP_NFTABLES──▶ Monitor ──(settle 50 ms)──▶ the whole table again

Our own transactions are recognised by the netlink port that the kernel reports: libnftables keeps one socket, whose
port
is learned from our first transaction.

Without any IP version to write rules for, it only removes the table of an earlier daemon. Without networks there is no
table, so that such a daemon needs no NAT in the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
from collections.abc import Collection, Iterable

from havre.aio import spawn
from havre.dataplane import rules
from havre.dataplane.apply import act
from havre.dataplane.kernelneeds import missing_options
from havre.dataplane.otherfilters import Chain, Foreign, read_ruleset, render_passes
from havre.dataplane.plan import Bridge, LinkMap, PortMap
from havre.errors import Failed, Unsupported
from havre.linux.nft import Change, Monitor, Nft

log = logging.getLogger(__name__)

_SETTLE_S = 0.05
_REMEDY = (
    "load the modules (modprobe nft_chain_nat nft_masq nft_fib_ipv4) or boot a kernel that has them; or start the "
    "daemon with --iptables=false --ip6tables=false: relays then serve published ports, containers reach the world "
    "only by routes and translation of your own, and networks are not kept apart"
)


class Firewall:
    """Our tables in the network namespace of the thread that opens it."""

    def __init__(self, table: str, versions: Collection[int] = rules.BOTH, *, overrides: bool = False) -> None:
        self.table = table
        self._versions = frozenset(versions)
        self._overrides = overrides
        self._foreign = Foreign()
        self._shut: set[Chain] = set()  # others' chains already warned about
        self._stale = False  # others changed their chains while no port was published
        self._nft = self._open()
        self._monitor: Monitor | None = None
        self._lock = asyncio.Lock()
        self._bridges: dict[str, Bridge] = {}
        self._ports: set[PortMap] = set()
        self._links: set[LinkMap] = set()
        self._own_port: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def _open(self) -> Nft | None:
        """A context of libnftables; None where the kernel lacks nftables and none is needed."""
        try:
            return Nft()
        except OSError:
            if self._versions:
                raise
            return None

    async def start(self, bridges: Iterable[Bridge], ports: Iterable[PortMap], links: Iterable[LinkMap] = ()) -> None:
        """Replace any earlier table of ours with these contents, and start to watch it."""
        self._bridges = {bridge.id: bridge for bridge in bridges}
        self._ports, self._links = set(self._ruled(ports)), set(links)
        if not self._versions:
            await self._discard()
            return
        monitor = self._monitor = Monitor()
        asyncio.get_running_loop().add_reader(monitor.fileno(), self._changed, monitor)
        await self._review()

    async def stop(self, *, remove: bool) -> None:
        """Stop watching; the table stays unless `remove`."""
        if self._timer is not None:
            self._timer.cancel()
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
        if remove and self._versions:
            self._bridges.clear()
            await self._discard()
            await self._look()
            await self._pass_by()
        if self._nft is not None:
            self._nft.close()

    async def add_bridge(self, bridge: Bridge) -> None:
        """Add a network."""
        self._bridges[bridge.id] = bridge
        await self._load()

    async def remove_bridge(self, network_id: str) -> None:
        """Remove a network. Idempotent."""
        if self._bridges.pop(network_id, None) is not None:
            await self._load()

    async def publish(self, ports: Collection[PortMap]) -> None:
        """Add published ports, all or none."""
        await self.exchange((), ports)

    async def retract(self, ports: Collection[PortMap]) -> None:
        """Remove published ports. Idempotent."""
        present = self._ports.intersection(ports)
        self._ports.difference_update(present)
        await self._change(rules.render_ports("delete", self.table, present))

    async def exchange(self, old: Collection[PortMap], new: Collection[PortMap]) -> None:
        """Replace published ports `old` with `new` in one transaction: packets meet one set or the other.

        On Failed nothing has changed.
        """
        if self._stale and new:
            await self._review()
        new = self._ruled(new)
        closed, opened = self._ports.intersection(old), set(new) - self._ports
        self._ports.difference_update(closed)
        self._ports.update(new)
        try:
            await self._change(
                rules.render_ports("delete", self.table, closed) + rules.render_ports("add", self.table, new)
            )
        except Failed:
            self._ports.difference_update(opened)
            self._ports.update(closed)
            raise

    async def relink(self, old: Collection[LinkMap], new: Collection[LinkMap]) -> None:
        """Replace the allowed links between containers without inter-container communication."""
        if 4 not in self._versions:  # links exist only between IPv4 addresses of the default bridge
            return
        gone, added = self._links.intersection(set(old) - set(new)), set(new) - self._links
        self._links = (self._links - gone) | added
        commands = rules.render_links("delete", self.table, gone) + rules.render_links("add", self.table, added)
        await self._change(commands)

    @property
    def foreign(self) -> Foreign:
        """Others' chains as of the last change."""
        return self._foreign

    async def _change(self, commands: str) -> None:
        if not commands:
            return
        try:
            await self._run(commands)
        except Failed as error:
            # Another program has changed the table, and the monitor has not reported it yet.
            log.warning("firewall table %s is not as we left it, restoring it: %s", self.table, error)
            await self._load()

    async def _load(self) -> None:
        if not self._versions:
            return
        bridges, versions = list(self._bridges.values()), self._versions
        if not (bridges or self._ports):
            await self._discard()
            await self._pass_by()
            return
        text = rules.render_table(
            self.table, bridges, self._ports, self._links, screened=self._screened, versions=versions
        )
        try:
            await self._run(text)
        except Failed as error:
            await self._explain(error)
            raise
        await self._pass_by()

    async def _explain(self, error: Failed) -> None:
        """Raise Unsupported, naming the options, where the kernel was built without what the table needs."""
        assert self._nft is not None, "it has just failed"
        missing = await act("try the firewall", missing_options, self._nft.run, self._versions, f"{self.table}_probe")
        if missing:
            text = f"this kernel's nftables does not support the rules for networks: it lacks {', '.join(missing)}"
            raise Unsupported(text, _REMEDY) from error

    async def _discard(self) -> None:
        """Remove the table, if it exists; a kernel without nftables has none."""
        try:
            await self._run(rules.render_delete(self.table))
        except Failed as error:
            log.debug("the table is not removed: %s", error)

    def _ruled(self, ports: Iterable[PortMap]) -> list[PortMap]:
        return [port for port in ports if port.address.version in self._versions]

    @property
    def _screened(self) -> bool:
        return self._foreign.denies_input and not self._overrides

    async def _pass_by(self) -> None:
        """Update our rules in others' chains to the policy; the policy `host` has none."""
        shut = {chain for chain in self._foreign.forward if self._overrides and chain.owned and chain.drops}
        for chain in shut - self._shut:
            log.warning(
                "firewall chain '%s' belongs to its program, and cannot be changed: containers reach the world only "
                "where it lets packets of the networks' devices through (firewalld: in the zone trusted)",
                chain,
            )
        self._shut = shut
        passes = render_passes(self._foreign, self._bridges.values() if self._overrides else (), self.table)
        if not passes:
            return
        try:
            await self._run(passes)
        except Failed as error:  # its owner is changing it: the monitor will report that, and this runs again
            log.warning("cannot let traffic pass the host's own firewall: %s", error)
        await self._look()

    async def _look(self) -> None:
        """Read other programs' chains; on failure, assume the strictest."""
        assert self._nft is not None, "rules imply nftables"
        listing = functools.partial(self._nft.run, json=True, terse=True)
        try:
            self._foreign = read_ruleset(await act("list the ruleset", listing, "list ruleset"), self.table)
        except Failed as error:
            log.warning("cannot read the host's other firewall rules: %s", error)
            self._foreign = Foreign(denies_input=True)

    async def _review(self) -> None:
        """Others' rules have changed: flush the set `admitted`, whose members they may no longer admit."""
        self._stale = False
        await self._look()
        await self._load()

    async def _run(self, commands: str) -> None:
        if self._nft is not None:
            async with self._lock:
                await act("change the firewall", self._nft.run, commands)

    def _changed(self, monitor: Monitor) -> None:
        try:
            changes = monitor.changes()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            log.info("events of the firewall were lost, restoring table %s to be sure", self.table)
            self._restore_soon()
            return
        foreign = [change for change in changes if self._is_foreign(change)]
        if damage := [change for change in foreign if self.table in change.tables]:
            log.warning("%s changed firewall table %s, restoring it", damage[-1].program, self.table)
        if damage or (foreign and (self._ports or self._overrides)):
            self._restore_soon()
        elif foreign:
            self._stale = True

    def _is_foreign(self, change: Change) -> bool:
        if self._own_port is None and self.table in change.tables:
            self._own_port = change.port
        return change.port != self._own_port

    def _restore_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SETTLE_S, lambda: spawn(self._review(), "restore-firewall"))
