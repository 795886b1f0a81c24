"""Recovery at the daemon's start: compares the rows with the processes of the runtime.

    row             runtime                         result
    running         it runs, same PID               taken over: output, exit, network, volumes
    damaged         it runs                         taken over, as far as the row is readable
    running         it ended                        its exit code and end time; the policy decides
    running         nothing (the host was down)     ended with 255 now; the policy decides
    anything else   something                       left by an interrupted start: removed
    removing        -                               the removal is completed
    exited          -                               started if its policy starts it with the daemon

Nothing runs twice: a process that does not match its row is killed before any start.

Why: docs/decisions/052.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from havre.aio import spawn
from havre.containers.container import Container
from havre.containers.life.erasure import Erasure
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.vocabulary import (
    Bury,
    DaemonStarted,
    FoundEnded,
    FoundNothing,
    FoundRunning,
    Start,
    TakeOver,
)
from havre.containers.live import Index, Live
from havre.containers.networking import guest_of, ids_of_links
from havre.containers.salvage import salvage_run
from havre.containers.surroundings.idranges import IdRanges
from havre.containers.surroundings.mounts import image_snapshots
from havre.containers.surroundings.subpaths import Subpaths
from havre.errors import HavreError
from havre.networks.networks import Networks
from havre.runtime import Exit, Runtime
from havre.storage import Snapshots
from havre.volumes.volumes import Volumes
from havre.wire import times
from havre.wire.values import ContainerId

log = logging.getLogger(__name__)

AT_ONCE = 8

T = TypeVar("T")


class Recovery:
    """Reconciles rows and processes, once, before requests are served."""

    def __init__(
        self,
        index: Index,
        lifecycle: Lifecycle,
        erasure: Erasure,
        runtime: Runtime,
        networks: Networks,
        volumes: Volumes,
        snapshots: Snapshots,
        ranges: IdRanges,
        subpaths: Subpaths,
    ) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._erasure = erasure
        self._runtime = runtime
        self._networks = networks
        self._volumes = volumes
        self._snapshots = snapshots
        self._ranges = ranges
        self._subpaths = subpaths

    async def run(self) -> None:
        """Take over running containers and record the ends of others; starts by policy continue in the background."""
        await self._index.load()
        self._runtime.room.check_for(sum(live.container.state.running for live in self._index))
        rows = [live.container for live in self._index]
        for container in rows:
            container.note_run(link_ids=ids_of_links(container, rows))
        for id in self._runtime.leftovers():
            if self._index.find(id) is None:
                await self._runtime.cleanup(id)
        await self._erasure.sweep()
        compared = await _a_few_at_once(self._compare(live) for live in self._index)
        ended = [(live, end) for live, end in zip(self._index, compared, strict=True) if end is not None]
        await self._bring_up()
        await _a_few_at_once(self._bury(live, end) for live, end in ended)
        await self._follow_policies({live.container.id for live, _ in ended})

    async def _compare(self, live: Live) -> Bury | None:
        """Take over a running container. Returns the end of one that its row says runs, but that has ended."""
        process, now = await self._runtime.adopt(live.container.id), time.time()
        event: FoundNothing | FoundEnded | FoundRunning
        if process is None:
            event = FoundNothing(now)
        elif process.pid == 0:
            exit = await process.wait()
            event = FoundEnded(exit.code, exit.finished_at, exit.oom_killed)
        elif live.damaged is not None:
            started_at = salvage_run(live.container, live.damaged, times.now())
            event = FoundRunning(process.pid, now, damaged=True, started_at=started_at)
            log.error("container %s runs, but its row is damaged: it cannot be started again", live.container.id)
        else:
            event = FoundRunning(process.pid, now)
        end = None
        for effect in self._lifecycle.turn(live, event):
            match effect:
                case TakeOver():
                    live.process = process
                case Bury():
                    end = effect
                case _:
                    await self._lifecycle.carry_out(live, (effect,))
        return end

    async def _bring_up(self) -> None:
        for live in self._index:
            container = live.container
            if live.process is None:
                container.note_run(ids=self._ranges.of(container))
            names = [point.name for point in container.spec.mounts if point.type == "volume"]
            self._volumes.adopt(container.id, names, running=live.process is not None)
        self._volumes.adopted()
        running = {ContainerId(live.container.id): live.container for live in self._index if live.process is not None}
        await self._networks.start({id: guest_of(container) for id, container in running.items()})
        await self._subpaths.sweep(running)
        known = {snapshot for live in self._index for snapshot in _snapshots_of(live.container)}
        in_use = {snapshot for container in running.values() for snapshot in _snapshots_of(container)}
        await self._snapshots.recover(in_use, known)
        for live in self._index:
            if live.process is not None:
                self._lifecycle.take_over(live)

    async def _bury(self, live: Live, end: Bury) -> None:
        try:
            await self._lifecycle.ended(live, Exit(end.code, end.at, end.oom_killed))
        except (HavreError, OSError) as error:
            log.error("cannot record the end of container %s: %s", live.container.id, error)

    async def _follow_policies(self, just_ended: set[str]) -> None:
        waiting = []
        for live in self._index:
            if live.container.id in just_ended:
                continue
            for effect in self._lifecycle.turn(live, DaemonStarted()):
                if isinstance(effect, Start):
                    waiting.append(live)
                    continue
                try:
                    await self._lifecycle.carry_out(live, (effect,))
                except HavreError as error:
                    log.error("cannot remove container %s: %s", live.container.id, error)
        waiting.sort(key=_start_order)
        if waiting:
            spawn(self._start_all(waiting), "start containers by policy")

    async def _start_all(self, waiting: list[Live]) -> None:
        for live in waiting:
            try:
                await self._lifecycle.start(live)
            except (HavreError, OSError) as error:
                log.warning("cannot start container %s with the daemon: %s", live.container.id, error)


async def _a_few_at_once(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results, in order; at most `AT_ONCE` run concurrently."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(each: Coroutine[Any, Any, T]) -> T:
        async with turns:
            return await each

    return await asyncio.gather(*(in_turn(each) for each in work))


def _snapshots_of(container: Container) -> list[str]:
    return [container.id, *image_snapshots(container)]


def _start_order(live: Live) -> tuple[bool, str]:
    """Sort key: as they were started last, but containers that share another's network after the others."""
    container = live.container
    return container.spec.host_config.network_mode.startswith("container:"), container.state.started_at
