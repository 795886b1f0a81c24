"""How much room a file system has left, and what to say where it has none.

A daemon that is root may use the blocks that ext4 keeps for root: what counts is `f_bfree`. Some file systems (btrfs,
those of FUSE) have no fixed number of inodes and say 0 of 0.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


def free_bytes(path: Path) -> int:
    """Bytes that can still be written to the file system of `path`."""
    status = os.statvfs(path)
    return status.f_bfree * status.f_frsize


def lacks_inodes(path: Path) -> bool:
    """Whether no file can be made there, however small."""
    status = os.statvfs(path)
    return status.f_files > 0 and status.f_ffree == 0


def is_full(error: OSError) -> bool:
    """Whether this is what a full file system, or a full quota, answers."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def hint_when_full(error: OSError, path: Path) -> str | None:
    """What to do about `error`, if a full file system at `path` is the cause."""
    return full_hint(path) if is_full(error) else None


def full_hint(path: Path) -> str:
    """Which file system is full, and what helps."""
    try:
        what = "has no inodes left" if lacks_inodes(path) else "is full"
    except OSError:
        what = "is full"
    return f"the file system of {path} {what}: free some space there (`system df` shows what takes it) and try again"
