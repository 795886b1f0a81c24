"""Removes everything that belongs to a container alone: mounts, volumes, snapshot, files, the runtime's bundle, the
row.

A client that removes a container expects its space to be free: everything is removed when `erase` returns. After an
exit with `--rm` a client waits for the end, not for space: name, ports and volumes are released at once, while bundle,
cgroups, snapshot and files are removed in the background (`later`) after the row, or by the next daemon's recovery.
"""

from __future__ import annotations

import asyncio
import logging

from havre.aio import spawn
from havre.containers.container import Container
from havre.containers.live import Index
from havre.containers.surroundings.assembly import Assembly
from havre.containers.surroundings.mounts import image_snapshots
from havre.errors import HavreError
from havre.failpoints import failpoint
from havre.runtime import Runtime
from havre.storage import Snapshots
from havre.volumes.volumes import Volumes

log = logging.getLogger(__name__)


class Erasure:
    """Removes what is left of containers that do not run."""

    def __init__(
        self, index: Index, assembly: Assembly, runtime: Runtime, snapshots: Snapshots, volumes: Volumes
    ) -> None:
        self._index = index
        self._assembly = assembly
        self._runtime = runtime
        self._snapshots = snapshots
        self._volumes = volumes

    async def erase(self, container: Container, *, volumes: bool, later: bool) -> None:
        """Remove a container, with `volumes` also its anonymous volumes. Called under its lock; may be retried."""
        if not container.spec.host_config.auto_remove:
            failpoint("removal.marked")
        if not later:
            await self._runtime.cleanup(container.id)
        await self._assembly.take_down(container)
        failpoint("removal.taken-down")
        await self._volumes.release(container.id)
        if volumes:
            await self._remove_anonymous(container)
        snapshots = (container.id, *image_snapshots(container))
        if later:
            await asyncio.gather(*map(self._snapshots.abandon, snapshots), self._index.remove(container))
            spawn(self._erase_rest(container), f"remove what is left of {container.id[:12]}")
        else:
            await asyncio.gather(*map(self._snapshots.remove, snapshots))
            await self._assembly.remove_directory(container)
            failpoint("removal.freed")
            await self._index.remove(container)
            failpoint("removal.forgotten")

    async def sweep(self) -> None:
        """Remove what an interrupted removal by an earlier daemon left of deleted containers."""
        await self._assembly.sweep()

    async def _erase_rest(self, container: Container) -> None:
        await self._runtime.cleanup(container.id)
        await self._assembly.remove_directory(container)

    async def _remove_anonymous(self, container: Container) -> None:
        for point in container.spec.mounts:
            options = container.spec.mount_options.get(point.destination)
            if point.type == "volume" and options is not None and options.anonymous:
                try:
                    await self._volumes.remove(point.name)
                except HavreError as error:  # in use by another container
                    log.info("cannot remove volume %s of container %s: %s", point.name, container.id, error)


def why_not_removed(container: Container, error: HavreError | OSError) -> str:
    """The error of a failed removal in Docker's words."""
    if isinstance(error, HavreError):
        return error.message
    where = f"{error.filename}: " if error.filename else ""
    return f"unable to remove filesystem for {container.id}: {where}{(error.strerror or str(error)).lower()}"
