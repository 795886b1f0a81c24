"""The history of builds: a bounded number of records with their logs and provenance.

    started(record)   --> running, in memory            record: Record, row of `build_history`, by reference
    completed(record) --> a row and its documents       document: logs, provenance, error; row of `build_documents`
    update, remove    --> pinned, deleted                         by digest, compressed; shared by records

A record goes when it is older than `max_age_s` and not among the newest `max_entries`, unless it is pinned. Beyond
that, all records and documents together are limited to `MAX_RECORDS` and `MAX_BYTES`, the oldest unpinned ones going
first. Builds that a crash of the daemon ends leave no record. Rows are read at the first use.

Source: moby/buildkit solver/llbsolver/history; the dockerd reference, "builder.history".
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from havre.aio import in_thread
from havre.errors import HavreError, InvalidInput, NotFound
from havre.golang.units import parse_duration
from havre.oci.digest import Digest, digest_of

log = logging.getLogger(__name__)

MAX_RECORDS = 1000
MAX_BYTES = 64 << 20
_DAY_S = 24 * 60 * 60
RUNNING, COMPLETED, GONE = 0, 1, 2

T = TypeVar("T", bound=msgspec.Struct)


class Table(Protocol[T]):
    """A table of the database."""

    @property
    def damaged(self) -> Mapping[str, bytes]: ...
    async def all(self) -> dict[str, T]: ...
    async def get(self, key: str) -> T | None: ...
    async def put(self, key: str, value: T, *, lazily: bool = False) -> None: ...
    async def delete(self, key: str, *, lazily: bool = False) -> None: ...


@dataclass(frozen=True)
class HistoryLimits:
    """The setting `builder.history`."""

    max_age_s: float = 2 * _DAY_S
    max_entries: int = 50


def parse_history_limits(builder: Mapping[str, Any]) -> HistoryLimits:
    """The limits in daemon.json's `builder`. Raises `InvalidInput`."""
    given = next((value for key, value in builder.items() if key.lower() == "history"), None)
    if given is None:
        return HistoryLimits()
    values = {str(key).lower(): value for key, value in given.items()} if isinstance(given, Mapping) else {"": given}
    if unknown := values.keys() - {"maxage", "maxentries"}:
        raise InvalidInput(f"invalid builder.history: {given!r}", f"expected maxAge, maxEntries, not {min(unknown)!r}")
    entries = values.get("maxentries", 0)
    if not isinstance(entries, int) or isinstance(entries, bool) or entries < 0:
        raise InvalidInput(f"invalid builder.history.maxEntries: {entries!r}", "expected a number")
    return HistoryLimits(_parse_age(values.get("maxage", "0")), entries)


def _parse_age(value: Any) -> float:
    """A duration, or a number of seconds."""
    text = str(value)
    try:
        age_s = float(text) if text.isdecimal() else parse_duration(text) / 1e9
    except ValueError:
        age_s = -1
    if age_s < 0:
        raise InvalidInput(f"invalid builder.history.maxAge: {value!r}", "expected a duration such as 48h")
    return age_s


