"""How much room there is, by what file systems say of themselves."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from havre.linux import room


@pytest.mark.parametrize(
    ("told", "anybody", "root"),
    [
        ({"f_blocks": 100_000, "f_bfree": 9_000, "f_bavail": 4_000}, 4_000, 7_000),  # ext4: 5% root's, 2% its own
        ({"f_blocks": 100_000, "f_bfree": 5_000, "f_bavail": 0}, 0, 3_000),
        ({"f_blocks": 100_000, "f_bfree": 2_000, "f_bavail": 0}, 0, 0),
        ({"f_blocks": 10_000_000, "f_bfree": 4_096, "f_bavail": 0}, 0, 0),
        ({"f_blocks": 100_000, "f_bfree": 50, "f_bavail": 50}, 50, 50),  # tmpfs, xfs
    ],
)
def test_what_anybody_and_root_can_write(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, int], anybody: int, root: int
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_frsize=4096, f_files=1, f_ffree=0, **told))
    assert room.free_bytes(Path("/data")) == anybody * 4096
    assert room.free_bytes_of_root(Path("/data")) == root * 4096


@pytest.mark.parametrize(
    ("files", "free", "words"), [(0, 0, "is full"), (1000, 0, "has no inodes left"), (1000, 1, "is full")]
)
def test_the_hint_names_what_is_full(monkeypatch: pytest.MonkeyPatch, files: int, free: int, words: str) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=files, f_ffree=free))
    error = OSError(errno.ENOSPC, "No space left on device", "/data/volumes/vol")
    assert (room.hint_when_full(error) or "").startswith(f"the file system of /data/volumes {words}: free some space")
    assert room.hint_when_full(OSError(errno.EIO, "Input/output error")) is None


def test_a_file_system_without_a_size_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(f_frsize=4096, f_blocks=0, f_bfree=0, f_bavail=0)  # ramfs
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    assert min(room.free_bytes(Path("/data")), room.free_bytes_of_root(Path("/data"))) > 1 << 60
