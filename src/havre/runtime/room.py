"""File descriptor accounting: a start is refused up front when too few descriptors are left, rather than failing
half-way.

    limit  |--- open ---|--- reserved for each start in progress ---|--- spare: clients, layers, files ---|

A start opens up to A_START at once (pipes, namespaces, netlink, mounts, log) and keeps at most A_CONTAINER (decision
341).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from havre.errors import Failed, Unavailable
from havre.linux import nofile

A_START = 32
A_CONTAINER = 4
SPARE = 32
_HINT = "allow more (LimitNOFILE= of the daemon's service, or ulimit -n), or stop what need not run"


class Room:
    """Counts the starts in progress."""

    def __init__(self) -> None:
        self._under_way = 0

    @contextmanager
    def for_start(self) -> Iterator[None]:
        """Reserve descriptors for one start during a block. Unavailable when too few are left."""
        used, limit = nofile.count(), nofile.limit()
        if used + (self._under_way + 1) * A_START + SPARE > limit:
            raise Unavailable(f"too many open files: the daemon has {used} and may have {limit}", _HINT)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def check_for(self, containers: int) -> None:
        """Raise Failed when so many running containers cannot be taken over; the daemon must not start then."""
        used, limit = nofile.count(), nofile.limit()
        needed = used + containers * A_CONTAINER + A_START + SPARE
        if needed > limit:
            raise Failed(
                f"{containers} containers run, for which the daemon needs {needed} open files; it may have {limit}",
                "allow more (LimitNOFILE= of its service, or ulimit -n); the containers keep running",
            )
