"""Sends data from a pipe as a response's body without copying it into this process.

    file --sendfile--> pipe --splice--> socket        only the headers of HTTP's chunks are written here

The HTTP server still owns the connection: it has sent the head, and its buffers are empty while data is spliced into
the socket. Where splicing is impossible (TLS), data is read and written.

Sources: splice(2); RFC 9112, "Chunked Transfer Coding".
"""

from __future__ import annotations

import asyncio
import os

from aiohttp import HttpVersion11, web

from havre.storage.pipe import PipedStream, until_ready


async def pour(request: web.BaseRequest, response: web.StreamResponse, stream: PipedStream) -> None:
    """Send all of `stream`; its failure is raised. `ConnectionError` if the client has disconnected."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has left")
    if transport.get_extra_info("sslcontext") is not None or request.version < HttpVersion11:
        async for piece in stream:
            await response.write(piece)
        return
    # A duplicate: the event loop refuses to watch a transport's own descriptor.
    socket = os.dup(transport.get_extra_info("socket").fileno())
    try:
        await _splice_chunks(request, transport, stream, socket)
    finally:
        transport.set_write_buffer_limits()
        os.close(socket)


async def _splice_chunks(
    request: web.BaseRequest, transport: asyncio.Transport, stream: PipedStream, socket: int
) -> None:
    transport.set_write_buffer_limits(high=0)  # from now on, drain() returns when everything is in the socket
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
    """Move up to `count` bytes from the pipe `source` once the socket is writable."""
    while True:
        try:
            return os.splice(source, socket, count, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MORE)
        except BlockingIOError:
            await until_ready(socket, writing=True)