class Document(msgspec.Struct, frozen=True):
    """A descriptor of a record's document; `kind` is the type of an attestation's predicate."""

    media_type: str
    digest: Digest
    size: int
    kind: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One build. Times are seconds since the epoch; `completed_at` is 0 while it runs.

    `attributes` are the frontend's options, `exporters` pairs of type and attributes, `response` the exporters'
    metadata. `attestations` are by platform ("" if the build had one only).
    """

    ref: str
    created_at: float
    completed_at: float = 0
    frontend: str = ""
    attributes: dict[str, str] = {}
    exporters: list[tuple[str, dict[str, str]]] = []
    response: dict[str, str] = {}
    error_code: int = 0
    error: str = ""
    error_details: Document | None = None
    logs: Document | None = None
    attestations: dict[str, list[Document]] = {}
    steps: int = 0
    cached_steps: int = 0
    completed_steps: int = 0
    warnings: int = 0
    pinned: bool = False
    generation: int = 0

    def documents(self) -> Iterator[Document]:
        """All documents."""
        yield from (each for each in (self.logs, self.error_details) if each is not None)
        for each in self.attestations.values():
            yield from each


class StoredDocument(msgspec.Struct, frozen=True):
    """A document, compressed by zlib."""

    data: bytes


@dataclass(frozen=True)
class HistoryEvent:
    """A change: the record of a build that is RUNNING, has COMPLETED, or is GONE."""

    type: int
    record: Record


class Documents:
    """The documents of a record in the making."""

    def __init__(self) -> None:
        self.contents: dict[Digest, bytes] = {}

    def add(self, media_type: str, data: bytes, kind: str = "") -> Document:
        """Add one, and return its descriptor."""
        digest = digest_of(data)
        self.contents[digest] = data
        return Document(media_type, digest, len(data), kind)


class History:
    """All records."""

    def __init__(self, records: Table[Record], documents: Table[StoredDocument], limits: HistoryLimits) -> None:
        self._table = records
        self._documents = documents
        self._limits = limits
        self._running: dict[str, Record] = {}
        self._past: dict[str, Record] = {}
        self._listeners: set[asyncio.Queue[HistoryEvent]] = set()
        self._lock = asyncio.Lock()
        self._is_loaded = False

    def started(self, record: Record) -> None:
        """A build has begun."""
        self._running[record.ref] = record
        self._tell(RUNNING, record)

    async def completed(self, record: Record, documents: Documents) -> None:
        """A build has ended. Best effort: failures are logged, as no build is to fail for its record."""
        self._running.pop(record.ref, None)
        try:
            async with self._loaded():
                known = self._digests()
                rows = [(key, data) for key, data in documents.contents.items() if key not in known]
                stored = [(key, StoredDocument(await in_thread(zlib.compress, data))) for key, data in rows]
                # of one turn of the loop, so written in one transaction
                await asyncio.gather(
                    *(self._documents.put(key, each, lazily=True) for key, each in stored),
                    self._table.put(record.ref, record, lazily=True),
                )
                self._past[record.ref] = record
                await self._remove(plan_removal(list(self._past.values()), self._limits))
        except HavreError as error:
            log.warning("cannot record the build %s: %s", record.ref, error)
        self._tell(COMPLETED, record)

    async def records(self, ref: str = "") -> list[Record]:
        """The record of `ref`, or those of all builds that have ended, oldest first."""
        async with self._loaded():
            found = [record for record in self._past.values() if ref in ("", record.ref)]
        return sorted(found, key=lambda record: record.created_at)

    def running(self, ref: str = "") -> list[Record]:
        """The record of `ref`, or those of all builds that run."""
        return [record for record in self._running.values() if ref in ("", record.ref)]

    async def describe(self, digest: str) -> Document:
        """The document with this digest. Raises `NotFound`."""
        for record in await self.records():
            for document in record.documents():
                if document.digest == digest:
                    return document
        raise NotFound(f"content {digest}: not found")

    async def read(self, document: Document) -> bytes:
        """The content of a document. Raises `NotFound`."""
        if (stored := await self._documents.get(document.digest)) is None:
            raise NotFound(f"content {document.digest}: not found")
        return await in_thread(zlib.decompress, stored.data)

    async def pin(self, ref: str, pinned: bool) -> None:
        """Keep a record until it is removed, or no longer. Raises `NotFound`."""
        async with self._loaded():
            record = self._find(ref)
            record = msgspec.structs.replace(record, pinned=pinned, generation=record.generation + 1)
            await self._table.put(ref, record)
            self._past[ref] = record
        self._tell(COMPLETED, record)

    async def remove(self, ref: str) -> None:
        """Delete a record. Raises `NotFound`."""
        async with self._loaded():
            await self._remove([self._find(ref)])

    @contextmanager
    def listening(self) -> Iterator[AsyncIterator[HistoryEvent]]:
        """All changes from now on, in a block."""
        queue: asyncio.Queue[HistoryEvent] = asyncio.Queue()
        self._listeners.add(queue)

        async def events() -> AsyncIterator[HistoryEvent]:
            while True:
                yield await queue.get()

        try:
            yield events()
        finally:
            self._listeners.discard(queue)

    @asynccontextmanager
    async def _loaded(self) -> AsyncIterator[None]:
        """Hold the lock during a block, in which the rows have been read."""
        async with self._lock:
            if not self._is_loaded:
                self._past = await self._table.all()
                for key in list(self._table.damaged):
                    await self._table.delete(key)
                self._is_loaded = True
            yield

    def _find(self, ref: str) -> Record:
        if (record := self._past.get(ref)) is None:
            raise NotFound(f"no build record {ref}")
        return record

    def _tell(self, type: int, record: Record) -> None:
        for queue in self._listeners:
            queue.put_nowait(HistoryEvent(type, record))

    def _digests(self) -> set[Digest]:
        return {each.digest for record in self._past.values() for each in record.documents()}

    async def _remove(self, records: Sequence[Record]) -> None:
        """Remove records, and the documents that no other record refers to."""
        if not records:
            return
        before = self._digests()
        for record in records:
            del self._past[record.ref]
        await asyncio.gather(
            *(self._table.delete(record.ref, lazily=True) for record in records),
            *(self._documents.delete(digest, lazily=True) for digest in before - self._digests()),
        )
        for record in records:
            self._tell(GONE, record)


def plan_removal(records: Sequence[Record], limits: HistoryLimits) -> list[Record]:
    """The records that exceed the limits. Pure; the latest one tells the time."""
    now = max((each.completed_at for each in records), default=0)
    newest_first = sorted((each for each in records if not each.pinned), key=lambda each: -each.completed_at)
    gone, total = [], 0
    for number, record in enumerate(newest_first):
        total += sum(each.size for each in record.documents())
        is_old = number >= limits.max_entries and record.completed_at < now - limits.max_age_s
        if is_old or number >= MAX_RECORDS or total > MAX_BYTES:
            gone.append(record)
    return gone
