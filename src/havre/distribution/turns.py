"""Locks on a registry's content, across processes: shared by writers, exclusive for garbage collection.

    writer     [ check what is present, add to it ]       shared: a blob that was checked stays until it is referenced
    collector  [ see what is referenced, remove the rest ]   exclusive

Writers hold the lock while they write a few small files, and not while an upload's bytes arrive. Readers need no lock.
flock(2) on a file, polled so that no thread blocks; the kernel releases it when a process dies.
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
    """The lock of the registry at `root`."""

    def __init__(self, root: Path) -> None:
        self._file = root / "lock"

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Take the lock, shared with other writers."""
        return self._turn(fcntl.LOCK_SH)

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Take the lock exclusively."""
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
