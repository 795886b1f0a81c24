"""Compressing tars, streamed: layers for a registry with gzip by ISA-L in threads, volumes with zstd.

The bytes depend on the library's version, so no digest is promised; what came out is remembered by who pushed it.
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
_THREADS = min(os.cpu_count() or 1, 4)  # the bytes are the same with any number


class _Sink:
    """The file that the compressor writes to from its own thread."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()

    def write(self, data: bytes) -> int:
        """Take a piece."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered here."""

    def take(self) -> bytes:
        """What has come since the last call."""
        pieces = []
        while self._pieces:
            pieces.append(self._pieces.popleft())
        return b"".join(pieces)


async def gzip_stream(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`chunks` as one gzip stream; at most a few MiB are in flight."""
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
    """`chunks` as one zstd stream."""
    compressor = zstandard.ZstdCompressor().compressobj()
    async for chunk in chunks:
        if piece := await in_thread(compressor.compress, chunk):
            yield piece
    yield await in_thread(compressor.flush)
