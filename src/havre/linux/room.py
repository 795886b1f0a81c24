"""Free space of file systems, and the hint for errors of a full one.

ext4 reserves 5% of its blocks for root and up to 2% (at most 4,096) for its metadata: `f_bavail` excludes both,
`f_bfree`
includes both. Some file systems (btrfs, FUSE) have no fixed number of inodes and report 0 of 0.
Source: statvfs(3); tune2fs(8), "-m"; Documentation/admin-guide/ext4.rst, "reserved_clusters".
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path


def free_bytes(path: Path) -> int:
    """Bytes available to unprivileged processes on the file system of `path`; sys.maxsize where it has no size
    (ramfs)."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize if status.f_blocks else sys.maxsize


def free_bytes_of_root(path: Path) -> int:
    """Bytes available to root."""
    status = os.statvfs(path)
    if not status.f_blocks:
        return sys.maxsize
    return max(status.f_bavail, status.f_bfree - min(status.f_blocks // 50, 4096)) * status.f_frsize


def lacks_inodes(path: Path) -> bool:
    """Report whether the file system has no free inode."""
    status = os.statvfs(path)
    return status.f_files > 0 and status.f_ffree == 0


def is_full(error: OSError) -> bool:
    """Report whether this is the error of a full file system or an exhausted quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def hint_when_full(error: OSError, path: Path | None = None) -> str | None:
    """The hint for `error` if its cause is a full file system: that of `path`, or of the file in the error; else
    None."""
    if not is_full(error):
        return None
    if path is None and isinstance(error.filename, str):
        path = Path(error.filename).parent
    return full_hint(path) if path is not None else "free some space (`system df` shows what takes it) and try again"


def full_hint(path: Path) -> str:
    """The hint that names the full file system and the remedy."""
    try:
        what = "has no inodes left" if lacks_inodes(path) else "is full"
    except OSError:
        what = "is full"
    return f"the file system of {path} {what}: free some space there (`system df` shows what takes it) and try again"
