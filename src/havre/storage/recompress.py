"""Streaming compression: layers for a registry with gzip (ISA-L, threaded), volumes with zstd.

The compressed bytes depend on the library's version, so digests are not reproducible; the pusher records the result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import zstandard
from isal import igzip_threaded

from havre.aio import in_thread

_LEVEL = 1
_GATHER = 1 << 20
_THREADS = min(os.cpu_count() or 1, 4)  # the output does not depend on the number


class _Sink:
    """The file object that the compressor writes to from its own thread."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()

    def write(self, data: bytes) -> int:
        """Append a piece."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Does nothing: unbuffered."""

    def take(self) -> bytes:
        """The bytes written since the last call."""
        pieces = []
        while self._pieces:
            pieces.append(self._pieces.popleft())
        return b"".join(pieces)


async def gzip_stream(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Compress `chunks` as one gzip stream; at most a few MiB are in flight."""
    sink = _Sink()
    writer = await in_thread(igzip_threaded.open, cast("str", sink), "wb", compresslevel=_LEVEL, threads=_THREADS)
    gathered = bytearray()
    try:
        async for chunk in chunks:
            gathered += chunk
            if len(gathered) < _GATHER:
                continue
            await in_thread(writer.write, bytes(gathered))
            gathered.clear()
            if piece := sink.take():
                yield piece
        await in_thread(writer.write, bytes(gathered))
    finally:
        await in_thread(writer.close)
    if piece := sink.take():
        yield piece


async def zstd_stream(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Compress `chunks` as one zstd stream."""
    compressor = zstandard.ZstdCompressor().compressobj()
    async for chunk in chunks:
        if piece := await in_thread(compressor.compress, chunk):
            yield piece
    yield await in_thread(compressor.flush)
