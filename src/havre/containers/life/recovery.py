"""After a start of the daemon: what do the rows say, what does the kernel say, and what follows.

    row says        the runtime found               then
    running         it runs, same PID               taken over: output, exit, network, volumes
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
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.removal import Removal
from havre.containers.life.restart import wants_start_with_daemon
from havre.containers.live import Index, Live
from havre.containers.networking import guest_of, ids_of_links
from havre.containers.surroundings.idranges import IdRanges
from havre.containers.surroundings.mounts import image_snapshots
from havre.containers.surroundings.subpaths import Subpaths
from havre.errors import HavreError
from havre.networks.networks import Networks
from havre.runtime import Exit, Runtime
from havre.storage import Snapshots
from havre.volumes.volumes import Volumes
from havre.wire.values import ZERO_TIME, ContainerId

log = logging.getLogger(__name__)

UNKNOWN_CODE = 255
AT_ONCE = 8

T = TypeVar("T")


class Recovery:
    """Brings rows and kernel together, once, before anything is served."""

    def __init__(
        self,
        index: Index,
        lifecycle: Lifecycle,
        removal: Removal,
        runtime: Runtime,
        networks: Networks,
        volumes: Volumes,
        snapshots: Snapshots,
        ranges: IdRanges,
        subpaths: Subpaths,
    ) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._removal = removal
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
        await self._removal.sweep()
        compared = await _a_few_at_once(self._compare(live) for live in self._index)
        ended = [(live, exit) for live, exit in zip(self._index, compared, strict=True) if exit is not None]
        await self._bring_up()
        await _a_few_at_once(self._bury(live, exit) for live, exit in ended)
        await self._follow_policies({live.container.id for live, _ in ended})

    async def _compare(self, live: Live) -> Exit | None:
        """Take over a running container; the end of one that should run and does not."""
        container = live.container
        believed = container.state.status in ("running", "paused")
        process = await self._runtime.adopt(container.id)
        if process is None:
            return Exit(UNKNOWN_CODE, time.time()) if believed else None
        if not believed or process.pid not in (0, container.state.pid):
            await self._runtime.cleanup(container.id)
            return Exit(UNKNOWN_CODE, time.time()) if believed else None
        if process.pid == 0:
            return await process.wait()
        live.process = process
        return None

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
                self._lifecycle.watch(live, live.process)

    async def _bury(self, live: Live, exit: Exit) -> None:
        try:
            await self._lifecycle.ended(live, exit)
        except (HavreError, OSError) as error:
            log.error("recording the end of container %s: %s", live.container.id, error)

    async def _follow_policies(self, just_ended: set[str]) -> None:
        waiting = []
        for live in self._index:
            container = live.container
            if container.state.status in ("removing", "dead"):
                await self._removal.finish(live)
            elif live.process is None and container.id not in just_ended and _wants_start(container):
                waiting.append(live)
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


def _wants_start(container: Container) -> bool:
    state = container.state
    return wants_start_with_daemon(
        container.host_config.restart_policy,
        ever_started=state.started_at != ZERO_TIME,
        exit_code=state.exit_code,
        stopped_by_user=container.manually_stopped,
        was_running=state.restarting,
        restarts=container.restart_count - state.restarting,
    )
