"""The interface of containers for the rest of the daemon; the work is done by the modules beside it.

    create/creation     request -> plan -> row        life/machine      decides the next state
    life/control        signals, stop, pause          life/lifecycle    carries it out: start, exit, restart
    life/removal        removal                       life/recovery     start of the daemon
    attach              streams of clients            streams/exec      additional processes
    streams/logbook, streams/top, selection           surroundings/membership   networks of a container

Changes of state must not be cancelled half-way: the API layer completes them if a client disconnects (`Call.settle`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from havre.containers.attach import Attachment, AttachOptions
from havre.containers.container import Container
from havre.containers.create.creation import Created, Creation
from havre.containers.create.names import check_name
from havre.containers.exits import AsyncWait, check_condition
from havre.containers.life.control import Control
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.removal import Removal
from havre.containers.live import Index, Live
from havre.containers.networking import linked_names
from havre.containers.selection import select
from havre.containers.streams.exec import Execs
from havre.containers.streams.top import Top, read_top
from havre.containers.surroundings.membership import Membership
from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound, NotModified
from havre.golang.signals import parse_signal
from havre.logs import LogChunk, LogOptions
from havre.runtime import Process
from havre.storage import Snapshots
from havre.wire.config import CreateRequest
from havre.wire.filters import Filters, check_keys, matches_labels
from havre.wire.times import parse


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a container's files, and choices of the daemon that `inspect` shows.

    `network_files` has hosts, hostname and resolv.conf; with a shared network, it is the other container's directory.
    """

    network_files: Path
    driver: str
    log_path: str = ""
    mounted_at: str = ""
    sandbox_key: str = ""


@dataclass(frozen=True, slots=True)
class PrunedContainers:
    """The IDs of the containers removed, and the bytes freed."""

    deleted: tuple[str, ...]
    reclaimed: int


class ImageFacts(Protocol):
    """The part of images that containers use."""

    def size_of(self, id: str) -> int:
        """Bytes of an image's layers; 0 if it was removed."""

    def named(self, name: str) -> Collection[str]:
        """The IDs of the images that a name or ID refers to."""

    def descended(self, name: str) -> Collection[str]:
        """Those IDs, and those of images committed or built from them, for the filter `ancestor`."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The collaborators of `Containers`."""

    index: Index
    creation: Creation
    lifecycle: Lifecycle
    control: Control
    removal: Removal
    execs: Execs
    snapshots: Snapshots
    membership: Membership


