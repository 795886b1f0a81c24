"""Reports OOM kills in containers that continue: the kernel may kill a child and spare PID 1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from havre.linux.cgroups import Cgroups
from havre.linux.oom import OomNotices
from havre.runtime import Process

log = logging.getLogger(__name__)


class MemoryWatch:
    """Watches all containers with one inotify descriptor."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._numbers: dict[Process, int] = {}
        self._notices: OomNotices | None = None
        try:
            self._notices = OomNotices(cgroups)
        except OSError as error:  # fs.inotify.max_user_instances exceeded: inotify(7)
            log.warning("OOM kills in running containers will not be reported: %s", error)
        else:
            asyncio.get_running_loop().add_reader(self._notices.fileno(), self._read, self._notices)

    def watch(self, process: Process, on_kill: Callable[[], None]) -> None:
        """Call `on_kill` on the event loop for each OOM kill in `process`'s container, until `leave`."""
        if self._notices is None:
            return
        try:
            number = self._notices.add(process.cgroup[1], process.directory)
        except OSError as error:
            # Already ended, or no memory controller; an OOM kill of PID 1 is reported with the end.
            log.debug("cannot watch OOM kills of process %d: %s", process.pid, error)
            return
        self._callbacks[number], self._numbers[process] = on_kill, number

    def leave(self, process: Process) -> None:
        """Stop watching a process that has ended. Idempotent."""
        number = self._numbers.pop(process, None)
        if number is not None and self._notices is not None:
            del self._callbacks[number]
            self._notices.remove(number)

    def _read(self, notices: OomNotices) -> None:
        for number in notices.take():
            self._callbacks[number]()
