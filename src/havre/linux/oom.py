"""Being told when the kernel runs a control group out of memory and kills for it.

    v1 (and hybrid)   an eventfd registered for memory.oom_control by way of cgroup.event_control
    v2                memory.events, polled for EPOLLPRI (the only event that says "changed"; it is always readable)

Both become readable for an event loop. The removal of the group looks like one more notice, so `take` tells whether the
group is still there. Non-blocking, but for the kernel's own files.

Source: Documentation/admin-guide/cgroup-v1/memory.rst, section 9 and 10; cgroup-v2.rst, "memory.events"; eventfd(2).
"""

from __future__ import annotations

import os
import select
from pathlib import Path

from havre.linux.cgroups import Cgroups, below


class OomNotices:
    """The notices of one group; OSError when the group is gone or has no memory controller."""

    def __init__(self, cgroups: Cgroups, group: str) -> None:
        self._epoll: select.epoll | None = None
        if cgroups.layout == "v2":
            self._group = below(cgroups.trees[""], group)
            self._file = os.open(self._group / "memory.events", os.O_RDONLY | os.O_CLOEXEC)
            self._epoll = select.epoll()
            self._epoll.register(self._file, select.EPOLLPRI | select.EPOLLET)
            self._descriptor = self._epoll.fileno()
            self._kills = _kills(self._group)
            return
        self._group = below(cgroups.trees.get("memory", Path("/nonexistent")), group)
        self._file = os.open(self._group / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            (self._group / "cgroup.event_control").write_text(f"{self._descriptor} {self._file}")
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """What becomes readable."""
        return self._descriptor

    def take(self) -> bool:
        """Take the notice that made it readable; True if the group ran out of memory."""
        if self._epoll is not None:
            self._epoll.poll(0)
            before, self._kills = self._kills, _kills(self._group)
            return self._kills > before
        os.eventfd_read(self._descriptor)
        return self._group.exists()

    def close(self) -> None:
        """Give the descriptors back."""
        if self._epoll is not None:
            self._epoll.close()
        else:
            os.close(self._descriptor)
        os.close(self._file)


def _kills(group: Path) -> int:
    try:
        pairs = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
    except FileNotFoundError:
        return 0
    return int(pairs.get("oom_kill", "0"))
