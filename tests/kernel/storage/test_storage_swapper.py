"""CVE-2021-32760, CVE-2025-47290: someone swaps a directory for a link while a layer is being unpacked into it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from havre.errors import HavreError
from havre.storage.unpack import Unpacker
from havre.tar.reader import Data, TarParser
from support import tars

LAYER = b"".join(
    tars.directory(b"d/sub%d" % (n % 7), mode=0o777)
    + tars.member(b"d/file%d" % n, b"evil", mode=0o6777)
    + tars.member(b"d/sub%d/node" % (n % 7), flag=b"6")
    + tars.member(b"d/.wh.%d" % n)
    + tars.member(b"e%d/f" % (n % 70), b"x")  # so that no parent stays cached
    for n in range(100)
)


def unpack(root: Path) -> None:
    unpacker, parser = Unpacker(root), TarParser(data=True)
    try:
        for event in parser.feed(LAYER):
            if isinstance(event, Data):
                unpacker.data(event)
            else:
                unpacker.add(event)
        unpacker.finish()
    finally:
        unpacker.close()


def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    for n in range(7):
        (outside / f"sub{n}").mkdir(mode=0o700)
    before = _state(outside)
    done = threading.Event()

    def swap(directory: Path) -> None:
        while not done.is_set():
            with suppress(OSError):
                directory.rename(directory.with_name("aside"))
                directory.symlink_to(outside)
            with suppress(OSError):
                directory.unlink()
            with suppress(OSError):
                directory.with_name("aside").rename(directory)

    for attempt in range(15):
        root = tmp_path / f"root{attempt}"
        root.mkdir()
        done.clear()
        swapper = threading.Thread(target=swap, args=(root / "d",))
        swapper.start()
        try:
            with suppress(HavreError, OSError):
                unpack(root)
        finally:
            done.set()
            swapper.join()
    assert _state(outside) == before


def _state(directory: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for parent, directories, files in os.walk(directory):
        for name in ["", *directories, *files]:
            status = os.lstat(os.path.join(parent, name))
            found.append((os.path.join(parent, name), status.st_mode, status.st_uid, status.st_mtime_ns))
    return sorted(found)
