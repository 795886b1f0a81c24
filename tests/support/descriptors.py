"""Many open files, in this process or in a daemon."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from support.engines import Engine
from support.waiting import until

FD_SETSIZE = 1024
"""The first descriptor beyond the limit of select(2)."""


def open_files(pid: int | str = "self") -> int:
    """The number of descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """Raise this process's limit by so many descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_files() + descriptors + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), max(before[1], wanted)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def many_open(count: int) -> Iterator[None]:
    """Open so many additional descriptors in this process."""
    with room_for(count), ExitStack() as files:
        for _ in range(count):
            files.enter_context(open("/dev/null"))
        yield


@contextmanager
def silent_clients(engine: Engine, count: int) -> Iterator[None]:
    """Open about so many idle connections, each of which is a descriptor in the daemon."""
    before = open_files(engine.pid)
    with room_for(count), ExitStack() as clients:
        for _ in range(count):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(engine.socket))  # blocks while the backlog is full
        until(lambda: open_files(engine.pid) >= before + count - 8, f"{count} connections", 30)
        yield
    until(lambda: open_files(engine.pid) <= before + 8, "the clients to be gone", 30)
