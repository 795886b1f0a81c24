"""Draining a container before it is told to stop: nobody is led to it any more, and what it began it ends.

    names withdrawn --> a client that had just asked connects --> its answer is out --> quiet for a moment --> SIGTERM
                    |                                                                                    |
                    '------------------------------ patience at most -----------------------------------'

Withdrawing cuts no connection: the container keeps its networks and addresses until it has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from havre.containers.live import Live
from havre.linux.connections import count_served
from havre.wire.values import ContainerId

_QUIET_S = 0.3
"""As long as a client may take from an answer of the name server to its connection."""
_LOOK_S = 0.03


class Draining:
    """Takes containers out of service."""

    def __init__(self, withdraw: Callable[[ContainerId], None]) -> None:
        self._withdraw = withdraw

    async def run(self, live: Live, patience_s: int) -> None:
        """Withdraw its names, and wait until it has served all; at most `patience_s`, and no longer than it runs."""
        self._withdraw(ContainerId(live.container.id))
        process, now = live.process, time.monotonic()
        until, busy = now + patience_s, now
        while process is not None and live.process is process and now < until and now - busy < _QUIET_S:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            if count_served(process.pid):
                busy = now
