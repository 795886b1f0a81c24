"""The directories watched by `watch`, and which of them have changed.

A watch covers one directory, not those below it: the caller adds new ones, watching before reading them, so that
nothing
is missed in between. Network file systems do not report changes by other hosts (inotify(7)).
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

from havre.errors import Failed
from havre.linux import inotify

_EVENTS = (
    *(inotify.MODIFY, inotify.ATTRIB, inotify.CLOSE_WRITE, inotify.MOVED_FROM, inotify.MOVED_TO, inotify.CREATE),
    *(inotify.DELETE, inotify.DELETE_SELF, inotify.MOVE_SELF, inotify.ONLYDIR, inotify.DONT_FOLLOW),
)
_QUIET_S, _AT_MOST_S = 0.05, 1.0


class Folders:
    """Watches directories, by path."""

    def __init__(self) -> None:
        with _limits("files"):
            self._inotify = inotify.Inotify()
        self._paths: dict[int, str] = {}

    def add(self, folder: str) -> None:
        """Watch a directory. OSError when it does not exist; Failed at the kernel's limit."""
        with _limits(folder):
            self._paths[self._inotify.add(folder, sum(_EVENTS))] = folder

    def wait(self, timeout_s: float | None = None) -> set[str]:
        """The directories with changes, after a short quiet period; all of them after a queue overflow. Empty after
        `timeout_s`.
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
        waiting.register(self._inotify.fileno(), select.POLLIN)
        return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))

    def _read(self) -> set[str]:
        changed: set[str] = set()
        for watch, mask, _ in self._inotify.read():
            if mask & inotify.OVERFLOW:
                changed.update(self._paths.values())
            elif mask & inotify.IGNORED:
                self._paths.pop(watch, None)
            elif watch in self._paths:
                changed.add(self._paths[watch])
        return changed

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()


@contextmanager
def _limits(what: str) -> Iterator[None]:
    """Translate the kernel's limits of watches into hints naming the setting."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EMFILE):
            raise
        setting = "max_user_watches" if error.errno == errno.ENOSPC else "max_user_instances"
        raise Failed(
            f"cannot watch {what}: the kernel watches no more", f"raise sysctl fs.inotify.{setting}"
        ) from error
