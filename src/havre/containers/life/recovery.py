"""After a start of the daemon: what do the rows say, what does the kernel say, and what follows.

    row says        the runtime found               then
    running         it runs, same PID               taken over: output, exit, network, volumes
    damaged         it runs                         taken over, as far as the row can be read
    running         it ended                        its true exit code and end time; the policy decides
    running         nothing (the host was down)     ended with 255 now; the policy decides
    anything else   something                       left by a start that was cut short: cleared away
    removing        -                               the removal is finished
    exited          -                               started if its policy wants that with the daemon

Nothing runs twice: whatever cannot be matched to its row is killed before any start.

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
    """Brings rows and kernel together, once, before anything is served."""

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
        """Take over what runs, bury what does not; starts wanted by a policy go on in the background."""
        await self._index.load()
        self._runtime.room.check_for(sum(live.container.state.running for live in self._index))
        rows = [live.container for live in self._index]
        for container in rows:
            container.link_ids = ids_of_links(container, rows)
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
        """Take over a running container; the end of one that should run and does not."""
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
            log.error("container %s runs on, and its row is damaged: it cannot be started again", live.container.id)
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
                container.ids = self._ranges.of(container)
            names = [point.name for point in container.mounts if point.type == "volume"]
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
            log.error("recording the end of container %s: %s", live.container.id, error)

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
                    log.error("container %s is not removed: %s", live.container.id, error)
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
    """The results, in order: one container does not wait for another's files, and the machine is not swamped."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(each: Coroutine[Any, Any, T]) -> T:
        async with turns:
            return await each

    return await asyncio.gather(*(in_turn(each) for each in work))


def _snapshots_of(container: Container) -> list[str]:
    return [container.id, *image_snapshots(container)]


def _start_order(live: Live) -> tuple[bool, str]:
    """Oldest first, but those that share a network after those that have one."""
    return live.container.host_config.network_mode.startswith("container:"), live.container.created
