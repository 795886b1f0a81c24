"""Progress of bytes transferred by the API for a build (context in, export out), as vertices beside the builder's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from havre.builds.progress import BuildProgress, Transfer, Vertex

_TOLD_EVERY = 1 << 20  # bytes between two progress events of a transfer

Moved = Callable[[int], None]


@contextmanager
def counted(vertex: Vertex, what: str, progress: BuildProgress) -> Iterator[Moved]:
    """Progress of a vertex's transfer: reported at intervals, and in total at the end of the block."""
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
    """Report a completed action without a size."""
    progress(Transfer(vertex, what, 0, 0, time.time(), done=True))
