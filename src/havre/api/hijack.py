"""Takes a connection over from the HTTP server (hijacks it), for attach, exec and build sessions.

After the response's head the connection is a byte stream, each half of which can be closed separately:

    client                                   daemon
    POST /containers/x/attach   ---------->
    Upgrade: tcp
                               <----------  HTTP/1.1 101 UPGRADED        (200 OK without "Upgrade")
    stdin bytes                 ---------->
    FIN (end of stdin)          ---------->  read() returns b""; output continues
                                <----------  output, framed or raw
                                <----------  FIN (end of output)

Three things that asyncio does not provide: it closes the whole connection at the client's FIN unless `eof_received`
returns True; it does not watch a connection after the FIN, so `_HangupWatch` does; and its server has to be told
that the connection was closed (`RequestHandler.connection_lost`), which cancels the request's handler.

Uses a private name of aiohttp (`_message_tail`), whose version is pinned.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

READ_AHEAD = 256 << 10


class Connection(asyncio.Protocol):
    """A hijacked connection: reads with back-pressure, writes that wait, and detection of disconnects.

    When the peer disconnects, the request's handler is cancelled and need not check for it.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._received: deque[bytes] = deque()
        self._received_size = 0
        self._ended = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._gone = False
        self._watch: _HangupWatch | None = None

    async def read(self) -> bytes:
        """Return the data received since the last call, waiting for some; b"" after the client has closed its half."""
        while not self._received and not self._ended:
            self._readable.clear()
            await self._readable.wait()
        data = b"".join(self._received)
        self._received.clear()
        self._received_size = 0
        if self._paused and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def write(self, *pieces: bytes) -> None:
        """Send the pieces at once and wait until the buffer has room. Raises `ConnectionError` if disconnected."""
        if self._gone:
            raise ConnectionResetError("the client has left")
        self._transport.writelines(pieces)
        await self._writable.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        self._received_size += len(data)
        self._readable.set()
        if self._received_size >= READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._readable.set()
        self._watch = _HangupWatch(self._transport)
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = self._ended = True
        self._readable.set()
        self._writable.set()
        if self._watch is not None:
            self._watch.close()
        self._owner.connection_lost(exc)


class Relinquished(asyncio.Protocol):
    """A hijacked connection for a protocol that needs the transport itself (HTTP/2).

    Passes everything to `inner`. The HTTP server is told of the end, which cancels the request's handler.
    """

    def __init__(self, owner: Any, inner: asyncio.Protocol) -> None:
        self._owner = owner
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        self._owner.connection_lost(exc)


class _HangupWatch:
    """Aborts a half-closed connection when the peer closes the other half.

    epoll(7) reports EPOLLHUP and EPOLLERR even for an empty event mask, so the socket is watched without reading.
    (Over TCP a full close after a FIN is not visible before a write fails.)
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._epoll.register(transport.get_extra_info("socket").fileno(), 0)
        self._loop.add_reader(self._epoll.fileno(), self._hung_up)

    def _hung_up(self) -> None:
        self.close()
        self._transport.abort()

    def close(self) -> None:
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()


class Taken(web.StreamResponse):
    """Returned by a handler after `take_over`: tells the HTTP server that the response is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write(self, data: Any) -> None:
        raise RuntimeError("the connection has been taken over")

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def take_over(request: web.BaseRequest, head: bytes) -> Connection:
    """Send `head` (a complete response head) and hijack the connection; the handler must return `Taken()` at its end.

    Must run before the client may send the stream's first byte, or the HTTP parser would consume it. Raises
    `ConnectionError` if the client has disconnected.
    """
    connection = Connection(request.protocol)
    _switch(request, head, connection)
    return connection


def give_over(request: web.BaseRequest, head: bytes, inner: asyncio.Protocol) -> asyncio.Transport:
    """As `take_over`, with `inner` as the connection's protocol; the handler closes the transport."""
    return _switch(request, head, Relinquished(request.protocol, inner))


def _switch(request: web.BaseRequest, head: bytes, protocol: asyncio.Protocol) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has left")
    owner = request.protocol
    transport.write(head)
    owner.keep_alive(False)  # cancels the keep-alive timer
    tail, owner._message_tail = owner._message_tail, b""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    transport.resume_reading()
    if tail:
        protocol.data_received(tail)
    return transport


def render_head(headers: dict[str, str], content_type: str, upgrade: str | None) -> bytes:
    """The head of a hijacked response; `upgrade` is the protocol asked for, None for status 200."""
    lines = ["HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK", f"Content-Type: {content_type}"]
    if upgrade:
        lines += ["Connection: Upgrade", f"Upgrade: {upgrade}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
