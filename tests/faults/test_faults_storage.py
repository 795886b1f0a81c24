"""The daemon killed in the middle of each step of a snapshot's and a volume's life: then nothing is lost or left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from havre.events import Events
from havre.linux import mounts
from havre.storage import Storage
from support.volumes import open_volumes

BUSY = """
import asyncio, os, sys
from pathlib import Path
from havre.events import Events
from havre.storage import Storage
sys.path.insert(0, sys.argv[4])
from support import tars
from support.volumes import open_volumes

async def main(data, run, driver):
    storage = await Storage.open(data, run, driver=driver)
    volumes = open_volumes(data / "volumes", storage.db, Events())
    await volumes.load()
    files = b"".join(tars.member(b"d/f%d" % n, os.urandom(2000)) for n in range(100))
    async with storage.layers.ingest() as sink:
        await sink.write(files + tars.END)
        layer = (await sink.finish()).diff_id
    await storage.snapshots.create("kept", [layer])
    (await storage.snapshots.mount("kept") / "precious").write_text("still here")
    await storage.snapshots.unmount("kept")

    async def life(id):
        for step in (
            storage.snapshots.create(id, [layer]), storage.snapshots.mount(id), volumes.create(id),
            volumes.mount_for(id, id),
        ):
            print("step", flush=True)
            root = await step
        rootfs = await storage.snapshots.mount(id)
        for step in (
            volumes.fill(id, rootfs, "/d"), storage.snapshots.changes(id), storage.snapshots.unmount(id),
            volumes.release(id), volumes.remove(id), storage.snapshots.remove(id),
        ):
            print("step", flush=True)
            await step

    number = 0
    while True:
        await asyncio.gather(*(life(f"c{number}x{each}") for each in range(3)))
        number += 1

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
"""


@pytest.mark.parametrize("driver", ["erofs", "overlay", "copy"])
def test_killed_anywhere_it_recovers(tmp_path: Path, driver: str) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    support = str(Path(__file__).parents[1])
    try:
        for steps in range(1, 60, 7):
            _run_and_kill([sys.executable, "-c", BUSY, str(data), str(run), driver, support], steps)
            asyncio.run(_recover(data, run, driver))
            assert mounts.mounts_below(tmp_path) == []
            assert os.listdir(data / "snapshots") == os.listdir(run / "snapshots") == []
            assert os.listdir(data / "volumes") == os.listdir(data / "layers") == []
    finally:
        for entry in reversed(mounts.mounts_below(tmp_path)):
            mounts.unmount_all(entry.target)


def _run_and_kill(command: list[str], steps: int) -> None:
    """Kill it the moment it begins its `steps`-th step."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(steps):
            assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGKILL)


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
from havre.events import Events
from havre.storage import Storage
sys.path.insert(0, sys.argv[2])
from support.volumes import open_volumes

async def main(data):
    storage = await Storage.open(data, data / "run", driver="copy")
    volumes = open_volumes(data / "volumes", storage.db, Events())
    await volumes.load()
    (name,) = [volume.name for volume in (await volumes.list({}))[0]]
    while True:
        new = "ab" if name == "ba" else "ba"
        print("step", flush=True)
        await volumes.rename(name, new)
        name = new

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
    for steps in range(1, 12, 2):
        _run_and_kill([sys.executable, "-c", RENAME, str(tmp_path), support], steps)
        asyncio.run(look())
