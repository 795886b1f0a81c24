"""Migrations: each turns old rows into new ones; the database is migrated before it is read, and a copy of it kept."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from havre.containers.container import Container, State
from havre.errors import Failed, Unsupported
from havre.images.catalog import NameRow
from havre.storage.db import SCHEMA_VERSION, Database
from havre.storage.migrations import MIGRATIONS, Migration


class Old(msgspec.Struct):
    name: str


class New(msgspec.Struct):
    first: str
    last: str


def split(_: str, row: dict[str, Any]) -> dict[str, Any] | None:
    first, last = row["name"].split(" ")
    return {"first": first, "last": last} if last else None


STEPS = (
    *MIGRATIONS,
    Migration(SCHEMA_VERSION + 1, "two names", {"people": split, "absent": split}),
    Migration(SCHEMA_VERSION + 2, "loud", {"people": lambda _, row: {**row, "last": row["last"].upper()}}),
)
ROWS = {"a": Old("Ada Lovelace"), "b": Old("Alan Turing"), "gone": Old("Nobody ")}


def version_of(path: Path) -> int:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(version)


async def write(path: Path) -> None:
    database = await Database.open(path)
    for key, row in ROWS.items():
        await database.table("people", Old).put(key, row)
    await database.close()


async def read(path: Path) -> dict[str, New]:
    database = await Database.open(path, STEPS)
    try:
        return await database.table("people", New).all()
    finally:
        await database.close()


def test_numbers_are_without_gaps() -> None:
    assert [migration.to for migration in MIGRATIONS] == list(range(2, SCHEMA_VERSION + 1))


def test_version_2_names_with_an_index() -> None:
    change = MIGRATIONS[0].tables["image_names"]
    assert change("docker.io/library/a:b", {"image": "sha256:0"}) == {"image": "sha256:0", "index": ""}
    assert msgspec.convert(change("", {"image": "sha256:0"}), NameRow) == NameRow("sha256:0")


def test_version_3_states_without_flags() -> None:
    change = MIGRATIONS[1].tables["containers"]
    flags = {"Running": True, "Paused": True, "Restarting": False, "Dead": False}
    old = {"Id": "x", "State": {"Status": "paused", **flags, "Pid": 7}}
    new = change("x", old)
    assert new == {"Id": "x", "State": {"Status": "paused", "Pid": 7}}
    assert new is not None
    assert msgspec.convert(new["State"], State).paused
    with pytest.raises(KeyError):  # a damaged row: it is left as it is
        change("x", {"Id": "x"})


def test_version_4_rows_of_containers_in_three_values() -> None:
    change = MIGRATIONS[2].tables["containers"]
    front, known = {"front": {"Aliases": ["a"]}}, {"front": {"NetworkID": "f"}}
    asked = {"Id": "x", "Created": "t", "Image": "i", "Path": "p", "Args": [], "Config": {}, "HostConfig": {}}
    old = {**asked, "Name": "n", "Networks": known, "AskedNetworks": front, "Runtime": "runc", "RestartCount": 2}
    new = change("x", old | {"State": {"Status": "exited"}, "Ports": {"80/tcp": None}})
    row = msgspec.convert(new, Container)
    assert (row.name, row.id, row.state.status, row.restart_count) == ("n", "x", "exited", 2)
    assert row.spec.networks["front"].aliases == ["a"]
    assert row.run.networks["front"].network_id == "f"
    assert row.run.ports == {"80/tcp": None}


def test_rows_go_through_every_step_and_a_copy_is_kept(tmp_path: Path) -> None:
    path, kept = tmp_path / "db", tmp_path / f"db.v{SCHEMA_VERSION}-before"
    asyncio.run(write(path))
    expected = {"a": New("Ada", "LOVELACE"), "b": New("Alan", "TURING")}
    assert asyncio.run(read(path)) == expected
    assert asyncio.run(read(path)) == expected
    assert version_of(path) == SCHEMA_VERSION + 2
    assert version_of(kept) == SCHEMA_VERSION
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with pytest.raises(Unsupported, match="newer havre") as refused:
        asyncio.run(write(path))
    assert str(kept) in str(refused.value.hint)
    for name in ("db", "db-wal", "db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    kept.rename(path)  # as the hint says
    asyncio.run(write(path))
    assert asyncio.run(read(path)) == expected


def test_a_new_database_has_no_copy(tmp_path: Path) -> None:
    assert asyncio.run(read(tmp_path / "db")) == {}
    assert list(tmp_path.glob("*before*")) == []
    assert version_of(tmp_path / "db") == SCHEMA_VERSION + 2


def test_a_row_that_cannot_be_changed_is_left_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(write(tmp_path / "db"))
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("UPDATE people SET value = '{' WHERE key = 'a'")
        db.execute("UPDATE people SET value = '{\"name\":5}' WHERE key = 'b'")
    db.close()
    with caplog.at_level(logging.ERROR):
        assert asyncio.run(read(tmp_path / "db")) == {}
    assert caplog.text.count("damaged and left as it is") >= 2


def test_where_no_copy_can_be_made_nothing_is_changed(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path / "db"))
    (tmp_path / f"db.v{SCHEMA_VERSION}-before.tmp").mkdir()
    with pytest.raises(Failed, match="opening"):
        asyncio.run(read(tmp_path / "db"))
    assert version_of(tmp_path / "db") == SCHEMA_VERSION
