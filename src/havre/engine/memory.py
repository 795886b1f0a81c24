"""Telling of a container that runs out of memory while it runs on: the kernel may kill a child and spare PID 1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from havre.aio import spawn
from havre.linux.oom import OomNotices
from havre.runtime import Process

log = logging.getLogger(__name__)


def watch_memory(process: Process, told: Callable[[], None]) -> None:
    """Call `told` on the event loop each time `process`'s container runs out of memory, until it ends."""
    try:
        notices = OomNotices(*process.cgroup)
    except OSError as error:
        # Ended already, or no memory controller here; its end will tell all the same.
        log.debug("no notices of memory for process %d: %s", process.pid, error)
        return
    spawn(_watch(process, notices, told), f"memory of {process.id[:12]}")


async def _watch(process: Process, notices: OomNotices, told: Callable[[], None]) -> None:
    def read() -> None:
        if notices.take():
            told()

    loop = asyncio.get_running_loop()
    loop.add_reader(notices.fileno(), read)
    try:
        await process.wait()
    finally:
        loop.remove_reader(notices.fileno())
        notices.close()
