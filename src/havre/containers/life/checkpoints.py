"""Checkpoints of containers: the state of their processes on disk, from which a start resumes them.

    checkpoint create  -->  DIRECTORY/NAME/*.img     DIRECTORY: the container's own, removed with it, or a user's
    start --checkpoint <--                           files and volumes are not included: they are as they are then

As in dockerd, only an experimental daemon has them. Unlike in dockerd, the restart policy does not restart a container
that a checkpoint ended, and only directories that are checkpoints can be removed as such.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from havre.aio import in_thread
from havre.containers.container import Container
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.vocabulary import CheckpointAsked, CheckpointFailed
from havre.containers.live import Index, Live
from havre.errors import Failed, HavreError, InvalidInput, Unsupported
from havre.runtime import Process
from havre.runtime.checkpoints import is_checkpoint

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Checkpoints:
    """`directory` returns the directory of a container's own files; `ref` is the user's name for a container.

    With `enabled` false, all requests are refused as by a dockerd that is not experimental.
    """

    def __init__(
        self, index: Index, lifecycle: Lifecycle, directory: Callable[[Container], Path], *, enabled: bool
    ) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._directory = directory
        self._enabled = enabled

    async def create(self, ref: str, name: str, directory: str, *, exit: bool) -> None:
        """Create a checkpoint; with `exit`, end the container. Raises `Conflict` if it is stopped, `Failed` (criu)."""
        self._check_enabled()
        await self._create(self._index.get(ref), ref, _check_name(name), directory, exit=exit)

    async def list(self, ref: str, directory: str) -> Sequence[str]:
        """The names of the checkpoints in `directory`; "" is the container's own."""
        self._check_enabled()
        return await in_thread(_names, self._parent(self._index.get(ref), directory))

    async def remove(self, ref: str, name: str, directory: str) -> None:
        """Remove a checkpoint. Raises `Failed` if there is none of that name."""
        self._check_enabled()
        _check_name(name)
        await in_thread(shutil.rmtree, await self._find(self._index.get(ref), ref, name, directory))

    async def start(self, ref: str, name: str, directory: str) -> None:
        """Start a container from the checkpoint; raises as any start."""
        if not self._enabled:
            raise InvalidInput("checkpoint is only supported in experimental mode")
        live = self._index.get(ref)
        await self._lifecycle.start(live, await self._find(live, f"/{live.container.name}", name, directory))

    def _check_enabled(self) -> None:
        if not self._enabled:
            raise Unsupported(
                "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in "
                "order to enable it.",
                'give havred --experimental, or set "experimental" in daemon.json',
            )

    def _parent(self, live: Live, directory: str) -> Path:
        if directory and not directory.startswith("/"):
            raise InvalidInput(f"invalid checkpoint directory {directory!r}: it must be an absolute path")
        return Path(directory) if directory else self._directory(live.container) / "checkpoints"

    async def _find(self, live: Live, ref: str, name: str, directory: str) -> Path:
        found = self._parent(live, directory) / _check_name(name)
        if not await in_thread(is_checkpoint, found):
            raise Failed(f"checkpoint {name} does not exist for container {ref}")
        return found

    async def _create(self, live: Live, ref: str, name: str, directory: str, *, exit: bool) -> None:
        async with live.lock:
            self._lifecycle.turn(live, CheckpointAsked(exit))
            process, container = live.running(), live.container
            images = self._parent(live, directory) / name
            ended = live.exits.wait("next-exit", None)
            try:
                await in_thread(_make, images, ref)
                await _dump(process, images, ref, exit=exit)
            except BaseException:
                self._lifecycle.turn(live, CheckpointFailed())
                ended.cancel()
                raise
            self._lifecycle.publish(container, "checkpoint")
        if exit:
            await ended.result()
            async with live.lock:
                return  # teardown is complete when the lock is free
        ended.cancel()


async def _dump(process: Process, images: Path, ref: str, *, exit: bool) -> None:
    try:
        await process.checkpoint(images, leave_running=not exit)
    except BaseException as error:
        await in_thread(shutil.rmtree, images)
        if isinstance(error, HavreError):
            raise type(error)(f"Cannot checkpoint container {ref}: {error.message}", error.hint) from error
        raise


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f'invalid checkpoint ID "{name}", only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed')
    return name


def _make(images: Path, ref: str) -> None:
    try:
        images.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        images.mkdir(mode=0o700)
    except FileExistsError:
        problem = f"checkpoint with name {images.name} already exists for container {ref}"
        raise Failed(f"cannot checkpoint container {ref}: {problem}") from None
    except OSError as error:
        raise Failed(f"{images}: {(error.strerror or str(error)).lower()}") from error


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directory) if is_checkpoint(Path(entry.path)))
    except FileNotFoundError:
        return []
