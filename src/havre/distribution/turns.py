"""Turns at what a registry holds: writers side by side, or one collector of garbage alone; across processes.

    writer     [ check what is here, add to it ]   shared: a blob that was checked is still there when it is named
    collector  [ see what is needed, remove the rest ]   exclusive

A writer's turn lasts as long as a few small files; bytes of uploads come in between turns. Readers need no turn.
By flock(2) on a file, tried again and again, so that no thread is kept waiting and whoever dies gives its turn back.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

_PAUSE_S = 0.02


class Turns:
    """The turns at `root`."""

    def __init__(self, root: Path) -> None:
        self._file = root / "lock"

    def writing(self) -> AbstractAsyncContextManager[None]:
        """A turn among other writers."""
        return self._turn(fcntl.LOCK_SH)

    def alone(self) -> AbstractAsyncContextManager[None]:
        """A turn in which nobody writes."""
        return self._turn(fcntl.LOCK_EX)

    @asynccontextmanager
    async def _turn(self, kind: int) -> AsyncIterator[None]:
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _try(descriptor, kind):  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE_S)
            yield
        finally:
            os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
