"""Removing containers: the row is marked first, so that a removal interrupted half-way is finished by recovery.

mark "removing" --> kill (force), end copies --> surroundings down, snapshot, files, volumes --> row deleted --> destroy
                                   `--> a failure: "dead", waiters are told; another try, or the next daemon, goes on

Whoever removes a container may count on its space: everything is gone when the answer comes, and what somebody still
copies out of it or into it is broken off. After an exit with `--rm` nobody asked for space, but a client waits for the
end: name, ports and volumes are free then, while bundle, cgroups, snapshot and files go in the background, once the
rows are deleted, or when the next daemon recovers.
"""

from __future__ import annotations

import asyncio
import logging

from havre.aio import spawn
from havre.containers.container import Container
from havre.containers.exits import WaitResult
from havre.containers.life.control import Control
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Index, Live
from havre.containers.surroundings.assembly import Assembly
from havre.containers.surroundings.mounts import image_snapshots
from havre.errors import Conflict, Failed, HavreError
from havre.failpoints import failpoint
from havre.runtime import Runtime
from havre.storage import Snapshots
from havre.volumes.volumes import Volumes

log = logging.getLogger(__name__)


class Removal:
    """Makes containers go, and what was theirs alone."""

    def __init__(
        self,
        index: Index,
        lifecycle: Lifecycle,
        control: Control,
        assembly: Assembly,
        runtime: Runtime,
        snapshots: Snapshots,
        volumes: Volumes,
    ) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._control = control
        self._assembly = assembly
        self._runtime = runtime
        self._snapshots = snapshots
        self._volumes = volumes

    async def remove(self, live: Live, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it, with its anonymous volumes if asked. Conflict while it runs (unless by force) or is going."""
        await _claim(live, force=force)
        try:
            async with live.lock:
                pass  # a start that was broken off has undone itself
            await self._control.end(live)
            await live.end_uses()
            async with live.lock:
                await self._erase(live, volumes)
        except BaseException:
            live.removing = False
            raise

    async def auto_remove(self, live: Live) -> None:
        """After the exit of a `--rm` container; somebody else may be faster. A failure is in its state, and logged."""
        if not live.removing and self._index.find(live.container.id) is live:
            live.removing = True  # before anybody else's turn: whoever has waited for the lock finds it going
            try:
                async with live.lock:
                    await self._erase(live, volumes=True, at_once=False)
            except HavreError as error:
                live.removing = False
                log.error("container %s is not removed: %s", live.container.id, error)
            except BaseException:
                live.removing = False
                raise

    async def finish(self, live: Live) -> None:
        """Complete a removal that a crash interrupted, or that failed. It may fail again: that is logged."""
        live.removing = True
        try:
            await self._erase(live, volumes=live.container.host_config.auto_remove)
        except HavreError as error:
            live.removing = False
            log.error("container %s is not removed: %s", live.container.id, error)

    async def sweep(self) -> None:
        """Remove what the removal of an earlier daemon has left of containers that are gone."""
        await self._assembly.sweep()

    async def _erase(self, live: Live, volumes: bool, *, at_once: bool = True) -> None:
        try:
            await self._take_away(live, volumes, at_once=at_once)
        except (HavreError, OSError) as error:
            state = live.container.state
            state.status, state.dead, state.error = "dead", True, _told(live.container, error)
            await self._index.note(live.container)
            live.exits.not_removed(live.result())
            raise Failed(state.error) from error

    async def _take_away(self, live: Live, volumes: bool, *, at_once: bool) -> None:
        container = live.container
        if container.state.dead:  # what went wrong the last time
            container.state.dead, container.state.error = False, ""
        if not container.host_config.auto_remove:
            container.state.status = "removing"
            await self._index.note(container)  # a full disk may have room again once this is gone
            failpoint("removal.marked")
        if at_once:
            await self._runtime.cleanup(container.id)
        await self._assembly.take_down(container)
        failpoint("removal.taken-down")
        await self._volumes.release(container.id)
        if volumes:
            await self._remove_anonymous(container)
        snapshots = (container.id, *image_snapshots(container))
        if at_once:
            await asyncio.gather(*map(self._snapshots.remove, snapshots))
            await self._assembly.remove_directory(container)
            failpoint("removal.freed")
            await self._index.remove(container)
            failpoint("removal.forgotten")
        else:
            await asyncio.gather(*map(self._snapshots.abandon, snapshots), self._index.remove(container))
            spawn(self._erase_rest(container), f"remove what is left of {container.id[:12]}")
        self._lifecycle.publish(container, "destroy")
        for attachment in list(live.pending):
            attachment.end()
        live.exits.removed(WaitResult(container.state.exit_code))

    async def _erase_rest(self, container: Container) -> None:
        await self._runtime.cleanup(container.id)
        await self._assembly.remove_directory(container)

    async def _remove_anonymous(self, container: Container) -> None:
        """Volumes made for this container alone; one that another container uses stays."""
        for point in container.mounts:
            options = container.mount_options.get(point.destination)
            if point.type == "volume" and options is not None and options.anonymous:
                try:
                    await self._volumes.remove(point.name)
                except HavreError as error:
                    log.info("volume %s of container %s stays: %s", point.name, container.id, error)


async def _claim(live: Live, *, force: bool) -> None:
    """Mark it as going. What a start under way makes is to go, too: it is waited for, or by force broken off."""
    _refuse_removing(live)
    if force and live.abandon_launch():
        live.removing = True  # before the start has failed, which removes what was made with `--rm`
        return
    async with live.lock:
        _refuse_removing(live)
        if not force:
            _refuse_running(live)
        live.removing = True


def _told(container: Container, error: HavreError | OSError) -> str:
    if isinstance(error, HavreError):
        return error.message
    where = f"{error.filename}: " if error.filename else ""
    return f"unable to remove filesystem for {container.id}: {where}{(error.strerror or str(error)).lower()}"


def _refuse_removing(live: Live) -> None:
    if live.removing:
        raise Conflict(f"removal of container {live.container.id} is already in progress")


def _refuse_running(live: Live) -> None:
    container = live.container
    if container.state.paused:
        problem = "container is paused and must be unpaused first"
    elif live.process is not None or container.state.restarting:
        status = container.state.status
        problem = f"container is {status}: stop the container before removing or force remove"
    else:
        return
    raise Conflict(f'cannot remove container "/{container.name}": {problem}')
