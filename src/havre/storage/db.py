"""The daemon's state: tables of documents in one SQLite database.

A table maps text keys to `msgspec` structs, stored as JSON with the structs' own field names. Tables are read whole at
start (or row by row, if documents are large) and rows written one at a time; there are no queries, so there is no SQL
outside this module.

    loop:   put(key, struct) -> encode -> queue --+          +--> future resolved in the caller's loop
                                                  v          |
    writer thread:                    take everything queued -> BEGIN ... COMMIT

One thread owns the connection. The requests of one iteration of the event loop, and everything else in the queue, are
written in one transaction that succeeds or fails as a whole, so a burst of writes costs one commit and one sync. WAL
with synchronous=FULL: a row is on disk when `put` or `delete` returns, and a power cut loses nothing acknowledged. The
writer of a row ensures that what it refers to (blobs, layers, directories) is on disk first. A `lazily` written row is
synced with the next one that is not lazy.

On a full disk, new rows and those that `grow` are refused; deletions and `urgent` rows may use the `reserve`.
Unreadable
rows (`Table.damaged`) are logged and skipped.

On disk (docs/schema.md draws it): `PRAGMA application_id` identifies havre, `PRAGMA user_version` is the schema. A
database of a newer version is refused unchanged, an older one is migrated first (`migrate`).

Why: docs/decisions/015.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from havre.aio import in_thread
from havre.errors import Failed, InvalidInput, Unavailable, Unsupported
from havre.failpoints import failpoint
from havre.linux.room import free_bytes_of_root, full_hint
from havre.storage.migrate import copy_of, migrate
from havre.storage.migrations import MIGRATIONS, Migration
from havre.storage.reserve import Reserve, fold, keep_log

log = logging.getLogger(__name__)

SCHEMA_VERSION = MIGRATIONS[-1].to
_APPLICATION_ID = 0x48765265  # "HvRe"
_NO_ROOM = 1 << 20  # bytes; with less free, new rows are refused, and an I/O error is attributed to a full disk
_NAME = re.compile(r"[a-z][a-z_]{0,30}")

T = TypeVar("T", bound=msgspec.Struct)
_Work: TypeAlias = Callable[[sqlite3.Connection], Any]


class _Job:
    """Work for the writer thread, and the future, of some event loop, with its result."""

    __slots__ = ("durable", "future", "grows", "loop", "work")

    def __init__(self, work: _Work, *, grows: bool, durable: bool) -> None:
        self.work = work
        self.grows = grows
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Pass the result to the waiting loop; called in the writer thread."""
        try:
            self.loop.call_soon_threadsafe(self._resolve, result, error)
        except RuntimeError:  # the loop is closed
            return

    def _resolve(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():  # cancelled meanwhile
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Database:
    """An open database. `table()` returns its tables; `close()` writes queued rows and ends the writer thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path, reserve: Reserve) -> None:
        self.path = path
        self._connection = connection
        self._reserve = reserve
        self._asked: list[_Job] = []  # in this iteration of the loop
        self._jobs: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._serve, name="havre-db", daemon=True)
        self._writer.start()

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> Database:
        """Open or create the database at `path`; `Unsupported` for a newer one, `Failed` if it is not havre's."""
        reserve = Reserve(path.parent / "reserve")
        return cls(await in_thread(_connect, path, reserve, migrations), path, reserve)

    def table(self, name: str, type: type[T]) -> Table[T]:
        """The table `name` of `type` documents, created at its first use."""
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(f"invalid table name {name!r}")
        return Table(self, name, type)

    async def close(self) -> None:
        """Write queued rows, checkpoint the WAL, close. Idempotent."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._jobs.put(None)
        await in_thread(self._writer.join)

    async def submit(self, work: _Work, *, grows: bool = False, durable: bool = True) -> Any:
        """Run `work` on the connection in the writer's next transaction and return its result.

        `grows`: refused on a full disk, where other work may use the reserve. The transaction is synced if any of its
        work is
        `durable`.
        """
        if self._closed:
            raise Unavailable("the database is closed", "the daemon is stopping")
        job = _Job(work, grows=grows, durable=durable)
        if not self._asked:
            job.loop.call_soon(self._hand_over)
        self._asked.append(job)
        return await job.future

    def _hand_over(self) -> None:
        """Queue the requests of this iteration for the writer."""
        asked, self._asked = self._asked, []
        self._jobs.put(asked)

    def _serve(self) -> None:
        serving = True
        while serving:
            waiting = [self._jobs.get()]
            while not self._jobs.empty():
                waiting.append(self._jobs.get())
            serving = None not in waiting
            if batch := [job for jobs in waiting if jobs is not None for job in jobs]:
                try:
                    self._write(batch)
                except Exception as error:  # noqa: BLE001 - a bug, or a lost file system: later requests must not hang
                    self._refuse(batch, error)
        fold(self._connection)
        self._connection.close()

    def _write(self, batch: list[_Job]) -> None:
        if any(job.grows for job in batch) and free_bytes_of_root(self.path.parent) < _NO_ROOM:
            self._refuse([job for job in batch if job.grows], None)
            batch = [job for job in batch if not job.grows]
        ways = [lambda: fold(self._connection), self._reserve.give_up]  # to free space on a full disk
        while batch:
            try:
                results = self._commit(batch)
            except sqlite3.Error as error:
                full = _says_full(error, self.path)
                if full and any(job.grows for job in batch):
                    self._refuse([job for job in batch if job.grows], None)
                    batch = [job for job in batch if not job.grows]
                elif not full or not any(way() for way in _taken(ways)):
                    self._refuse(batch, None if full else error)
                    return
                continue
            for job, result in zip(batch, results, strict=True):
                job.settle(result, None)
            break
        self._reserve.restore()

    def _commit(self, batch: list[_Job]) -> list[Any]:
        """Run one transaction, synced if any job is durable; rolled back on an exception."""
        writes = any(job.grows or job.durable for job in batch)
        if writes:
            failpoint("database.begin")
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if any(job.durable for job in batch) else 'NORMAL'}")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [job.work(self._connection) for job in batch]
            if writes:
                failpoint("database.commit")
        if writes:
            failpoint("database.committed")
        return results

    def _refuse(self, batch: list[_Job], error: Exception | None) -> None:
        """Fail the jobs with `error`, None for a full disk."""
        hint = full_hint(self.path.parent) if error is None else "check that its file system has room and is writable"
        failure = Failed(f"writing {self.path}: {error or 'no space left on device'}", hint)
        for job in batch:
            job.settle(None, failure)


def _taken(ways: list[Callable[[], bool]]) -> Iterator[Callable[[], bool]]:
    """Yield the ways, each once."""
    while ways:
        yield ways.pop(0)


class Table(Generic[T]):
    """Documents of one type, keyed by text."""

    def __init__(self, database: Database, name: str, type: type[T]) -> None:
        self._database = database
        self._name = name
        self.damaged: dict[str, bytes] = {}  # by key: the stored bytes of unreadable rows
        self._decoder = msgspec.json.Decoder(type)
        self._encoder = msgspec.json.Encoder()
        self._create = f'CREATE TABLE IF NOT EXISTS "{name}" (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID'
        self._put = f'INSERT INTO "{name}" VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value'
        self._delete = f'DELETE FROM "{name}" WHERE key = ?'
        self._one = f'SELECT value FROM "{name}" WHERE key = ?'
        self._all = f'SELECT key, value FROM "{name}" ORDER BY key'

    async def all(self) -> dict[str, T]:
        """All documents by key; rows that are not of this type are logged and put into `damaged`."""

        def read(db: sqlite3.Connection) -> list[tuple[str, Any]]:
            try:
                return db.execute(self._all).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                return []  # on a full disk, creating it might fail

        found: dict[str, T] = {}
        self.damaged = {}
        for key, value in await self._database.submit(read, durable=False):
            try:
                found[key] = self._decoder.decode(value)
            except (msgspec.MsgspecError, TypeError, RecursionError, UnicodeDecodeError) as error:
                self.damaged[key] = value if isinstance(value, bytes) else str(value).encode()
                where = f"row {key!r} of table {self._name} in {self._database.path}"
                log.error("%s is damaged and skipped: %s", where, error)
        return found

    async def get(self, key: str) -> T | None:
        """The document under `key`, for tables too large to be held in memory; None if it is missing or unreadable."""
        row = await self._submit(lambda db: db.execute(self._one, (key,)).fetchone(), durable=False)
        try:
            return None if row is None else self._decoder.decode(row[0])
        except (msgspec.MsgspecError, TypeError, RecursionError, UnicodeDecodeError):
            return None

    async def put(self, key: str, value: T, *, urgent: bool = False, lazily: bool = False) -> None:
        """Write `value`, encoded at the time of the call, under `key`; returns once it is on disk.

        `lazily`: durable at the latest with the next write that is not lazy. `urgent`: also on a full disk.
        """
        row = (key, self._encoder.encode(value))
        await self._submit(lambda db: db.execute(self._put, row).close(), grows=not urgent, durable=not lazily)
        self.damaged.pop(key, None)

    async def delete(self, key: str, *, lazily: bool = False) -> None:
        """Delete the document under `key`, also on a full disk; `lazily` as for `put`. Idempotent."""
        await self._submit(lambda db: db.execute(self._delete, (key,)).close(), durable=not lazily)
        self.damaged.pop(key, None)

    async def _submit(self, work: _Work, *, grows: bool = False, durable: bool = True) -> Any:
        def in_table(db: sqlite3.Connection) -> Any:
            try:
                return work(db)
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                db.execute(self._create)
                return work(db)

        return await self._database.submit(in_table, grows=grows, durable=durable)


def _connect(path: Path, reserve: Reserve, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """Open it; on a full disk with the reserve's space, and if necessary without the WAL's index file."""
    try:
        try:
            connection = _open(path, migrations)
        except sqlite3.Error as error:
            if not _says_full(error, path):
                raise
            reserve.give_up()
            connection = _open(path, migrations, alone=True)
        with suppress(sqlite3.Error):  # for lack of space
            reserve.stock(connection, path.with_name(f"{path.name}-wal"))
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.Error) and _says_full(error, path):
            raise Failed(f"opening {path}: no space left on device", full_hint(path.parent)) from error
        raise Failed(
            f"opening {path}: {error}", "restore it from a copy, or move it away to start with an empty one"
        ) from error
    reserve.restore()
    return connection


def _open(path: Path, migrations: Sequence[Migration], *, alone: bool = False) -> sqlite3.Connection:
    # isolation_level=None: this module controls transactions itself.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        path.chmod(0o600)
        keep_log(connection)
        if alone:  # keeps the WAL's index in memory (sqlite.org/wal.html, "Use of WAL Without Shared-Memory")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _prepare(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _says_full(error: sqlite3.Error, path: Path) -> bool:
    """Report whether a full disk is the cause: SQLite reports only an I/O error for its WAL's index."""
    name = getattr(error, "sqlite_errorname", "") or ""
    failed = name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))
    return name == "SQLITE_FULL" or (failed and free_bytes_of_root(path.parent) < _NO_ROOM)


def _prepare(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Check that the database is havre's before writing to it, then set it up."""
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _IDENTITY)
    newest = migrations[-1].to
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != _APPLICATION_ID and not (empty and application == 0):
        raise Failed(f"{path} is not a database of havre", "choose another data root")
    if version > newest:
        raise Unsupported(
            f"{path} has schema {version}, written by a newer havre; this one knows schema {newest}", _way_back(path)
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if application == 0:  # in one transaction: both are set, or neither after a kill
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {newest}; COMMIT"
        )
    else:
        migrate(connection, path, version, migrations)


def _way_back(path: Path) -> str:
    if (kept := copy_of(path, SCHEMA_VERSION)).exists():
        rest = f"without {path.name}-wal and {path.name}-shm"  # a WAL is replayed into any database beside it
        return f"run the newer version; or go back to {kept}, as it was before: move it to {path.name}, {rest}"
    return "run the newer version, or choose another data root"


_IDENTITY = ("application_id", "user_version")
