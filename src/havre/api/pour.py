"""Sending what comes through a pipe as a response's body, without taking it into this process.

    file --sendfile--> pipe --splice--> socket        of HTTP's chunks, only the lines around them are written here

The HTTP server goes on owning the connection: it has sent the head, and nothing of its own is waiting in a buffer
while data is spliced into the socket beside it. Where that cannot be (TLS), pieces are read and written.

Sources: splice(2); RFC 9112, "Chunked Transfer Coding".
"""

from __future__ import annotations

import asyncio
import os

from aiohttp import HttpVersion11, web

from havre.storage.pipe import PipedStream, until_ready


async def pour(request: web.BaseRequest, response: web.StreamResponse, stream: PipedStream) -> None:
    """Send all of `stream`, whose failure is raised. `ConnectionError` when the client has left."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has left")
    if transport.get_extra_info("sslcontext") is not None or request.version < HttpVersion11:
        async for piece in stream:
            await response.write(piece)
        return
    # A descriptor of our own: the loop lets nobody watch that of a transport.
    socket = os.dup(transport.get_extra_info("socket").fileno())
    try:
        await _splice_chunks(request, transport, stream, socket)
    finally:
        transport.set_write_buffer_limits()
        os.close(socket)


async def _splice_chunks(
    request: web.BaseRequest, transport: asyncio.Transport, stream: PipedStream, socket: int
) -> None:
    transport.set_write_buffer_limits(high=0)  # from now on, draining means that everything is in the socket
    request.writer.send_headers()
    end = b""
    while count := await stream.available():
        transport.write(b"%b%x\r\n" % (end, count))
        end = b"\r\n"
        await request.writer.drain()
        while count:
            count -= await _splice(stream.descriptor, socket, count)
    transport.write(end)


async def _splice(source: int, socket: int, count: int) -> int:
    """Move up to `count` bytes, which the pipe `source` holds, once the socket has room."""
    while True:
        try:
            return os.splice(source, socket, count, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MORE)
        except BlockingIOError:
            await until_ready(socket, writing=True)
