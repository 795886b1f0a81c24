"""A blocking writer's output as an asynchronous stream.

    pool thread: write(out) --> pipe --> event loop: async for piece

The pipe holds the writer back while the reader is slow. The loop reads without a thread, so that writers waiting for
their readers can never take the threads that those readers need.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
from collections.abc import AsyncGenerator, Callable
from typing import BinaryIO

from havre.aio import in_thread

_PIPE_BYTES = 1 << 20  # what a pipe may hold by default (pipe-max-size)


async def stream_from(write: Callable[[BinaryIO], None]) -> AsyncGenerator[bytes, None]:
    """What `write` writes; its failure is raised at the end. Left early, `write` meets a broken pipe."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    reader = asyncio.StreamReader(limit=_PIPE_BYTES)
    writer = asyncio.ensure_future(in_thread(_write_to, write_end, write))
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), io.FileIO(read_end, "rb")
    )
    try:
        while piece := await reader.read(_PIPE_BYTES):
            yield piece
        await writer
    finally:
        transport.close()
        await asyncio.wait([writer])
        writer.exception()  # retrieved: it was raised above, or nobody reads any more


def _write_to(descriptor: int, write: Callable[[BinaryIO], None]) -> None:
    with open(descriptor, "wb", buffering=_PIPE_BYTES) as out:
        write(out)
