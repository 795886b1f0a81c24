"""The daemon's state: tables of documents in one SQLite database.

A table maps text keys to `msgspec` structs, kept as JSON with the structs' own field names. Tables are read whole at
start and rows written one at a time; there are no queries, so there is no SQL outside this module.

    loop:   put(key, struct) -> encode -> queue --+          +--> future resolved in the caller's loop
                                                  v          |
    writer thread:                    take all that waits -> BEGIN ... COMMIT

One thread owns the connection. What waits in the queue is written in one transaction and shares one fate, so a burst of
writes costs one commit. WAL with synchronous=NORMAL: a commit survives a killed daemon; a power cut may lose the last
commits but never the database's consistency. On disk (docs/schema.md draws it): `PRAGMA application_id` says havre,
`PRAGMA user_version` the schema; a database written by a newer havre is refused untouched, one of an older havre is
marked with our version (what was added has defaults), so that the older one refuses it from then on.
"""

from __future__ import annotations

import asyncio
import queue
import re
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from havre.aio import in_thread
from havre.errors import Failed, InvalidInput, Unavailable, Unsupported

SCHEMA_VERSION = 2
_APPLICATION_ID = 0x48765265  # "HvRe"
_NAME = re.compile(r"[a-z][a-z_]{0,30}")

T = TypeVar("T", bound=msgspec.Struct)
_Work: TypeAlias = Callable[[sqlite3.Connection], Any]


class _Job:
    """Work for the writer thread and the future, of some event loop, that waits for it."""

    __slots__ = ("future", "loop", "work")

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Hand the outcome to the waiting loop (called in the writer thread)."""
        try:
            self.loop.call_soon_threadsafe(self._resolve, result, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _resolve(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():  # cancelled meanwhile
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Database:
    """An open database. `table()` gives its tables; `close()` writes what waits and ends the writer thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._serve, name="havre-db", daemon=True)
        self._writer.start()

    @classmethod
    async def open(cls, path: Path) -> Database:
        """Open or create the database at `path`; `Unsupported` when it is newer, `Failed` when it is none of ours."""
        return cls(await in_thread(_connect, path), path)

    def table(self, name: str, type: type[T]) -> Table[T]:
        """The table `name` of `type` documents, created at its first use."""
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(f"invalid table name {name!r}")
        return Table(self, name, type)

    async def close(self) -> None:
        """Write what waits, fold the log into the database, close. Idempotent."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await in_thread(self._writer.join)

    async def submit(self, work: _Work) -> Any:
        """Run `work` on the connection inside the writer's next transaction and return its result."""
        if self._closed:
            raise Unavailable("the database is closed", "the daemon is stopping")
        job = _Job(work)
        self._jobs.put(job)
        return await job.future

    def _serve(self) -> None:
        serving = True
        while serving:
            waiting = [self._jobs.get()]
            while not self._jobs.empty():
                waiting.append(self._jobs.get())
            serving = None not in waiting
            if batch := [job for job in waiting if job is not None]:
                self._write(batch)
        self._connection.close()

    def _write(self, batch: list[_Job]) -> None:
        try:
            with self._connection:  # commits, or rolls back on an exception
                self._connection.execute("BEGIN IMMEDIATE")
                results = [job.work(self._connection) for job in batch]
        except sqlite3.Error as error:
            failure = Failed(f"writing {self.path}: {error}", "check that its file system has room and is writable")
            for job in batch:
                job.settle(None, failure)
            return
        for job, result in zip(batch, results, strict=True):
            job.settle(result, None)


class Table(Generic[T]):
    """Documents of one type, keyed by text."""

    def __init__(self, database: Database, name: str, type: type[T]) -> None:
        self._database = database
        self._name = name
        self._decoder = msgspec.json.Decoder(type)
        self._encoder = msgspec.json.Encoder()
        self._create = f'CREATE TABLE IF NOT EXISTS "{name}" (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID'
        self._put = f'INSERT INTO "{name}" VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value'
        self._delete = f'DELETE FROM "{name}" WHERE key = ?'
        self._all = f'SELECT key, value FROM "{name}" ORDER BY key'

    async def all(self) -> dict[str, T]:
        """Every document by its key; `Failed` names the row that is not a document of this type."""
        rows: list[tuple[str, bytes]] = await self._submit(lambda db: db.execute(self._all).fetchall())
        return {key: self._decode(key, value) for key, value in rows}

    async def put(self, key: str, value: T) -> None:
        """Write `value`, as it is at the time of the call, under `key`; returns once it is committed."""
        row = (key, self._encoder.encode(value))
        await self._submit(lambda db: db.execute(self._put, row).close())

    async def delete(self, key: str) -> None:
        """Remove the document under `key`, if there is one."""
        await self._submit(lambda db: db.execute(self._delete, (key,)).close())

    async def _submit(self, work: _Work) -> Any:
        def in_table(db: sqlite3.Connection) -> Any:
            try:
                return work(db)
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                db.execute(self._create)
                return work(db)

        return await self._database.submit(in_table)

    def _decode(self, key: str, value: bytes) -> T:
        try:
            return self._decoder.decode(value)
        except msgspec.MsgspecError as error:
            raise Failed(f"row {key!r} of table {self._name} in {self._database.path} is damaged: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # isolation_level=None: transactions begin where this module says so, and nowhere else.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            path.chmod(0o600)
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise Failed(f"opening {path}: {error}", "restore it from a copy, or move it away to start afresh") from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check whose database it is before anything is written, then set it up."""
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _IDENTITY)
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != _APPLICATION_ID and not (empty and application == 0):
        raise Failed(f"{path} is not a database of havre", "choose another data root")
    if version > SCHEMA_VERSION:
        raise Unsupported(
            f"{path} has schema {version}, written by a newer havre; this one knows schema {SCHEMA_VERSION}",
            "run the newer version, or choose another data root",
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if application == 0:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    if version < SCHEMA_VERSION:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


_IDENTITY = ("application_id", "user_version")
