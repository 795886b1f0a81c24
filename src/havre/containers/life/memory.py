"""Telling of containers that run out of memory while they run on: the kernel may kill a child and spare PID 1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from havre.linux.cgroups import Cgroups
from havre.linux.oom import OomNotices
from havre.runtime import Process

log = logging.getLogger(__name__)


class MemoryWatch:
    """Hears of all containers by one descriptor."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._told: dict[int, Callable[[], None]] = {}
        self._numbers: dict[Process, int] = {}
        self._notices: OomNotices | None = None
        try:
            self._notices = OomNotices(cgroups)
        except OSError as error:  # fs.inotify.max_user_instances are in use
            log.warning("no event tells of memory that a container lacks while it runs on: %s", error)
        else:
            asyncio.get_running_loop().add_reader(self._notices.fileno(), self._read, self._notices)

    def watch(self, process: Process, told: Callable[[], None]) -> None:
        """Call `told` on the event loop each time `process`'s container runs out of memory, until `leave`."""
        if self._notices is None:
            return
        try:
            number = self._notices.add(process.cgroup[1], process.directory)
        except OSError as error:
            # Ended already, or no memory controller here; its end will tell all the same.
            log.debug("no notices of memory for process %d: %s", process.pid, error)
            return
        self._told[number], self._numbers[process] = told, number

    def leave(self, process: Process) -> None:
        """It has ended. Idempotent."""
        number = self._numbers.pop(process, None)
        if number is not None and self._notices is not None:
            del self._told[number]
            self._notices.remove(number)

    def _read(self, notices: OomNotices) -> None:
        for number in notices.take():
            self._told[number]()
