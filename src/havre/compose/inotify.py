"""Told by the kernel in which directories something has changed.

A watch is on one directory and does not reach below it: who follows a tree adds those that appear, first the watch and
then a look, so that nothing is missed in between. Network file systems tell nothing of what other hosts change.

The one place in the client's rooms with ctypes: `linux` is the daemon's. Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time

from havre.errors import Failed

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_ONLYDIR, _DONT_FOLLOW = 0x1000000, 0x2000000
_EVENTS = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_MASK = _EVENTS | _ONLYDIR | _DONT_FOLLOW
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_HEAD = struct.Struct("=iIII")  # watch, mask, cookie, length of the name
_BUFFER = 1 << 16
_QUIET_S, _AT_MOST_S = 0.05, 1.0

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Watches directories, by path."""

    def __init__(self) -> None:
        self._file = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "watch files")
        self._paths: dict[int, str] = {}

    def add(self, directory: str) -> None:
        """Watch a directory. OSError when there is none; Failed when the kernel watches no more."""
        path = os.fsencode(directory)
        self._paths[_checked(_libc.inotify_add_watch(self._file, path, _MASK), directory)] = directory

    def wait(self, timeout_s: float | None = None) -> set[str]:
        """The directories in which something has changed, once it has been quiet for a moment; all of them when the
        kernel has lost count. Empty after `timeout_s`.
        """
        if not self._readable(timeout_s):
            return set()
        changed = self._read()
        until = time.monotonic() + _AT_MOST_S
        while time.monotonic() < until and self._readable(_QUIET_S):
            changed |= self._read()
        return changed

    def _readable(self, timeout_s: float | None) -> bool:
        waiting = select.poll()  # select(2) ends at descriptor 1023
        waiting.register(self._file, select.POLLIN)
        return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))

    def _read(self) -> set[str]:
        try:
            data = os.read(self._file, _BUFFER)
        except BlockingIOError:
            return set()
        changed: set[str] = set()
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            if mask & _OVERFLOW:
                changed.update(self._paths.values())
            elif mask & _IGNORED:
                self._paths.pop(watch, None)
            elif watch in self._paths:
                changed.add(self._paths[watch])
        return changed

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self._file)


def _checked(result: int, what: str) -> int:
    if result >= 0:
        return result
    code = ctypes.get_errno()
    if code in (errno.ENOSPC, errno.EMFILE):
        setting = "max_user_watches" if code == errno.ENOSPC else "max_user_instances"
        raise Failed(f"cannot watch {what}: the kernel watches no more", f"raise sysctl fs.inotify.{setting}")
    raise OSError(code, os.strerror(code), what)
