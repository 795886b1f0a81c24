"""Keeps our nftables table as it should be, whoever else changes the firewall.

Owns the desired contents (bridges and published ports as values) and brings the kernel to them: an element for a port,
the whole table for a network, each in one transaction. What another program does to the table is undone within a
fraction of a second: a firewall that reloads by `flush ruleset` must not open or close ports (CVE-2025-54388).

    somebody: nft flush ruleset ──▶ kernel ──NFNLGRP_NFTABLES──▶ Monitor ──(settle 50 ms)──▶ the whole table again

Our own transactions are told from others by the netlink port the kernel reports with each: libnftables keeps one
socket, whose port is learned from the first transaction we make.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import logging
from collections.abc import Collection, Iterable

from havre.aio import spawn
from havre.errors import Failed
from havre.linux.nft import Monitor, Nft
from havre.network import rules
from havre.network.apply import act
from havre.network.plan import Bridge, PortMap

log = logging.getLogger(__name__)

_SETTLE_S = 0.05


class Firewall:
    """Our table in the network namespace of the thread that opens it."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._nft = Nft()
        self._monitor: Monitor | None = None
        self._lock = asyncio.Lock()
        self._bridges: dict[str, Bridge] = {}
        self._ports: set[PortMap] = set()
        self._own_port: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, bridges: Iterable[Bridge], ports: Iterable[PortMap]) -> None:
        """Replace whatever is there of our name by the given contents, and watch it from now on."""
        self._bridges = {bridge.id: bridge for bridge in bridges}
        self._ports = set(ports)
        monitor = self._monitor = Monitor()
        asyncio.get_running_loop().add_reader(monitor.fileno(), self._changed, monitor)
        await self._load()

    async def stop(self, *, remove: bool) -> None:
        """Stop watching; the table stays unless `remove`."""
        if self._timer is not None:
            self._timer.cancel()
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
        if remove:
            await self._run(rules.render_delete(self.table))
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
        self._ports.update(ports)
        await self._change("add", ports)

    async def retract(self, ports: Collection[PortMap]) -> None:
        """Close ports. Idempotent."""
        present = self._ports.intersection(ports)
        self._ports.difference_update(present)
        await self._change("delete", present)

    async def foreign_drops(self) -> list[str]:
        """Chains of other tables whose policy drops forwarded packets: they win over our accept."""
        listing = json.loads(await act("list chains", functools.partial(self._nft.run, json=True), "list chains"))
        chains = (item["chain"] for item in listing["nftables"] if "chain" in item)
        return [
            f"{chain['family']} {chain['table']} {chain['name']}"
            for chain in chains
            if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["table"] != self.table
        ]

    async def _change(self, verb: str, ports: Collection[PortMap]) -> None:
        if not ports:
            return
        try:
            await self._run(rules.render_ports(verb, self.table, ports))
        except Failed as error:
            # Somebody has changed the table and the monitor has not told us yet.
            log.warning("firewall table %s is not as we left it, restoring it: %s", self.table, error)
            await self._load()

    async def _load(self) -> None:
        await self._run(rules.render_table(self.table, list(self._bridges.values()), self._ports))

    async def _run(self, commands: str) -> None:
        async with self._lock:
            await act("change the firewall", self._nft.run, commands)

    def _changed(self, monitor: Monitor) -> None:
        try:
            foreign = [
                change for change in monitor.changes() if self.table in change.tables and self._is_foreign(change.port)
            ]
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            foreign = []
            log.info("events of the firewall were lost, restoring table %s to be sure", self.table)
            self._restore_soon()
        if foreign:
            log.warning("%s changed firewall table %s, restoring it", foreign[-1].program, self.table)
            self._restore_soon()

    def _is_foreign(self, port: int) -> bool:
        if self._own_port is None:
            self._own_port = port
        return port != self._own_port

    def _restore_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SETTLE_S, lambda: spawn(self._load(), "restore-firewall"))
