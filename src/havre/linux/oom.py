"""Being told when the kernel runs a control group out of memory and kills for it: all groups by one descriptor.

    v1 (and hybrid)   conmon has an eventfd of its container's group, and opens its file `oom` at each notice
    v2                the kernel modifies memory.events ("a value change in this file generates a file modified event")

Both are heard by inotify, so that a container costs no descriptor. conmon writes no such file on v2.

Source: Documentation/admin-guide/cgroup-v1/memory.rst, section 10; cgroup-v2.rst, "memory.events"; conmon's src/oom.c.
"""

from __future__ import annotations

from pathlib import Path

from havre.linux import inotify
from havre.linux.cgroups import Cgroups, oom_kills

NOTE = "oom"
"""conmon's file, in its working directory."""


class OomNotices:
    """The notices of the groups that are added. Non-blocking, but for the kernel's own files."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._inotify = inotify.Inotify()
        self._groups: dict[int, tuple[str, int]] = {}

    def fileno(self) -> int:
        """What becomes readable."""
        return self._inotify.fileno()

    def add(self, group: str, monitor: Path) -> int:
        """A number for a group whose conmon works in `monitor`. OSError when one of both is gone."""
        if self._cgroups.layout == "v2":
            events = self._cgroups.trees[""] / group.lstrip("/") / "memory.events"
            watch = self._inotify.add(events, inotify.MODIFY)
        else:
            watch = self._inotify.add(monitor, inotify.OPEN)
        self._groups[watch] = group, oom_kills(self._cgroups, group)
        return watch

    def remove(self, number: int) -> None:
        """Forget a group. Idempotent."""
        if self._groups.pop(number, None) is not None:
            self._inotify.remove(number)

    def take(self) -> list[int]:
        """Take the notices; the numbers of the groups that ran out of memory."""
        wanted = "" if self._cgroups.layout == "v2" else NOTE
        happened = dict.fromkeys(watch for watch, name in self._inotify.read() if name == wanted)
        return [number for number in happened if number in self._groups and self._ran_out(number)]

    def _ran_out(self, number: int) -> bool:
        if self._cgroups.layout != "v2":
            return True
        group, before = self._groups[number]
        now = oom_kills(self._cgroups, group)
        self._groups[number] = group, now
        return now > before

    def close(self) -> None:
        """Give the descriptor back."""
        self._inotify.close()
