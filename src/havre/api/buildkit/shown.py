"""Bytes that the door itself moves for a build, shown in steps beside the builder's: bringing files in, exporting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from havre.builds.progress import BuildProgress, Transfer, Vertex

_TOLD_EVERY = 1 << 20  # bytes between two words about a transfer

Moved = Callable[[int], None]


@contextmanager
def counted(vertex: Vertex, what: str, progress: BuildProgress) -> Iterator[Moved]:
    """Bytes that move for a step, told now and then, and all of them at the end of the block."""
    total = told = 0

    def moved(size: int) -> None:
        nonlocal total, told
        total += size
        if total - told >= _TOLD_EVERY:
            told = total
            progress(Transfer(vertex, what, total, 0, time.time()))

    progress(Transfer(vertex, what, 0, 0, time.time()))
    yield moved
    progress(Transfer(vertex, what, total, 0, time.time(), done=True))


def tell_done(vertex: Vertex, what: str, progress: BuildProgress) -> None:
    """One thing that a step has done, which has no size."""
    progress(Transfer(vertex, what, 0, 0, time.time(), done=True))
