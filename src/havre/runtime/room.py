"""File descriptor accounting: a start waits for others, or is refused, when too few descriptors are left, rather than
failing half-way.

    limit  |--- open ---|--- reserved for each start in progress ---|--- spare: clients, layers, files ---|

A start opens up to A_START at once (pipes, namespaces, netlink, mounts, log) and keeps at most A_CONTAINER.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def for_start(self) -> AsyncIterator[None]:
        """Reserve descriptors for one start during a block.

        Waits while starts in progress leave too few. Raises Unavailable if there are too few without them.
        """
        while not self._fits():
            self._ended.clear()
            await self._ended.wait()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended.set()

    def _fits(self) -> bool:
        """Report whether one more start fits; Unavailable if it does not and no other start will end.

        What starts in progress have open counts twice, so that a few more of them wait than would have to.
        """
        used, limit = nofile.count(), nofile.limit()
        fits = used + (self._under_way + 1) * A_START + SPARE <= limit
        if not fits and not self._under_way:
            raise Unavailable(f"too many open files: the daemon has {used} and may have {limit}", _HINT)
        return fits

    def check_for(self, containers: int) -> None:
        """Raise Failed when so many running containers cannot be taken over; the daemon must not start then."""
        used, limit = nofile.count(), nofile.limit()
        needed = used + containers * A_CONTAINER + A_START + SPARE
        if needed > limit:
            raise Failed(
                f"{containers} containers run, for which the daemon needs {needed} open files; it may have {limit}",
                "allow more (LimitNOFILE= of its service, or ulimit -n); the containers keep running",
            )
