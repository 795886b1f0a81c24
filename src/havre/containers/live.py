"""Containers in memory: each one's row with its transient data, and the index.

`Index` owns names and IDs: a name is reserved before anything is created under it, and released if that fails. Rows are
persisted by `save`; recovery rebuilds everything else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from havre.containers.container import Container
from havre.containers.exits import Exits, WaitResult
from havre.containers.networking import links_of
from havre.containers.salvage import salvage_container
from havre.containers.states import Life, is_going, record, restored
from havre.errors import Conflict, HavreError, InvalidInput, NotFound
from havre.runtime import Process
from havre.storage import Table

if TYPE_CHECKING:
    from havre.containers.attach import Attachment

ID_LENGTH = 64

log = logging.getLogger(__name__)


class FileUse:
    """A read or write of a container's files: `block` is the timeout scope of the work, `over` is set after cleanup."""

    def __init__(self) -> None:
        self.block = asyncio.timeout(None)
        self.over = asyncio.Event()

    async def end(self) -> None:
        """Abort the block unless it is done, and wait for its cleanup."""
        with suppress(RuntimeError):  # the block is done
            self.block.reschedule(0)
        await self.over.wait()


class Live:
    """A container at present.

    `life` is its state (`life.machine`), mirrored in its row; `lock` is held during operations that take time.
    `process` is set while it runs; `pending` are clients attached before a start; `launch` is the timeout scope of a
    start in progress, `restart` the timer of a scheduled one. `damaged` is its row if it is unreadable. `uses` are its
    open views (`views`).
    """

    def __init__(self, container: Container) -> None:
        self.container = container
        self.life = restored(container)
        self.lock = asyncio.Lock()
        self.exits = Exits()
        self.process: Process | None = None
        self.pending: set[Attachment] = set()
        self.uses: set[FileUse] = set()
        self.launch: asyncio.Timeout | None = None
        self.restart: asyncio.Task[None] | None = None
        self.damaged: bytes | None = None
        self.exec_ids: list[str] = []

    def become(self, life: Life) -> None:
        """Set the state, also in the row."""
        self.life = life
        record(self.container, life)

    @property
    def removing(self) -> bool:
        """Report whether it is being removed, or will be."""
        return is_going(self.life)

    def running(self) -> Process:
        """The process of a running container. Raises `Conflict` with Docker's message."""
        if self.process is None:
            raise Conflict(f"container {self.container.id} is not running")
        return self.process

    def result(self) -> WaitResult:
        """The result of the last run."""
        return WaitResult(self.container.state.exit_code, self.container.state.error)

    async def end_uses(self) -> None:
        """Abort reads and writes of its files. Call without `lock`, when no new ones can begin."""
        await asyncio.gather(*(use.end() for use in self.uses))

    def abandon_launch(self, after_s: float = 0.0) -> bool:
        """Abort a start if it is still in progress in `after_s` seconds; it undoes itself. False if there is none."""
        if self.launch is None:
            return False
        with suppress(RuntimeError):  # done, or already aborted
            self.launch.reschedule(asyncio.get_running_loop().time() + after_s)
        return True

    def cancel_restart(self) -> None:
        """Cancel a scheduled restart. Idempotent."""
        if self.restart is not None:
            self.restart.cancel()
            self.restart = None


class Index:
    """All containers by ID, name and unambiguous prefix."""

    def __init__(self, table: Table[Container]) -> None:
        self._table = table
        self._by_id: dict[str, Live] = {}
        self._names: dict[str, str] = {}
        self._unrecorded: set[str] = set()  # IDs of containers whose last state could not be written (disk full)

    async def load(self) -> None:
        """Read all rows; of damaged ones, what is readable."""
        for container in (await self._table.all()).values():
            self.add(Live(container))
        for id, value in self._table.damaged.items():
            live = Live(salvage_container(id, value))
            live.damaged = value
            if live.container.name in self._names:
                live.container.name = id[:12]
            self.add(live)

    def check_sound(self, live: Live) -> None:
        """Raise `Conflict` for a container whose row is damaged."""
        if live.damaged is not None:
            error = live.container.state.error
            raise Conflict(f"container {live.container.id} cannot be started or changed: {error}")

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._by_id.values()))

    def find(self, ref: str) -> Live | None:
        """Look up by exact ID, name, or unique ID prefix. None if there is none, `InvalidInput` if several match."""
        if live := self._by_id.get(ref) or self._by_id.get(self._names.get(ref.removeprefix("/"), "")):
            return live
        if live := self._find_linked(ref.removeprefix("/")):
            return live
        found = [id for id in self._by_id if id.startswith(ref)] if ref else []
        if len(found) > 1:
            raise InvalidInput(f"Multiple IDs found with provided prefix: {ref}")
        return self._by_id[found[0]] if found else None

    def _find_linked(self, ref: str) -> Live | None:
        """Look up by the name that a link gives it: `OWNER/ALIAS`."""
        owner, slash, alias = ref.rpartition("/")
        if not slash or (id := self._names.get(owner)) is None:
            return None
        name = links_of(self._by_id[id].container).get(alias.lower()) if id in self._by_id else None
        return next((live for live in self._by_id.values() if live.container.name.lower() == name), None)

    def get(self, ref: str) -> Live:
        """As `find`. Raises `NotFound` if there is none."""
        if (live := self.find(ref)) is None:
            raise NotFound(f"No such container: {ref}")
        return live

    def is_taken(self, name: str) -> bool:
        """Report whether a name is in use."""
        return name in self._names

    def reserve(self, name: str, id: str) -> None:
        """Reserve `name` for `id`. Raises `Conflict` naming the container that has it."""
        holder = self._names.setdefault(name, id)
        if holder != id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def free(self, name: str) -> None:
        """Release a name. Idempotent."""
        self._names.pop(name, None)

    def add(self, live: Live) -> None:
        """Add a container under its reserved name."""
        self._names[live.container.name] = live.container.id
        self._by_id[live.container.id] = live

    async def insert(self, container: Container) -> None:
        """Store a new container and add it."""
        await self._table.put(container.id, container)
        self.add(Live(container))

    async def save(self, container: Container) -> None:
        """Store the row; does nothing if the container was removed. Raises if the database cannot write."""
        if (live := self._by_id.get(container.id)) is not None:
            self.check_sound(live)
            await self._record(container)

    async def note(self, container: Container) -> None:
        """Store a state already reached, if needed in reserved space. Failures are logged and retried (`settle`)."""
        if (live := self._by_id.get(container.id)) is None or live.damaged is not None:
            return
        try:
            await self._record(container, urgent=True)
        except HavreError as error:
            self._unrecorded.add(container.id)
            log.error("cannot record the state of container %s: %s", container.id, error)

    async def settle(self, container: Container) -> None:
        """Before a change is acknowledged: make sure that it is stored. Raises the database's error."""
        if container.id in self._unrecorded:
            await self._record(container, urgent=True)

    async def _record(self, container: Container, *, urgent: bool = False) -> None:
        await self._table.put(container.id, container, urgent=urgent)
        self._unrecorded.discard(container.id)
        with suppress(HavreError):
            for id in list(self._unrecorded):  # the disk may have space again
                if (live := self._by_id.get(id)) is not None:  # not removed meanwhile
                    await self._table.put(id, live.container, urgent=True)
                self._unrecorded.discard(id)

    async def remove(self, container: Container) -> None:
        """Delete it; if the database fails, it is kept."""
        live = self._by_id.pop(container.id)
        try:
            await self._table.delete(container.id)
        except BaseException:
            self._by_id[container.id] = live
            raise
        self._unrecorded.discard(container.id)
        self.free(container.name)
