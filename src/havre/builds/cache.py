"""The build cache: results of steps by content keys, so that a step with unchanged inputs is not run again.

    key = SHA-256 of [ kind of step, layers below, everything the step sees: command, environment, user, directory,
                       mounts, digests of all bytes it copies ]

A key never depends on a name that a client chose, nor on an image's history: only on layers in this store, and on all
inputs of the step (CVE-2024-24557). Secrets, SSH agents and proxies are not inputs. A record protects its layer from
garbage collection until `prune` removes the record. Rows are in the table `build_cache` and are all held in memory.

Why: docs/decisions/162.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set

import msgspec

from havre.errors import InvalidInput
from havre.golang.units import parse_duration
from havre.images.store import Table
from havre.oci.digest import Digest
from havre.storage import Storage
from havre.wire.filters import Filters, check_keys

# `system prune` sends label filters to every kind of object; records have no labels.
_KEPT_FILTERS = frozenset(
    {"id", "until", "type", "description", "inuse", "shared", "private", "unused-for", "parent", "label", "label!"}
)


LOCAL_SOURCE = "source.local"  # type of the records of kept contexts


class CacheRecord(msgspec.Struct, frozen=True):
    """A cached step. `layer` is "" if it changed no file; times are seconds since the epoch, sizes bytes."""

    id: str
    keys: tuple[str, ...]
    layer: str
    description: str
    created_at: float
    last_used_at: float
    uses: int = 1
    size: int = 0
    type: str = "regular"


def key_of(kind: str, layers: Sequence[Digest], *inputs: object) -> str:
    """The cache key of a step of this kind on these layers."""
    document = msgspec.json.encode([kind, layers, inputs], order="deterministic")
    return hashlib.sha256(document).hexdigest()


class Cache:
    """All records of the build cache."""

    def __init__(self, table: Table[CacheRecord], size_of: Callable[[Digest], int | None]) -> None:
        self._table = table
        self._size_of = size_of
        self._records: dict[str, CacheRecord] = {}
        self._by_key: dict[str, str] = {}

    @classmethod
    async def open(cls, storage: Storage) -> Cache:
        """The cache of the store's table, without records whose layers are missing."""

        def size_of(layer: Digest) -> int | None:
            found = storage.layers.get(layer)
            return None if found is None else found.size

        cache = cls(storage.db.table("build_cache", CacheRecord), size_of)
        await cache.load()
        return cache

    async def load(self) -> None:
        """Read all rows. Deletes those whose layer is missing."""
        for id, record in (await self._table.all()).items():
            if record.layer and self._size_of(Digest(record.layer)) is None:
                await self._table.delete(id)
            else:
                self._remember(record)
        for id in list(self._table.damaged):
            await self._table.delete(id)

    def live_layers(self) -> set[Digest]:
        """The layers that records refer to."""
        return {Digest(record.layer) for record in self._records.values() if record.layer}

    def all(self) -> list[CacheRecord]:
        """All records, oldest first."""
        return sorted(self._records.values(), key=lambda record: record.created_at)

    async def find(self, key: str) -> CacheRecord | None:
        """The record of `key`, or None. Updates its time of last use."""
        record = self._records.get(self._by_key.get(key, ""))
        if record is None or (record.layer and self._size_of(Digest(record.layer)) is None):
            return None
        record = msgspec.structs.replace(record, last_used_at=time.time(), uses=record.uses + 1)
        await self._put(record)
        return record

    async def keep(
        self, keys: Sequence[str], layer: Digest | None, description: str, created_at: float | None = None
    ) -> CacheRecord:
        """Record the result of a step, created now or at `created_at`. Keys move here from earlier records."""
        now = time.time()
        made = now if created_at is None else created_at
        size = (self._size_of(layer) or 0) if layer else 0
        record = CacheRecord(secrets.token_hex(16), tuple(keys), layer or "", description, made, now, 1, size)
        for key in keys:
            if (older := self._records.get(self._by_key.get(key, ""))) is not None:
                await self._drop_key(older, key)
        await self._put(record)
        return record

    def has(self, key: str) -> bool:
        """Report whether there is a record of the key."""
        return key in self._by_key

    async def also(self, known: str, key: str) -> None:
        """Add a key to the record of the key `known`, if there is one."""
        record = self._records.get(self._by_key.get(known, ""))
        if record is not None and key not in record.keys:
            await self._put(msgspec.structs.replace(record, keys=(*record.keys, key)))

    async def forget(self, ids: Collection[str]) -> None:
        """Delete the records with these IDs. Idempotent."""
        for id in ids:
            if (record := self._records.get(id)) is not None:
                await self._forget(record)

    def _remember(self, record: CacheRecord) -> None:
        self._records[record.id] = record
        self._by_key |= dict.fromkeys(record.keys, record.id)

    async def _put(self, record: CacheRecord) -> None:
        await self._table.put(record.id, record, lazily=True)
        self._remember(record)

    async def _drop_key(self, record: CacheRecord, key: str) -> None:
        keys = tuple(each for each in record.keys if each != key)
        if keys:
            await self._put(msgspec.structs.replace(record, keys=keys))
        else:
            await self._forget(record)

    async def _forget(self, record: CacheRecord) -> None:
        await self._table.delete(record.id)
        self._records.pop(record.id, None)
        for key in record.keys:
            if self._by_key.get(key) == record.id:
                del self._by_key[key]


