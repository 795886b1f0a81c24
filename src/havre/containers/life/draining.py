"""Drains a container before a stop: it gets no new connections and finishes the existing ones.

    names withdrawn --> clients that resolved them connect --> requests done --> idle for a moment --> SIGTERM
                    |                                                                               |
                    '---------------------------- at most `patience_s` -----------------------------'

No connection is cut: the container keeps its networks and addresses until it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from havre.containers.live import Live
from havre.linux.connections import count_served
from havre.wire.values import ContainerId

_QUIET_S = 0.3
"""Limit of the time from a response of the name server to the client's connection."""
_LOOK_S = 0.03


class Draining:
    """Drains containers."""

    def __init__(self, withdraw: Callable[[ContainerId], None]) -> None:
        self._withdraw = withdraw

    async def run(self, live: Live, patience_s: int) -> None:
        """Withdraw its names and wait until it is idle, at most `patience_s`, or until it ends."""
        self._withdraw(ContainerId(live.container.id))
        process, now = live.process, time.monotonic()
        until, busy = now + patience_s, now
        while process is not None and live.process is process and now < until and now - busy < _QUIET_S:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            if count_served(process.pid):
                busy = now
