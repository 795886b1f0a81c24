"""inotify(7): one descriptor for the event loop that reports changes of all watched files and directories.

Failures are OSError; ENOSPC means that fs.inotify.max_user_watches is reached.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

MODIFY, ATTRIB, CLOSE_WRITE, OPEN, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x20, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF, ONLYDIR, DONT_FOLLOW = 0x100, 0x200, 0x400, 0x800, 0x1000000, 0x2000000
OVERFLOW, IGNORED = 0x4000, 0x8000  # events were lost (of no watch); a watch is gone
_HEAD = struct.Struct("=iIII")  # watch, mask, cookie, length of the name
_BUFFER = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """An inotify instance. Watches are identified by the kernel's watch descriptors."""

    def __init__(self) -> None:
        self._file = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")

    def fileno(self) -> int:
        """The descriptor, readable when there are events."""
        return self._file

    def add(self, path: Path | str, events: int) -> int:
        """Watch a file or a directory for `events` (IN_*); returns the watch descriptor, of a watched path again."""
        return _checked(_libc.inotify_add_watch(self._file, os.fsencode(path), events), f"watch {path}")

    def remove(self, watch: int) -> None:
        """Remove a watch. Idempotent: the kernel removes the watch of a deleted file itself."""
        _libc.inotify_rm_watch(self._file, watch)

    def read(self) -> list[tuple[int, int, str]]:
        """Read pending events without blocking: (watch, events, name in the directory); "" for an event of the watched
        file itself."""
        try:
            data = os.read(self._file, _BUFFER)
        except BlockingIOError:
            return []
        happened: list[tuple[int, int, str]] = []
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            happened.append((watch, mask, os.fsdecode(name)))
        return happened

    def close(self) -> None:
        """Close the descriptor; removes all watches."""
        os.close(self._file)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
