"""A blocking writer's output as an asynchronous stream.

    own thread: write(out) --> pipe --> event loop: async for piece, or splice(2) from the descriptor

The pipe gives backpressure. Each writer has its own thread and the loop reads without one, so that writers waiting for
readers never exhaust the shared pool. Data that a writer sends with sendfile(2) and a reader splices does not enter
user
space.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import termios
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import BinaryIO

from havre.aio import in_own_thread

_PIPE_BYTES = 1 << 20  # a pipe's default maximum (pipe-max-size, pipe(7))


class PipedStream:
    """The output of `write`, which starts at once; for one reader, which must `close` it.

    `descriptor` is the pipe's non-blocking read end. `Unavailable` when too many are open.
    """

    def __init__(self, write: Callable[[BinaryIO], None]) -> None:
        self.descriptor, write_end = os.pipe()
        os.set_blocking(self.descriptor, False)
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._writer = in_own_thread(_write_to, write_end, write)
        except BaseException:
            os.close(self.descriptor)
            os.close(write_end)
            raise
        # A reader that leaves early needs no report of the broken pipe.
        self._writer.add_done_callback(lambda writer: writer.cancelled() or writer.exception())

    async def available(self) -> int:
        """Wait for data and return the number of bytes readable; 0 at the end. Raises the error of `write` at the
        end."""
        count = self._pending()
        if not count:
            await until_ready(self.descriptor, writing=False)
            count = self._pending()
        if not count:
            await self._writer
        return count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while count := await self.available():
            yield os.read(self.descriptor, count)

    async def close(self) -> None:
        """Idempotent. Before the end, the next write of `write` raises BrokenPipeError."""
        if self.descriptor < 0:
            return
        os.close(self.descriptor)
        self.descriptor = -1
        await asyncio.wait([self._writer])

    def _pending(self) -> int:
        count = bytearray(4)
        fcntl.ioctl(self.descriptor, termios.FIONREAD, count)
        return int.from_bytes(count, "little")


async def stream_from(write: Callable[[BinaryIO], None]) -> AsyncGenerator[bytes, None]:
    """The output of `write`, whose error is raised at the end. Closed early, its next write raises BrokenPipeError."""
    stream = PipedStream(write)
    try:
        async for piece in stream:
            yield piece
    finally:
        await stream.close()


async def until_ready(descriptor: int, *, writing: bool) -> None:
    """Wait until a descriptor without a transport is writable or readable, or its other end is closed."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(descriptor, _settle, ready)
    try:
        await ready
    finally:
        remove(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _write_to(descriptor: int, write: Callable[[BinaryIO], None]) -> None:
    with open(descriptor, "wb", buffering=_PIPE_BYTES) as out:
        write(out)
