"""The daemon killed at each step of a snapshot's and a volume's life: then nothing is lost or left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.events import Events
from havre.failpoints import POINTS
from havre.linux import mounts
from havre.storage import Storage
from support.volumes import open_volumes

LIFE = """
import asyncio, sys
from pathlib import Path
from havre import failpoints
from havre.events import Events
from havre.storage import Storage
sys.path.insert(0, sys.argv[4])
from support import tars
from support.volumes import open_volumes

async def main(data, run, driver):
    storage = await Storage.open(data, run, driver=driver)
    volumes = open_volumes(data / "volumes", storage.db, Events())
    await volumes.load()
    files = b"".join(tars.member(b"d/f%d" % n, b"x" * 2000) for n in range(100))

    async def ingest(data):
        async with storage.layers.ingest() as sink:
            await sink.write(data + tars.END)
            return (await sink.finish()).diff_id

    base = await ingest(tars.member(b"d/base", b"x"))
    await storage.snapshots.create("kept", [base])
    (await storage.snapshots.mount("kept") / "precious").write_text("still here")
    await storage.snapshots.unmount("kept")
    await volumes.create("full")

    failpoints.arm(f"{sys.argv[5]}=kill")
    layer = await ingest(files)
    await storage.snapshots.create("life", [layer])
    rootfs = await storage.snapshots.mount("life")
    await volumes.create("life")
    await volumes.mount_for("life", "life")
    await volumes.fill("life", rootfs, "/d")
    await storage.snapshots.changes("life")
    await storage.snapshots.unmount("life")
    await volumes.release("life")
    await volumes.remove("life")
    await storage.snapshots.remove("life")
    await storage.snapshots.unmount_layer(layer)
    await storage.layers.remove(layer)
    print("survived", flush=True)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
"""


_RENAMES = ("volume.marked", "volume.renamed")


def _points(driver: str) -> Iterator[str]:
    """The steps that a life passes with this driver."""
    for name in POINTS:
        if name.startswith(("layer.", "snapshot.", "volume.")) and name not in _RENAMES:
            if name == "snapshot.layers-mounted" and driver == "copy":
                continue  # it mounts none
            if driver == "erofs" or name.startswith("snapshot."):
                yield name


@pytest.mark.parametrize("driver", ["erofs", "overlay", "copy"])
def test_killed_at_each_step_it_recovers(tmp_path: Path, driver: str) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    support = str(Path(__file__).parents[1])
    try:
        for point in _points(driver):
            _killed_at(point, [sys.executable, "-c", LIFE, str(data), str(run), driver, support, point])
            asyncio.run(_recover(data, run, driver))
            assert mounts.mounts_below(tmp_path) == [], point
            assert os.listdir(data / "snapshots") == os.listdir(run / "snapshots") == [], point
            assert os.listdir(data / "volumes") == os.listdir(data / "layers") == [], point
    finally:
        for entry in reversed(mounts.mounts_below(tmp_path)):
            mounts.unmount_all(entry.target)


def _killed_at(point: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, f"{point} was not passed: {done.stdout}{done.stderr}"


async def _recover(data: Path, run: Path, driver: str) -> None:
    """Start anew: what was finished before is whole, everything else can be removed to the last byte."""
    storage = await Storage.open(data, run, driver=driver)
    volumes = open_volumes(data / "volumes", storage.db, Events())
    await volumes.load()
    await storage.snapshots.recover(in_use=(), known={"kept"})
    assert os.listdir(data / "snapshots") == ["kept"]
    assert (await storage.snapshots.mount("kept") / "precious").read_text() == "still here"
    for volume in (await volumes.list({}))[0]:
        assert len(os.listdir(volume.mountpoint)) in (0, 100), "a volume is filled whole or not at all"
        await volumes.remove(volume.name)
    await storage.snapshots.remove("kept")
    for layer in storage.layers.all():
        await storage.snapshots.unmount_layer(layer.diff_id)
        await storage.layers.remove(layer.diff_id)
    await storage.close()


RENAME = """
import asyncio, sys
from pathlib import Path
from havre import failpoints
from havre.events import Events
from havre.storage import Storage
sys.path.insert(0, sys.argv[2])
from support.volumes import open_volumes

async def main(data):
    storage = await Storage.open(data, data / "run", driver="copy")
    volumes = open_volumes(data / "volumes", storage.db, Events())
    await volumes.load()
    (name,) = [volume.name for volume in (await volumes.list({}))[0]]
    failpoints.arm(f"{sys.argv[3]}=kill")
    await volumes.rename(name, "ab" if name == "ba" else "ba")

asyncio.run(main(Path(sys.argv[1])))
"""


def test_killed_in_a_rename_one_name_has_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def look(make: bool = False) -> None:
        storage = await Storage.open(tmp_path, tmp_path / "run", driver="copy")
        volumes = open_volumes(tmp_path / "volumes", storage.db, Events())
        await volumes.load()
        if make:
            volume, _ = await volumes.create("ab", labels={"team": "x"})
            (Path(volume.mountpoint) / "precious").write_text("still here")
        (volume,) = (await volumes.list({}))[0]
        assert volume.name in ("ab", "ba")
        assert volume.labels == {"team": "x"}
        assert (Path(volume.mountpoint) / "precious").read_text() == "still here"
        assert os.listdir(tmp_path / "volumes") == [volume.name]
        assert os.listdir(tmp_path / "volumes" / volume.name) == ["_data"]
        assert "volume" not in caplog.text  # nothing to warn of: the rename is finished
        await storage.close()

    asyncio.run(look(make=True))
    support = str(Path(__file__).parents[1])
    for point in (*_RENAMES, "database.begin", "database.commit", "database.committed"):
        _killed_at(point, [sys.executable, "-c", RENAME, str(tmp_path), support, point])
        asyncio.run(look())
