"""Containers, as the rest of the daemon knows them.

This is the face; the work is in the modules beside it, each of which can be read alone:

    create/creation     request -> plan -> row        life/machine      what becomes of a container, decided
    life/control        signals, stop, pause          life/lifecycle    and done: start, exit, restart
    life/removal        everything gone               life/recovery     after a restart of the daemon
    attach              streams of clients            streams/exec      further processes
    streams/logbook, streams/top, selection           surroundings/membership   networks of a container

What changes state must not be cancelled half-way: the edge runs it to its end when a client leaves (`Call.settle`).
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
from havre.containers.streams.exec import Exec, ExecAttachment, Execs, ExecSpec
from havre.containers.streams.top import Top, read_top
from havre.containers.surroundings.membership import Membership, PortBindings
from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound, NotModified
from havre.golang.signals import parse_signal
from havre.logs import LogChunk, LogOptions
from havre.runtime import Process
from havre.storage import Snapshots
from havre.wire.config import CreateRequest, EndpointSettings
from havre.wire.filters import Filters, check_keys, matches_labels
from havre.wire.times import parse


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a container's files are, and the daemon's choices that `inspect` tells.

    `network_files` holds hosts, hostname and resolv.conf: another container's where its network is shared.
    """

    network_files: Path
    driver: str
    log_path: str = ""
    mounted_at: str = ""
    sandbox_key: str = ""


@dataclass(frozen=True, slots=True)
class PrunedContainers:
    """The IDs of the containers that went, and the bytes freed."""

    deleted: tuple[str, ...]
    reclaimed: int


class ImageFacts(Protocol):
    """What containers ask about images."""

    def size_of(self, id: str) -> int:
        """Bytes of an image's layers; 0 when it is gone."""

    def named(self, name: str) -> Collection[str]:
        """The IDs of the images that a name or ID means."""

    def descended(self, name: str) -> Collection[str]:
        """The same, and those of images committed or built from them: what `ancestor=name` finds."""


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
    """All containers; `ref` is an ID, a name, or the unambiguous beginning of an ID."""

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

    # -- finding

    def get(self, ref: str) -> Container:
        """The container; `NotFound` "No such container: x"."""
        return self._index.get(ref).container

    def list(
        self, all: bool = False, limit: int | None = None, size: bool = False, filters: Filters | None = None
    ) -> Sequence[Container]:
        """The containers to show, newest first; `size` is the caller's to ask for one by one."""
        return select(
            (live.container for live in self._index),
            filters or {},
            all=all,
            limit=limit or 0,
            find=self.get,
            descended=self._images.descended,
        )

    def linked_names(self) -> Mapping[str, Sequence[str]]:
        """By name of a container what others call it: `/OWNER/ALIAS`."""
        return linked_names(live.container for live in self._index)

    def shown_image(self, container: Container) -> str:
        """The name that the container's image was given at creation, or its ID if the name means another one by now."""
        name = container.config.image
        try:
            return name if container.image in self._images.named(name) else container.image
        except InvalidInput:  # what was left of a damaged row
            return container.image

    def placement(self, ref: str) -> Placement:
        """Where its files are."""
        return self._place(self.get(ref))

    async def size(self, ref: str) -> tuple[int, int]:
        """Bytes of the writable layer, and of that and the image together."""
        container = self.get(ref)
        try:
            writable = await self._snapshots.size(container.id)
        except NotFound:  # it is being removed
            raise NotFound(f"No such container: {ref}") from None
        return writable, writable + self._images.size_of(container.image)

    # -- life

    async def create(
        self,
        request: CreateRequest,
        name: str | None = None,
        platform: str | None = None,
        read_only_is_recursive: bool = True,
    ) -> Created:
        """Make a container; what a mount says of read-only mounts below it comes before `read_only_is_recursive`."""
        return await self._creation.create(request, name, platform, read_only_is_recursive)

    async def start(self, ref: str, detach_keys: str | None = None) -> None:
        """Run it; NotModified if it runs."""
        await self._lifecycle.start(self._index.get(ref))

    async def stop(
        self, ref: str, timeout_s: int | None = None, signal: str | None = None, drain_s: int | None = None
    ) -> None:
        """End it, gently at first; NotModified if it does not run. With `drain_s` its names are withdrawn before, and
        it has so long to answer what it was asked."""
        live = self._index.get(ref)
        await self._recorded(live, self._control.stop(live, timeout_s, signal, drain_s))

    async def restart(self, ref: str, timeout_s: int | None = None, signal: str | None = None) -> None:
        """Stop and start."""
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
        """Do `work`; when it, or that there was nothing to do, is acknowledged, the row says what has become of it."""
        try:
            await work
        except NotModified:
            await self._index.settle(live.container)
            raise
        await self._index.settle(live.container)

    async def rename(self, ref: str, name: str) -> None:
        """Give it another name."""
        if not name:
            raise InvalidInput("Neither old nor new names may be empty")
        live = self._index.get(ref)
        container = live.container
        async with live.lock:
            self._index.get(container.id)  # it may be gone meanwhile
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

    async def connect(self, network: str, ref: str, asked: EndpointSettings | None) -> None:
        """Put it on a network."""
        await self._membership.connect(network, ref, asked)

    async def disconnect(self, network: str, ref: str, force: bool = False) -> None:
        """Take it off a network."""
        await self._membership.disconnect(network, ref, force)

    async def take_ports(self, ref: str, bindings: PortBindings, givers: Sequence[str]) -> None:
        """Publish further ports of a running container, which `givers` hand over where they hold them."""
        await self._membership.take_ports(ref, bindings, givers)

    async def remove(self, ref: str, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove it; Conflict while it runs, unless by force. With `link`, only what CONTAINER/ALIAS stands for."""
        if link:
            await self._membership.unlink(ref)
            return
        live = self._index.get(ref)
        await self._removal.remove(live, force=force, volumes=volumes)
        self._execs.forget(live.container.id)

    def prunable(self, filters: Filters) -> Sequence[Container]:
        """The containers that do not run and match `label` and `until`."""
        check_keys(filters, ("label", "label!", "until"))
        limit = _until(filters)
        idle = [live.container for live in self._index if not live.container.state.running]
        return [
            container
            for container in idle
            if matches_labels(filters, container.config.labels) and (limit is None or parse(container.created) <= limit)
        ]

    async def prune(self, filters: Filters | None = None) -> PrunedContainers:
        """Remove what is `prunable`."""
        deleted, reclaimed = [], 0
        for container in self.prunable(filters or {}):
            try:
                size, _ = await self.size(container.id)
                await self.remove(container.id)
            except (Conflict, NotFound):
                continue  # started, or removed by somebody else, meanwhile
            deleted.append(container.id)
            reclaimed += size
        self._lifecycle.publish_prune(reclaimed)
        return PrunedContainers(tuple(deleted), reclaimed)

    def wait(self, ref: str, condition: str = "") -> AsyncWait:
        """Registered when this returns; see `exit`."""
        condition = check_condition(condition)
        live = self._index.get(ref)
        state = live.container.state
        fulfilled = {"not-running": not state.running, "removed": state.dead}
        return live.exits.wait(condition, live.result() if fulfilled.get(condition) else None)

    # -- streams

    async def attach(self, ref: str, options: AttachOptions) -> Attachment:
        """A client of the container's streams; it may wait for a start. Conflict while paused or restarting."""
        live = self._index.get(ref)
        container = live.container
        if container.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.state.restarting:
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        past = None
        if options.logs and self._lifecycle.logs.path(container) is not None:
            past = self._lifecycle.logs.read(container, LogOptions(stdout=options.stdout, stderr=options.stderr))
        attachment = Attachment(options, tty=container.config.tty, stdin_once=container.config.stdin_once, past=past)
        if live.process is not None:
            attachment.bind(live.process)
        elif options.stream:
            live.pending.add(attachment)
            attachment.left = live.pending.discard
        self._lifecycle.publish(container, "attach")
        return attachment

    def detached(self, ref: str) -> None:
        """Tell that a client has left by its detach keys, while the container runs on."""
        if (live := self._index.find(ref)) is not None:
            self._lifecycle.publish(live.container, "detach")

    def logs(self, ref: str, options: LogOptions) -> AsyncGenerator[Sequence[LogChunk], None]:
        """What it wrote; with `follow`, until it ends and its end has been recorded."""
        live = self._index.get(ref)
        read = self._lifecycle.logs.read(live.container, options)
        return _to_the_record(read, live.process) if options.follow and live.process is not None else read

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """The size of its terminal in characters."""
        live = self._index.get(ref)
        await live.running().resize(rows, columns)
        self._lifecycle.publish(live.container, "resize", height=str(rows), width=str(columns))

    async def top(self, ref: str, ps_args: str = "") -> Top:
        """Its processes as ps(1) shows them."""
        live = self._index.get(ref)
        if live.container.state.restarting:
            raise Conflict(f"Container {live.container.id} is restarting, wait until the container is running")
        found = await read_top(set(await live.running().pids()), ps_args)
        self._lifecycle.publish(live.container, "top")
        return found

    # -- exec

    async def exec_create(self, ref: str, spec: ExecSpec) -> str:
        """Note a process to run; its ID."""
        return self._execs.create(self._index.get(ref), spec, ref).id

    async def exec_start(self, exec_id: str, console_size: tuple[int, int] | None = None) -> ExecAttachment:
        """Run it with a client."""
        return await self._execs.start(exec_id, console_size)

    async def exec_start_detached(self, exec_id: str) -> None:
        """Run it without one."""
        try:
            attachment = await self._execs.start(exec_id, None, detach=True)
        except HavreError as error:
            raise error if error.status < 500 else InvalidInput(error.message) from None
        attachment.close()

    def exec_inspect(self, exec_id: str) -> Exec:
        """What is known of it; `NotFound` "No such exec instance: x"."""
        return self._execs.get(exec_id)

    def exec_detached(self, exec_id: str) -> None:
        """As `detached`, for an exec."""
        self._execs.detached(exec_id)

    async def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """The size of its terminal in characters."""
        await self._execs.resize(exec_id, rows, columns)

    def exec_ids(self, ref: str) -> Sequence[str]:
        """The execs that run in it."""
        return self._execs.ids_of(self.get(ref).id)


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
    if process.has_ended():  # not so when nothing after a certain time was asked for
        await process.recorded.wait()
