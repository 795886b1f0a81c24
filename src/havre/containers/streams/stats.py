"""Resource usage of containers as a series of readings.

A reading includes the CPU figures of the previous one, so that a client can compute a percentage from a single message.
The first of a stream has none; a single answer takes two readings, unless the client requests one-shot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from havre.aio import in_thread
from havre.containers.live import Index, Live
from havre.errors import InvalidInput
from havre.linux.usage import Interface, Usage, read_host_cpu, read_interfaces, read_usage
from havre.runtime import Process

INTERVAL_S = 1.0
PRIMING_S = 0.5
"""Time between the two readings of a single answer: fifty clock ticks of each CPU."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One container at one time (nanoseconds since the epoch); a `usage` of None: it does not run."""

    at_ns: int = 0
    usage: Usage | None = None
    host_cpu_ns: int = 0
    cpus: int = 0
    interfaces: dict[str, Interface] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figures:
    """A reading and the previous one; `id` and `name` are empty in a one-shot answer, as in docker."""

    now: Reading
    before: Reading = Reading()
    id: str = ""
    name: str = ""


class Stats:
    """Reads the usage of containers."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def check(self, ref: str, *, stream: bool, one_shot: bool) -> None:
        """Raise `NotFound`, or `InvalidInput` for conflicting options, before the response begins."""
        if stream and one_shot:
            raise InvalidInput("cannot have stream=true and one-shot=true")
        self._index.get(ref)

    async def once(self, ref: str, *, one_shot: bool) -> Figures:
        """One answer; empty for a container that does not run."""
        live = self._index.get(ref)
        before = await self._read(live)
        if one_shot and before.usage is not None:
            return Figures(before)
        if before.usage is not None:
            await asyncio.sleep(PRIMING_S)
            return self._figures(live, await self._read(live), before)
        return self._figures(live, Reading(), Reading())

    async def stream(self, ref: str) -> AsyncIterator[Figures]:
        """One reading per second until the container is removed, whether it runs or not."""
        live = self._index.get(ref)
        before, due = Reading(), time.monotonic()
        while self._index.find(live.container.id) is live:
            now = await self._read(live)
            yield self._figures(live, now, before)
            before, due = now, due + INTERVAL_S
            await _pause(live, max(0.0, due - time.monotonic()))

    @staticmethod
    def _figures(live: Live, now: Reading, before: Reading) -> Figures:
        return Figures(now, before, live.container.id, live.container.name)

    @staticmethod
    async def _read(live: Live) -> Reading:
        process = live.process
        if process is None:
            return Reading()
        with_network = live.container.spec.host_config.network_mode != "host"
        reading = await in_thread(_take, process, with_network)
        return reading if process.exited() is None else Reading()


async def _pause(live: Live, seconds: float) -> None:
    """Wait so many seconds, or until the container is removed."""
    removal = live.exits.wait("removed", None)
    with suppress(TimeoutError):
        await asyncio.wait_for(removal.result(), seconds)


def _take(process: Process, with_network: bool) -> Reading:
    usage = read_usage(*process.cgroup)
    host_cpu_ns, cpus = read_host_cpu()
    interfaces = read_interfaces(process.pid) if with_network else {}
    return Reading(time.time_ns(), usage, host_cpu_ns, cpus, interfaces)
