"""The daemon killed at each step of a migration: the database is the old one or the new one, and nothing is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from havre.failpoints import POINTS

PROGRAM = """
import asyncio, sys
from pathlib import Path
import msgspec
from havre.storage.db import Database
from havre.storage.migrations import MIGRATIONS, Migration

Row = msgspec.defstruct("Row", [("value", int)])
LAST = MIGRATIONS[-1].to

def later(_, row):
    return {"value": row["value"] + 1}

async def main(path, steps):
    added = [Migration(LAST + each, "", {"things": later}) for each in range(1, steps + 1)]
    database = await Database.open(path, [*MIGRATIONS, *added])
    table = database.table("things", Row)
    if not steps:
        for number in range(100):
            await table.put(str(number), Row(0), lazily=True)
        await table.put("last", Row(0))
    print(sorted({row.value for row in (await table.all()).values()}), len(await table.all()))
    await database.close()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def migrated(path: Path, steps: int, traps: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(steps)],
        env={**os.environ, "HAVRE_FAILPOINTS": traps},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("point", [name for name in POINTS if name.startswith("migration.")])
def test_killed_in_a_migration(tmp_path: Path, point: str) -> None:
    path = tmp_path / "havre.db"
    assert migrated(path, 0).stdout == "[0] 101\n"
    assert migrated(path, 2, f"{point}=kill").returncode == -signal.SIGKILL
    copies = [kept for kept in tmp_path.iterdir() if kept.name.endswith("-before")]
    assert bool(copies) == (point != "migration.copying")
    for kept in copies:
        with sqlite3.connect(kept) as db:
            assert db.execute("SELECT count(*) FROM things WHERE value = ?", (b'{"value":0}',)).fetchone() == (101,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
    done = migrated(path, 2)
    assert done.stdout == "[2] 101\n", done.stderr
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []
