"""The records of builds: limits, and what a database keeps of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from havre.builds import history as room
from havre.builds.history import (
    COMPLETED,
    GONE,
    RUNNING,
    Document,
    Documents,
    History,
    HistoryLimits,
    Record,
    StoredDocument,
    parse_history_limits,
    plan_removal,
)
from havre.errors import InvalidInput, NotFound
from havre.oci.digest import Digest
from havre.storage.db import Database


@asynccontextmanager
async def opened(path: Path, limits: HistoryLimits = HistoryLimits()) -> AsyncIterator[History]:  # noqa: B008 - frozen
    """The history in a database."""
    database = await Database.open(path)
    try:
        table = database.table
        yield History(table("build_history", Record), table("build_documents", StoredDocument), limits)
    finally:
        await database.close()


def record(ref: str, ended: float, *, size: int = 0, pinned: bool = False) -> Record:
    """A build that took a second."""
    log = Document("text/plain", Digest(f"sha256:{ref}"), size)
    return Record(ref=ref, created_at=ended - 1, completed_at=ended, logs=log, pinned=pinned)


def refs(records: list[Record]) -> list[str]:
    """Their references."""
    return [each.ref for each in records]


def test_limits_of_the_file() -> None:
    assert parse_history_limits({}) == HistoryLimits(48 * 3600, 50)
    assert parse_history_limits({"history": {"maxAge": "1h", "maxEntries": 3}}) == HistoryLimits(3600, 3)
    assert parse_history_limits({"History": {"maxage": 90}}) == HistoryLimits(90, 0)


@pytest.mark.parametrize("given", [[], {"maxAge": "long"}, {"maxEntries": "1"}, {"maxEntries": -1}, {"keep": 1}])
def test_limits_that_are_refused(given: Any) -> None:
    with pytest.raises(InvalidInput, match=r"builder\.history"):
        parse_history_limits({"history": given})


def test_a_record_goes_when_it_is_both_old_and_not_among_the_newest() -> None:
    records = [record("a", 10), record("b", 20), record("c", 100), record("d", 30, pinned=True)]
    assert refs(plan_removal(records, HistoryLimits(50, 1))) == ["b", "a"]
    assert refs(plan_removal(records, HistoryLimits(50, 2))) == ["a"]
    assert refs(plan_removal(records, HistoryLimits(95, 0))) == []


def test_records_are_bounded_whatever_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record(str(number), number, size=10) for number in range(5)]
    monkeypatch.setattr(room, "MAX_RECORDS", 3)
    assert refs(plan_removal(records, HistoryLimits())) == ["1", "0"]
    monkeypatch.setattr(room, "MAX_BYTES", 20)
    assert refs(plan_removal(records, HistoryLimits())) == ["2", "1", "0"]


def test_what_outlives_the_daemon(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "db") as history:
            history.started(Record(ref="one", created_at=1))
            history.started(Record(ref="two", created_at=2))
            assert refs(history.running()) == ["one", "two"]
            documents = Documents()
            shared = documents.add("text/plain", b"log", "kind")
            for ref, at in (("one", 1.0), ("three", 3.0)):
                await history.completed(Record(ref=ref, created_at=at, completed_at=at + 1, logs=shared), documents)
        async with opened(tmp_path / "db") as history:
            assert history.running() == []
            assert refs(await history.records()) == ["one", "three"]
            document = await history.describe(shared.digest)
            assert document == Document("text/plain", shared.digest, 3, "kind")
            assert await history.read(document) == b"log"
            await history.remove("one")
            assert await history.read(document) == b"log"
            await history.remove("three")
            with pytest.raises(NotFound):
                await history.read(document)
            with pytest.raises(NotFound):
                await history.describe(shared.digest)
            with pytest.raises(NotFound):
                await history.pin("one", pinned=True)

    asyncio.run(work())


def test_changes_are_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "db", HistoryLimits(0, 1)) as history:
            with history.listening() as changes:
                old, new = record("old", 10), record("new", 20)
                for each in (old, new):
                    history.started(msgspec.structs.replace(each, completed_at=0))
                    await history.completed(each, Documents())
                await history.pin("new", pinned=True)
                told = [await anext(changes) for _ in range(6)]
            assert [(each.type, each.record.ref) for each in told] == [
                (RUNNING, "old"), (COMPLETED, "old"), (RUNNING, "new"), (GONE, "old"), (COMPLETED, "new"),
                (COMPLETED, "new"),
            ]  # fmt: skip
            assert (told[-1].record.pinned, told[-1].record.generation) == (True, 1)

    asyncio.run(work())
