"""OOM notifications of control groups, all through one descriptor.

    v1 (and hybrid)   conmon holds an eventfd of its container's group, and writes its file `oom` at each notification
    v2                the kernel modifies memory.events ("a value change in this file generates a file modified event")

inotify watches both, so that a container costs no descriptor. conmon writes no such file on v2.

Source: Documentation/admin-guide/cgroup-v1/memory.rst, section 10; cgroup-v2.rst, "memory.events"; conmon's src/oom.c.
"""

from __future__ import annotations

from pathlib import Path

from havre.linux import inotify
from havre.linux.cgroups import Cgroups, oom_kills

NOTE = "oom"
"""The file that conmon writes in its working directory."""


class OomNotices:
    """OOM notifications of the groups added. Non-blocking, apart from reads of kernel files."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._inotify = inotify.Inotify()
        self._groups: dict[int, tuple[str, int]] = {}

    def fileno(self) -> int:
        """The descriptor, readable when there are notifications."""
        return self._inotify.fileno()

    def add(self, group: str, monitor: Path) -> int:
        """Watch a group whose conmon has the working directory `monitor`; returns its number. OSError when either is
        gone."""
        if self._cgroups.layout == "v2":
            events = self._cgroups.trees[""] / group.lstrip("/") / "memory.events"
            watch = self._inotify.add(events, inotify.MODIFY)
        else:
            watch = self._inotify.add(monitor, inotify.OPEN)
        self._groups[watch] = group, oom_kills(self._cgroups, group)
        return watch

    def remove(self, number: int) -> None:
        """Stop watching a group. Idempotent."""
        if self._groups.pop(number, None) is not None:
            self._inotify.remove(number)

    def take(self) -> list[int]:
        """Read pending notifications; returns the numbers of the groups that ran out of memory."""
        wanted = "" if self._cgroups.layout == "v2" else NOTE
        happened = dict.fromkeys(
            watch for watch, mask, name in self._inotify.read() if name == wanted and not mask & inotify.IGNORED
        )
        return [number for number in happened if number in self._groups and self._ran_out(number)]

    def _ran_out(self, number: int) -> bool:
        if self._cgroups.layout != "v2":
            return True
        group, before = self._groups[number]
        now = oom_kills(self._cgroups, group)
        self._groups[number] = group, now
        return now > before

    def close(self) -> None:
        """Close the descriptor."""
        self._inotify.close()
