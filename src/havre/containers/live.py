"""Containers in memory: each one's row beside what lives only while the daemon does, and the index that finds them.

`Index` owns names and identifiers: a name is reserved before anything is made under it and freed when that fails. Rows
are persisted by `save`; everything else here is rebuilt by recovery.
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
    """Somebody who reads or writes a container's files: `block` is at it, `over` is set once nothing is left of it."""

    def __init__(self) -> None:
        self.block = asyncio.timeout(None)
        self.over = asyncio.Event()

    async def end(self) -> None:
        """Break the block off, if it is not done, and wait until nothing is left."""
        with suppress(RuntimeError):  # done
            self.block.reschedule(0)
        await self.over.wait()


class Live:
    """A container now.

    `life` is its state (`life.machine`), which its row mirrors; `lock` is held while what takes time is done about it.
    `process` is set while it runs; `pending` are the clients attached before a start; `launch` is the block of a start
    that is under way, `restart` the timer of one to come. `damaged` is its row, if that could not be read. `uses` are
    its open views (`views`).
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
        """Its next state, in its row too."""
        self.life = life
        record(self.container, life)

    @property
    def removing(self) -> bool:
        """Whether somebody removes it, or is about to."""
        return is_going(self.life)

    def running(self) -> Process:
        """The process of a container that must run; `Conflict` in Docker's words otherwise."""
        if self.process is None:
            raise Conflict(f"container {self.container.id} is not running")
        return self.process

    def result(self) -> WaitResult:
        """How it ended last."""
        return WaitResult(self.container.state.exit_code, self.container.state.error)

    async def end_uses(self) -> None:
        """Break off what is read from its files or written to them. Not under `lock`, and no new ones may come."""
        await asyncio.gather(*(use.end() for use in self.uses))

    def abandon_launch(self, after_s: float = 0.0) -> bool:
        """Break off a start that is still under way in `after_s` seconds, and undoes itself; whether there is one."""
        if self.launch is None:
            return False
        with suppress(RuntimeError):  # done, or broken off already
            self.launch.reschedule(asyncio.get_running_loop().time() + after_s)
        return True

    def cancel_restart(self) -> None:
        """Drop a restart to come; idempotent."""
        if self.restart is not None:
            self.restart.cancel()
            self.restart = None


class Index:
    """All containers by identifier, name and unambiguous prefix."""

    def __init__(self, table: Table[Container]) -> None:
        self._table = table
        self._by_id: dict[str, Live] = {}
        self._names: dict[str, str] = {}
        self._unrecorded: set[str] = set()  # IDs of those whose row is not what has become of them, for want of room

    async def load(self) -> None:
        """Read every row; of one that is damaged, what can be read."""
        for container in (await self._table.all()).values():
            self.add(Live(container))
        for id, value in self._table.damaged.items():
            live = Live(salvage_container(id, value))
            live.damaged = value
            if live.container.name in self._names:
                live.container.name = id[:12]
            self.add(live)

    def check_sound(self, live: Live) -> None:
        """Refuse to work with a container whose row is damaged; Conflict."""
        if live.damaged is not None:
            error = live.container.state.error
            raise Conflict(f"container {live.container.id} cannot be started or changed: {error}")

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._by_id.values()))

    def find(self, ref: str) -> Live | None:
        """By exact ID, exact name, or the one ID that begins so; None if there is none, `InvalidInput` if several."""
        if live := self._by_id.get(ref) or self._by_id.get(self._names.get(ref.removeprefix("/"), "")):
            return live
        if live := self._find_linked(ref.removeprefix("/")):
            return live
        found = [id for id in self._by_id if id.startswith(ref)] if ref else []
        if len(found) > 1:
            raise InvalidInput(f"Multiple IDs found with provided prefix: {ref}")
        return self._by_id[found[0]] if found else None

    def _find_linked(self, ref: str) -> Live | None:
        """By what another container calls it: `OWNER/ALIAS`."""
        owner, slash, alias = ref.rpartition("/")
        if not slash or (id := self._names.get(owner)) is None:
            return None
        name = links_of(self._by_id[id].container).get(alias.lower()) if id in self._by_id else None
        return next((live for live in self._by_id.values() if live.container.name.lower() == name), None)

    def get(self, ref: str) -> Live:
        """As `find`; `NotFound` where there is none."""
        if (live := self.find(ref)) is None:
            raise NotFound(f"No such container: {ref}")
        return live

    def is_taken(self, name: str) -> bool:
        """Whether a name is in use."""
        return name in self._names

    def reserve(self, name: str, id: str) -> None:
        """Give `name` to `id`, or `Conflict` naming its holder."""
        holder = self._names.setdefault(name, id)
        if holder != id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def free(self, name: str) -> None:
        """Give a name back; idempotent."""
        self._names.pop(name, None)

    def add(self, live: Live) -> None:
        """Make a container findable under its reserved name."""
        self._names[live.container.name] = live.container.id
        self._by_id[live.container.id] = live

    async def insert(self, container: Container) -> None:
        """Persist a new container and make it findable."""
        await self._table.put(container.id, container)
        self.add(Live(container))

    async def save(self, container: Container) -> None:
        """Persist the row as it stands; a container that is gone stays gone."""
        if (live := self._by_id.get(container.id)) is not None:
            self.check_sound(live)
            await self._record(container)

    async def note(self, container: Container) -> None:
        """As `save`, of what has happened already: it may have the reserve's room, and a disk that refuses it all the
        same is told in the log and stops nothing; but see `settle`."""
        if (live := self._by_id.get(container.id)) is None or live.damaged is not None:
            return
        try:
            await self._record(container, urgent=True)
        except HavreError as error:
            self._unrecorded.add(container.id)
            log.error("the state of container %s is not recorded: %s", container.id, error)

    async def settle(self, container: Container) -> None:
        """Before what has become of a container is acknowledged: it is on disk; raises what the database says."""
        if container.id in self._unrecorded:
            await self._record(container, urgent=True)

    async def _record(self, container: Container, *, urgent: bool = False) -> None:
        await self._table.put(container.id, container, urgent=urgent)
        self._unrecorded.discard(container.id)
        with suppress(HavreError):
            for id in list(self._unrecorded):  # there is room again
                if (live := self._by_id.get(id)) is not None:  # still: it may have been removed meanwhile
                    await self._table.put(id, live.container, urgent=True)
                self._unrecorded.discard(id)

    async def remove(self, container: Container) -> None:
        """Forget it; if the database refuses, it stays."""
        live = self._by_id.pop(container.id)
        try:
            await self._table.delete(container.id)
        except BaseException:
            self._by_id[container.id] = live
            raise
        self._unrecorded.discard(container.id)
        self.free(container.name)