def plan_prune(
    records: Sequence[CacheRecord], filters: Filters, *, all: bool, keep_bytes: int, used: Set[Digest]
) -> list[CacheRecord]:
    """The records to delete, least recently used first, until `keep_bytes` are left. Pure.

    Without `all`, keeps records whose layer an image uses, because deleting them would free nothing, and cache mounts.
    """
    chosen = _selected(records, filters, used)
    if not all:
        chosen = [
            record for record in chosen if record.type in ("regular", LOCAL_SOURCE) and Digest(record.layer) not in used
        ]
    left = sum(record.size for record in records)
    gone: list[CacheRecord] = []
    for record in sorted(chosen, key=lambda record: record.last_used_at):
        if keep_bytes and left <= keep_bytes:
            break
        gone.append(record)
        left -= record.size
    return gone


def _selected(records: Sequence[CacheRecord], filters: Filters, used: Set[Digest]) -> list[CacheRecord]:
    check_keys(filters, _KEPT_FILTERS)
    tests: Mapping[str, Callable[[CacheRecord, str], bool]] = {
        "id": lambda record, value: record.id.startswith(value),
        "type": lambda record, value: record.type == value,
        "description": lambda record, value: value in record.description,
        "inuse": lambda record, value: (Digest(record.layer) in used) == _is_true(value),
        "shared": lambda record, value: (Digest(record.layer) in used) == _is_true(value),
        "private": lambda record, value: (Digest(record.layer) not in used) == _is_true(value),
        "parent": lambda record, value: False,
        "label": lambda record, value: False,
        "label!": lambda record, value: True,
        "until": lambda record, value: record.last_used_at < _age_limit(value),
        "unused-for": lambda record, value: record.last_used_at < _age_limit(value),
    }
    return [
        record
        for record in records
        if all(any(tests[key](record, value) for value in values) for key, values in filters.items())
    ]


def _is_true(value: str) -> bool:
    return value.lower() in ("1", "true", "t")


def _age_limit(value: str) -> float:
    """A time in seconds since the epoch; docker's client sends `until` as a duration (24h) or as such a number."""
    try:
        if value.replace(".", "", 1).isdecimal():
            return float(value)
        return time.time() - parse_duration(value) / 1e9
    except ValueError:
        raise InvalidInput(f"invalid filter 'until={value}'", "expected a duration such as 24h") from None
