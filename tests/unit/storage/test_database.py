"""The database: documents in and out, concurrent writers, what it refuses to open."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from havre.errors import Failed, InvalidInput, Unavailable, Unsupported
from havre.storage.db import SCHEMA_VERSION, Database


class Row(msgspec.Struct, rename="pascal"):
    name: str
    labels: dict[str, str] | None = None


class Wider(msgspec.Struct, rename="pascal"):
    name: str
    added: int = 7


def test_documents_come_back_as_they_went(tmp_path: Path) -> None:
    async def work() -> None:
        database = await Database.open(tmp_path / "db")
        table = database.table("things", Row)
        assert await table.all() == {}
        await table.delete("absent")
        await table.put("b", Row("two", {"ü": "\n"}))
        await table.put("a", Row("one"))
        await table.put("a", Row("uno"))
        await database.close()

        database = await Database.open(tmp_path / "db")
        assert list((await database.table("things", Row).all()).items()) == [
            ("a", Row("uno")),
            ("b", Row("two", {"ü": "\n"})),
        ]
        assert await database.table("things", Wider).all() == {"a": Wider("uno"), "b": Wider("two")}
        await database.table("things", Row).delete("a")
        assert list(await database.table("things", Row).all()) == ["b"]
        assert await database.table("others", Row).all() == {}
        await database.close()
        await database.close()

    asyncio.run(work())
    assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o600


def test_what_is_written_is_the_value_at_the_call(tmp_path: Path) -> None:
    async def work() -> dict[str, Row]:
        database = await Database.open(tmp_path / "db")
        table, row = database.table("things", Row), Row("before")
        writing = asyncio.ensure_future(table.put("k", row))
        await asyncio.sleep(0)
        row.name = "after"
        await writing
        found = await table.all()
        await database.close()
        return found

    assert asyncio.run(work()) == {"k": Row("before")}


def test_a_burst_is_written_in_order(tmp_path: Path) -> None:
    async def work() -> tuple[dict[str, Row], int]:
        database = await Database.open(tmp_path / "db")
        table = database.table("things", Row)
        await asyncio.gather(*(table.put(str(n % 10), Row(str(n))) for n in range(500)))
        doomed = asyncio.ensure_future(table.put("cancelled", Row("x")))
        await asyncio.sleep(0)
        doomed.cancel()
        found = await table.all()
        await database.close()
        return found, len(found)

    found, _ = asyncio.run(work())
    assert {key: row.name for key, row in found.items() if key.isdigit()} == {str(n): str(490 + n) for n in range(10)}


def test_what_was_put_outlives_a_kill(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, sys, msgspec\n"
        "from pathlib import Path\n"
        "from havre.storage.db import Database\n"
        "Row = msgspec.defstruct('Row', [('Name', str)])\n"
        "async def main():\n"
        "    table = (await Database.open(Path(sys.argv[1]))).table('things', Row)\n"
        "    await table.put('k', Row('committed'))\n"
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "db")], check=False)
    assert killed.returncode == 9

    async def read() -> dict[str, Row]:
        database = await Database.open(tmp_path / "db")
        found = await database.table("things", Row).all()
        await database.close()
        return found

    assert asyncio.run(read()) == {"k": Row("committed")}


def _open(path: Path) -> None:
    async def work() -> None:
        await (await Database.open(path)).close()

    asyncio.run(work())


def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    _open(tmp_path / "db")
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(Unsupported, match="newer havre"):
        _open(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == before


def test_an_older_database_is_read_and_marked(tmp_path: Path) -> None:
    async def work(write: bool) -> dict[str, Row]:
        database = await Database.open(tmp_path / "db")
        if write:
            await database.table("things", Row).put("k", Row("kept"))
        found = await database.table("things", Row).all()
        await database.close()
        return found

    asyncio.run(work(write=True))
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert asyncio.run(work(write=False)) == {"k": Row("kept")}
    with sqlite3.connect(tmp_path / "db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    db.close()


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(Failed, match="not a database of havre"):
        _open(tmp_path / "db")


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read as one" * 100])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(Failed, match="opening"):
        _open(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == content


@pytest.mark.parametrize("value", [b"{", b"\xff", b"[]", b'{"Name": "x"}', "text", 5])
def test_a_damaged_row_is_told_and_spoils_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: bytes | str | int
) -> None:
    async def work() -> None:
        database = await Database.open(tmp_path / "db")
        number = database.table("things", msgspec.defstruct("Number", [("Name", int)]))  # type: ignore[type-var]
        try:
            await number.put("a", number._decoder.decode(b'{"Name": 1}'))
            await number.put("b", number._decoder.decode(b'{"Name": 2}'))
            await database.submit(lambda db: db.execute("UPDATE things SET value = ? WHERE key = 'b'", (value,)))
            assert list(await number.all()) == ["a"]
            assert list(number.damaged) == ["b"]
            assert "row 'b' of table things" in caplog.text
            await number.delete("b")
            assert list(await number.all()) == ["a"]
            assert number.damaged == {}
        finally:
            await database.close()

    asyncio.run(work())


def test_after_closing_nothing_is_taken(tmp_path: Path) -> None:
    async def work() -> None:
        database = await Database.open(tmp_path / "db")
        table = database.table("things", Row)
        last = asyncio.ensure_future(table.put("k", Row("written")))
        await asyncio.sleep(0)
        await database.close()
        await last
        with pytest.raises(Unavailable):
            await table.put("k", Row("late"))

    asyncio.run(work())


def test_names_of_tables_are_plain(tmp_path: Path) -> None:
    async def work() -> None:
        database = await Database.open(tmp_path / "db")
        try:
            for name in ("", "a b", 'a"; DROP TABLE b; --', "A", "sqlite-x"):
                with pytest.raises(InvalidInput):
                    database.table(name, Row)
        finally:
            await database.close()

    asyncio.run(work())


def test_a_full_disk_is_an_error_and_no_end(tmp_path: Path) -> None:
    async def work() -> None:
        database = await Database.open(tmp_path / "db")
        table = database.table("things", Row)
        await table.put("k", Row("small"))
        await database.submit(lambda db: db.execute("PRAGMA max_page_count = 8").fetchall())
        with pytest.raises(Failed, match="no space left on device"):
            await table.put("big", Row("x" * (2 << 20)))
        await table.put("k", Row("still works"))
        assert await table.all() == {"k": Row("still works")}
        await database.close()

    asyncio.run(work())
    left = {"db", "reserve", *(("db-shm", "db-wal") if sys.version_info >= (3, 12) else ())}
    assert set(os.listdir(tmp_path)) == left


def test_what_cannot_be_written_is_refused_and_others_are_served(tmp_path: Path) -> None:
    """Whatever a write fails by, the writer goes on: an end of it would leave every client waiting."""

    async def work() -> dict[str, Row]:
        database = await Database.open(tmp_path / "db")
        table = database.table("things", Row)
        with pytest.raises(Failed, match="surrogates not allowed"):
            await asyncio.wait_for(table.put("\udc80", Row("x")), 10)
        await asyncio.wait_for(table.put("a", Row("one")), 10)
        found = await table.all()
        await database.close()
        return found

    assert asyncio.run(work()) == {"a": Row("one")}
