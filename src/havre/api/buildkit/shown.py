"""What the door itself does for a build, shown as steps beside the builder's: bringing files in, exporting.

Source: moby/buildkit frontend/dockerui, source/local, exporter, for the titles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from havre.build.progress import BuildProgress, Finished, Started, Transfer, Vertex
from havre.errors import HavreError
from havre.oci.digest import digest_of

_TOLD_EVERY = 1 << 20  # bytes between two words about a transfer

Moved = Callable[[int], None]


@contextmanager
def shown(title: str, progress: BuildProgress) -> Iterator[Vertex]:
    """A step for the length of a block; it fails with what the block raises."""
    vertex = Vertex(digest_of(title.encode()), title)
    progress(Started(vertex, time.time()))
    try:
        yield vertex
    except HavreError as error:
        progress(Finished(vertex, time.time(), error=error.message))
        raise
    progress(Finished(vertex, time.time()))


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
