"""Keeps our nftables table as it should be, whoever else changes the firewall.

Owns the desired contents (bridges and published ports as values) and brings the kernel to them: an element for a port,
the whole table for a network, each in one transaction. What another program does to the table is undone within a
fraction of a second: a firewall that reloads by `flush ruleset` must not open or close ports (CVE-2025-54388).

It also looks at other programs' chains: by the policy `host` their denials hold for published ports, by the policy
`docker` they are passed by (`foreign`).

    somebody: nft flush ruleset ──▶ kernel ──NFNLGRP_NFTABLES──▶ Monitor ──(settle 50 ms)──▶ the whole table again

Our own transactions are told from others by the netlink port the kernel reports with each: libnftables keeps one
socket, whose port is learned from the first transaction we make.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
from collections.abc import Collection, Iterable

from havre.aio import spawn
from havre.errors import Failed
from havre.linux.nft import Change, Monitor, Nft
from havre.network import rules
from havre.network.apply import act
from havre.network.foreign import Chain, Foreign, read_ruleset, render_passes
from havre.network.plan import Bridge, LinkMap, PortMap

log = logging.getLogger(__name__)

_SETTLE_S = 0.05


class Firewall:
    """Our table in the network namespace of the thread that opens it."""

    def __init__(self, table: str, *, overrides: bool = False) -> None:
        self.table = table
        self._overrides = overrides
        self._foreign = Foreign()
        self._shut: set[Chain] = set()  # others' chains that have been told of
        self._stale = False  # others have changed chains of theirs while no port was published
        self._nft = Nft()
        self._monitor: Monitor | None = None
        self._lock = asyncio.Lock()
        self._bridges: dict[str, Bridge] = {}
        self._ports: set[PortMap] = set()
        self._links: set[LinkMap] = set()
        self._own_port: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, bridges: Iterable[Bridge], ports: Iterable[PortMap], links: Iterable[LinkMap] = ()) -> None:
        """Replace whatever is there of our name by the given contents, and watch it from now on."""
        self._bridges = {bridge.id: bridge for bridge in bridges}
        self._ports, self._links = set(ports), set(links)
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
        if remove:
            self._bridges.clear()
            await self._run(rules.render_delete(self.table))
            await self._look()
            await self._pass_by()
        self._nft.close()

    async def add_bridge(self, bridge: Bridge) -> None:
        """Admit a network."""
        self._bridges[bridge.id] = bridge
        await self._load()

    async def remove_bridge(self, network_id: str) -> None:
        """Forget a network. Idempotent."""
        if self._bridges.pop(network_id, None) is not None:
            await self._load()

    async def publish(self, ports: Collection[PortMap]) -> None:
        """Open ports, all or none."""
        await self.exchange((), ports)

    async def retract(self, ports: Collection[PortMap]) -> None:
        """Close ports. Idempotent."""
        present = self._ports.intersection(ports)
        self._ports.difference_update(present)
        await self._change(rules.render_ports("delete", self.table, present))

    async def exchange(self, old: Collection[PortMap], new: Collection[PortMap]) -> None:
        """Close `old` ports and open `new` ones in one transaction: who comes meets the one or the other.

        On Failed all is as it was.
        """
        if self._stale and new:
            await self._review()
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
        """Let containers that do not meet otherwise reach `new` instead of `old`."""
        gone, added = self._links.intersection(set(old) - set(new)), set(new) - self._links
        self._links = (self._links - gone) | added
        commands = rules.render_links("delete", self.table, gone) + rules.render_links("add", self.table, added)
        await self._change(commands)

    @property
    def foreign(self) -> Foreign:
        """What other programs' chains do, as of the last change."""
        return self._foreign

    async def _change(self, commands: str) -> None:
        if not commands:
            return
        try:
            await self._run(commands)
        except Failed as error:
            # Somebody has changed the table and the monitor has not told us yet.
            log.warning("firewall table %s is not as we left it, restoring it: %s", self.table, error)
            await self._load()

    async def _load(self) -> None:
        bridges = list(self._bridges.values())
        text = rules.render_table(self.table, bridges, self._ports, self._links, screened=self._screened)
        await self._run(text)
        await self._pass_by()

    @property
    def _screened(self) -> bool:
        return self._foreign.denies_input and not self._overrides

    async def _pass_by(self) -> None:
        """Bring our rules in others' chains to the policy: by one that overrides nothing there are none."""
        shut = {chain for chain in self._foreign.forward if self._overrides and chain.owned and chain.drops}
        for chain in shut - self._shut:
            log.warning(
                "firewall chain '%s' belongs to its program, and cannot be passed by: containers reach the world only "
                "where it lets packets of the networks' devices through (firewalld: in the zone trusted)",
                chain,
            )
        self._shut = shut
        passes = render_passes(self._foreign, self._bridges.values() if self._overrides else (), self.table)
        if not passes:
            return
        try:
            await self._run(passes)
        except Failed as error:  # its owner changes it right now; we are told, and look again
            log.warning("cannot pass by the host's own firewall: %s", error)
        await self._look()

    async def _look(self) -> None:
        """Learn what other programs' chains do; where that cannot be learnt, the strictest is assumed."""
        listing = functools.partial(self._nft.run, json=True, terse=True)
        try:
            self._foreign = read_ruleset(await act("list the ruleset", listing, "list ruleset"), self.table)
        except Failed as error:
            log.warning("cannot look at the host's other firewall rules: %s", error)
            self._foreign = Foreign(denies_input=True)

    async def _review(self) -> None:
        """Somebody has changed something: nobody stays admitted by rules that may be gone."""
        self._stale = False
        await self._look()
        await self._load()

    async def _run(self, commands: str) -> None:
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
