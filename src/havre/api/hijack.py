"""Taking a connection over from the HTTP server, for attach, exec and the sessions of a build.

After the response's head the connection is a byte stream that either side may close half-way:

    client                                   daemon
    POST /containers/x/attach   ---------->
    Upgrade: tcp
                                <----------  HTTP/1.1 101 UPGRADED        (200 OK without "Upgrade")
    stdin bytes                 ---------->
    FIN (end of stdin)          ---------->  read() gives b""; output goes on
                                <----------  output, framed or raw
                                <----------  FIN (end of output)

Three things that asyncio does not do by itself: it would close the whole connection at the client's FIN, so
`eof_received` refuses; it no longer watches a connection whose FIN it has read, so `_HangupWatch` does; and its server
must be told that the connection has ended (`RequestHandler.connection_lost`), which cancels the request's handler.

This is the only module that leans on private names of aiohttp (`_message_tail`); its version is pinned.
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
    """A connection taken over: reads with back-pressure, writes that wait, and word of the peer's leaving.

    When the peer has gone, the request's handler is cancelled; it need not watch for that itself.
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
        """What has arrived since the last call, waiting for something; b"" once the client has closed its half."""
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
        """Send the pieces in one go; returns when the peer has room for more. Raises `ConnectionError` once it left."""
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
    """A connection taken over for a protocol that wants the transport to itself (HTTP/2).

    Everything goes to `inner`; the HTTP server learns of the end, which cancels the request's handler.
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
    """Aborts a half-closed connection when its peer closes the other half, too.

    epoll reports HUP and ERR even for an empty event mask, so that the socket can be watched without being read. (Over
    TCP nothing shows before a write fails: the kernel itself does not know.)
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
    """What a handler returns after `take_over`: tells the HTTP server that all has been said."""

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
    """Send `head` (a whole response head) and take the connection; the handler must return `Taken()` in the end.

    To be called before the client may send the stream's first byte, or the HTTP parser would eat it. Raises
    `ConnectionError` when the client has already left.
    """
    connection = Connection(request.protocol)
    _switch(request, head, connection)
    return connection


def give_over(request: web.BaseRequest, head: bytes, inner: asyncio.Protocol) -> asyncio.Transport:
    """As `take_over`, with `inner` as the connection's protocol from now on; to be closed by the handler."""
    return _switch(request, head, Relinquished(request.protocol, inner))


def _switch(request: web.BaseRequest, head: bytes, protocol: asyncio.Protocol) -> asyncio.Transport:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has left")
    owner = request.protocol
    transport.write(head)
    owner.keep_alive(False)  # drops the keep-alive timer
    tail, owner._message_tail = owner._message_tail, b""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    transport.resume_reading()
    if tail:
        protocol.data_received(tail)
    return transport


def render_head(headers: dict[str, str], content_type: str, upgrade: str | None) -> bytes:
    """The head that precedes a taken stream; `upgrade` is the protocol asked for, None for the 200 form."""
    lines = ["HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK", f"Content-Type: {content_type}"]
    if upgrade:
        lines += ["Connection: Upgrade", f"Upgrade: {upgrade}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
