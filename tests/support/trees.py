"""A directory tree as a value, for comparison."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """The visible attributes of each entry below `root`: type, mode, owner, times, content, links, xattrs."""
    found: dict[bytes, tuple[object, ...]] = {}
    first_name: dict[int, bytes] = {}
    stack = [os.fsencode(root)]
    while stack:
        for entry in sorted(os.scandir(stack.pop()), key=lambda e: e.name):
            status = entry.stat(follow_symlinks=False)
            path = os.path.relpath(entry.path, os.fsencode(root))
            if stat.S_ISDIR(status.st_mode):
                stack.append(entry.path)
                content: object = None
            elif stat.S_ISREG(status.st_mode):
                content = (status.st_size, hashlib.sha256(Path(os.fsdecode(entry.path)).read_bytes()).hexdigest())
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(entry.path)
            else:
                content = status.st_rdev
            links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
            xattrs = {n: os.getxattr(entry.path, n, follow_symlinks=False) for n in _xattrs(entry.path)}
            found[path] = (
                oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content, links, xattrs,
            )  # fmt: skip
            if links > 1:
                found[path] += (first_name.setdefault(status.st_ino, path),)
    return found


def _xattrs(path: bytes) -> list[str]:
    return [n for n in os.listxattr(path, follow_symlinks=False) if n.startswith(("user.", "security.cap", "trusted."))]