class Containers:
    """All containers; `ref` is an ID, a name, or an unambiguous prefix of an ID.

    All methods with a `ref` raise `NotFound` ("No such container: x").
    """

    def __init__(self, parts: Parts, images: ImageFacts, place: Callable[[Container], Placement]) -> None:
        self._index = parts.index
        self._creation = parts.creation
        self._lifecycle = parts.lifecycle
        self._control = parts.control
        self._removal = parts.removal
        self._execs = parts.execs
        self._snapshots = parts.snapshots
        self._membership = parts.membership
        self._place = place
        self._images = images

    # -- queries

    def get(self, ref: str) -> Container:
        """The container."""
        return self._index.get(ref).container

    def list(
        self, all: bool = False, limit: int | None = None, size: bool = False, filters: Filters | None = None
    ) -> Sequence[Container]:
        """The containers to show, newest first; `size` is ignored, callers use the method `size`."""
        return select(
            (live.container for live in self._index),
            filters or {},
            all=all,
            limit=limit or 0,
            find=self.get,
            descended=self._images.descended,
        )

    def linked_names(self) -> Mapping[str, Sequence[str]]:
        """Names `/OWNER/ALIAS` that links give a container, by its lower-case name."""
        return linked_names(live.container for live in self._index)

    def shown_image(self, container: Container) -> str:
        """The image's name in the request, or its ID if the name now refers to another image."""
        name = container.spec.config.image
        try:
            return name if container.spec.image in self._images.named(name) else container.spec.image
        except InvalidInput:  # a value salvaged from a damaged row
            return container.spec.image

    def placement(self, ref: str) -> Placement:
        """The place of its files."""
        return self._place(self.get(ref))

    async def size(self, ref: str) -> tuple[int, int]:
        """Bytes of the writable layer, and of the layer and the image together."""
        container = self.get(ref)
        try:
            writable = await self._snapshots.size(container.id)
        except NotFound:  # it is being removed
            raise NotFound(f"No such container: {ref}") from None
        return writable, writable + self._images.size_of(container.spec.image)

    # -- life

    async def create(
        self,
        request: CreateRequest,
        name: str | None = None,
        platform: str | None = None,
        read_only_is_recursive: bool = True,
    ) -> Created:
        """Create a container. `read_only_is_recursive` is the default of mounts that do not specify it."""
        return await self._creation.create(request, name, platform, read_only_is_recursive)

    async def start(self, ref: str, detach_keys: str | None = None) -> None:
        """Start it. Raises `NotModified` if it runs."""
        await self._lifecycle.start(self._index.get(ref))

    async def stop(
        self, ref: str, timeout_s: int | None = None, signal: str | None = None, drain_s: int | None = None
    ) -> None:
        """Stop it with a signal, after the timeout with SIGKILL. Raises `NotModified` if it does not run.

        With `drain_s`, its names are first withdrawn from DNS, and it has at most so long to finish its connections.
        """
        live = self._index.get(ref)
        await self._recorded(live, self._control.stop(live, timeout_s, signal, drain_s))

    async def restart(self, ref: str, timeout_s: int | None = None, signal: str | None = None) -> None:
        """Stop and start it."""
        live = self._index.get(ref)
        try:
            await self._recorded(live, self._control.restart(live, timeout_s, signal))
        except HavreError as error:
            raise Failed(f"Cannot restart container {ref}: {error.message}", error.hint) from error

    async def kill(self, ref: str, signal: str | None = None) -> None:
        """Send a signal."""
        try:
            number = parse_signal(signal or "SIGKILL")
            live = self._index.get(ref)
        except HavreError as error:
            raise type(error)(f"cannot kill container: {ref}: {error.message}", error.hint) from None
        await self._recorded(live, self._control.kill(live, number))

    async def pause(self, ref: str) -> None:
        """Freeze it."""
        live = self._index.get(ref)
        await self._recorded(live, self._control.pause(live))

    async def unpause(self, ref: str) -> None:
        """Thaw it."""
        live = self._index.get(ref)
        await self._recorded(live, self._control.unpause(live))

    async def _recorded(self, live: Live, work: Awaitable[None]) -> None:
        """Await `work`, then make sure that the result is stored before it is acknowledged."""
        try:
            await work
        except NotModified:
            await self._index.settle(live.container)
            raise
        await self._index.settle(live.container)

    async def rename(self, ref: str, name: str) -> None:
        """Change its name."""
        if not name:
            raise InvalidInput("Neither old nor new names may be empty")
        live = self._index.get(ref)
        container = live.container
        async with live.lock:
            self._index.get(container.id)  # raises if it was removed meanwhile
            old = container.name
            if name.removeprefix("/") == old:
                raise InvalidInput("Renaming a container with the same name as its current name")
            try:
                new = check_name("/" + name.removeprefix("/"))
                self._index.reserve(new, container.id)
            except HavreError as error:
                raise type(error)(f"Error when allocating new name: {error.message}", error.hint) from None
            container.name = new
            try:
                await self._index.save(container)
            except BaseException:
                container.name = old
                self._index.free(new)
                raise
            self._index.free(old)
            await self._membership.renamed(container, old)
        self._lifecycle.publish(container, "rename", oldName=f"/{old}")

    async def remove(self, ref: str, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove it. Raises `Conflict` if it runs, unless forced. `link`: removes only the link CONTAINER/ALIAS."""
        if link:
            await self._membership.unlink(ref)
            return
        live = self._index.get(ref)
        await self._removal.remove(live, force=force, volumes=volumes)
        self._execs.forget(live.container.id)

    def prunable(self, filters: Filters) -> Sequence[Container]:
        """The containers that do not run and match the filters `label` and `until`."""
        check_keys(filters, ("label", "label!", "until"))
        limit = _until(filters)
        idle = [live.container for live in self._index if not live.container.state.running]
        return [
            container
            for container in idle
            if matches_labels(filters, container.spec.config.labels)
            and (limit is None or parse(container.spec.created) <= limit)
        ]

    async def prune(self, filters: Filters | None = None) -> PrunedContainers:
        """Remove all `prunable` containers."""
        deleted, reclaimed = [], 0
        for container in self.prunable(filters or {}):
            try:
                size, _ = await self.size(container.id)
                await self.remove(container.id)
            except (Conflict, NotFound):
                continue  # started or removed meanwhile
            deleted.append(container.id)
            reclaimed += size
        self._lifecycle.publish_prune(reclaimed)
        return PrunedContainers(tuple(deleted), reclaimed)

    def wait(self, ref: str, condition: str = "") -> AsyncWait:
        """Register a wait for a condition; registered when this returns. See `exits`."""
        condition = check_condition(condition)
        live = self._index.get(ref)
        state = live.container.state
        fulfilled = {"not-running": not state.running, "removed": state.dead}
        return live.exits.wait(condition, live.result() if fulfilled.get(condition) else None)

    # -- streams

    async def attach(self, ref: str, options: AttachOptions) -> Attachment:
        """Attach a client to the streams, also before a start. Raises `Conflict` while paused or restarting."""
        live = self._index.get(ref)
        container = live.container
        if container.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.state.restarting:
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        past = None
        if options.logs and self._lifecycle.logs.path(container) is not None:
            past = self._lifecycle.logs.read(container, LogOptions(stdout=options.stdout, stderr=options.stderr))
        attachment = Attachment(
            options, tty=container.spec.config.tty, stdin_once=container.spec.config.stdin_once, past=past
        )
        if live.process is not None:
            attachment.bind(live.process)
        elif options.stream:
            live.pending.add(attachment)
            attachment.left = live.pending.discard
        self._lifecycle.publish(container, "attach")
        return attachment

    def detached(self, ref: str) -> None:
        """Publish the event of a client that detached by its detach keys."""
        if (live := self._index.find(ref)) is not None:
            self._lifecycle.publish(live.container, "detach")

    def logs(self, ref: str, options: LogOptions) -> AsyncGenerator[Sequence[LogChunk], None]:
        """Its output; with `follow`, until it has ended and its end is recorded."""
        live = self._index.get(ref)
        read = self._lifecycle.logs.read(live.container, options)
        return _to_the_record(read, live.process) if options.follow and live.process is not None else read

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """Set the size of its terminal, in characters."""
        live = self._index.get(ref)
        await live.running().resize(rows, columns)
        self._lifecycle.publish(live.container, "resize", height=str(rows), width=str(columns))

    async def top(self, ref: str, ps_args: str = "") -> Top:
        """Its processes as listed by ps(1)."""
        live = self._index.get(ref)
        if live.container.state.restarting:
            raise Conflict(f"Container {live.container.id} is restarting, wait until the container is running")
        found = await read_top(set(await live.running().pids()), ps_args)
        self._lifecycle.publish(live.container, "top")
        return found


def _until(filters: Filters) -> float | None:
    values = filters.get("until")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInput("more than one until filter specified")
    try:
        return float(values[0])
    except ValueError:
        raise InvalidInput(f"invalid filter 'until={values[0]}'", "expected seconds since the epoch") from None


async def _to_the_record(
    log: AsyncGenerator[Sequence[LogChunk], None], process: Process
) -> AsyncGenerator[Sequence[LogChunk], None]:
    async with aclosing(log):
        async for each in log:
            yield each
    if process.has_ended():  # false if the log was read only up to a given time
        await process.recorded.wait()
