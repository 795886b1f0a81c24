"""How much room a file system has left, and what to say where it has none.

Of ext4's blocks 5% are root's, and up to 2% (4,096 at most) its own, for metadata: `f_bavail` counts neither, `f_bfree`
both. Some file systems (btrfs, those of FUSE) have no fixed number of inodes and say 0 of 0.
Source: statvfs(3); tune2fs(8), "-m"; Documentation/admin-guide/ext4.rst, "reserved_clusters".
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path


def free_bytes(path: Path) -> int:
    """Bytes that anybody can still write to the file system of `path`; sys.maxsize where it has no size (ramfs)."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize if status.f_blocks else sys.maxsize


def free_bytes_of_root(path: Path) -> int:
    """Bytes that root can still write there."""
    status = os.statvfs(path)
    if not status.f_blocks:
        return sys.maxsize
    return max(status.f_bavail, status.f_bfree - min(status.f_blocks // 50, 4096)) * status.f_frsize


def lacks_inodes(path: Path) -> bool:
    """Whether no file can be made there, however small."""
    status = os.statvfs(path)
    return status.f_files > 0 and status.f_ffree == 0


def is_full(error: OSError) -> bool:
    """Whether this is what a full file system, or a full quota, answers."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def hint_when_full(error: OSError, path: Path | None = None) -> str | None:
    """What to do about `error`, if a full file system is the cause: that of `path`, or of the file in the error."""
    if not is_full(error):
        return None
    if path is None and isinstance(error.filename, str):
        path = Path(error.filename).parent
    return full_hint(path) if path is not None else "free some space (`system df` shows what takes it) and try again"


def full_hint(path: Path) -> str:
    """Which file system is full, and what helps."""
    try:
        what = "has no inodes left" if lacks_inodes(path) else "is full"
    except OSError:
        what = "is full"
    return f"the file system of {path} {what}: free some space there (`system df` shows what takes it) and try again"
