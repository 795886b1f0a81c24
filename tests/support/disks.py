"""Daemons whose data root is a small file system of its own, to be filled or to lose power."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.engines import Engine, Havred


def mount_tmpfs(at: Path, mebibytes: int) -> None:
    """Mount a tmpfs of that size."""
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "havre-test", str(at)], check=True)


def make_ext4(disk: Path, mebibytes: int) -> None:
    """Make a file with an ext4 file system."""
    with disk.open("wb") as file:
        file.truncate(mebibytes << 20)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)


def mount_disk(disk: Path, at: Path) -> None:
    """Mount the file system in a file."""
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(at)], check=True)


@contextmanager
def serving_on(mount: Callable[[Path], None], archive: Path) -> Iterator[Engine]:
    """Our daemon, whose data root `mount` has mounted at the path that it is given."""
    engine = Havred()
    data = engine.root / "data"
    mount(data)
    try:
        engine.open()
        engine.docker("load", "-i", str(archive), check=0)
        yield engine
    finally:
        if engine.running and (ids := engine.docker("ps", "-aq").stdout.split()):
            engine.docker("rm", "-f", *ids)
        engine.stop()
        subprocess.run(["umount", str(data)], check=True)
        engine.close()
