"""Request bodies that a thread reads from the socket, past the HTTP parser: archives that `cp` sends.

    socket --recv--> buffer, chunk headers removed in place --> take(bytes)

aiohttp copies a body three times and runs Python code for each chunk, which costs more than writing the files. When
a handler starts, its parser has already consumed the beginning. So a connection stops reading once the head of such
a request is parsed, and keeps the bytes received after it:

    data_received: head, 200 KiB of the body --> parsed as usual; reading stops, the bytes after the head are kept
    feed_body:     kept bytes, then the socket --> take; the connection closes after the response
    let_go:        not taken by the handler    --> reading resumes, with aiohttp's parser in its previous state

A body received completely with its head, one over TLS, and one whose head arrived in pieces are left to aiohttp,
like all others. Uses private names of aiohttp (`_messages`, `_reading_paused`, `_resume_transport_reading`); its
version is pinned.

Source: RFC 9112, "Chunked Transfer Coding".
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from havre.aio import feed, in_own_thread, spawn
from havre.errors import InvalidInput

_HELD = re.compile(rb"PUT (?:/v[0-9.]+)?/containers/[^/? ]+/archive[? ]")
_BUFFER = 128 << 10  # stays in the processor's cache between recv and pwrite
_MAX_LINE = 4096
_MAX_TRAILERS = 64
_LINGER_S = 10.0  # as in aiohttp: how long a refused client may go on sending before its connection is closed


class HoldingProtocol(RequestHandler):
    """aiohttp's connection, which keeps the bodies described above."""

    _newest: Any = None  # the payload of the newest request
    _held: bytes | None = None  # the kept bytes of a body that is not taken
    _body: _Body | None = None  # the body taken by a handler

    @property
    def holds(self) -> bool:
        """Report whether the body of the newest request can be read by a thread."""
        return self._held is not None

    @property
    def taken(self) -> bool:
        """Report whether the connection must close after the response."""
        return self._body is not None

    def data_received(self, data: bytes) -> None:
        between = not self._messages and (self._newest is None or self._newest.is_eof())
        super().data_received(data)
        if not self._messages:
            return
        self._newest = self._messages[-1][1]
        if between and len(self._messages) == 1 and not self._newest.is_eof() and _HELD.match(data):
            self._hold(data[data.index(b"\r\n\r\n") + 4 :])

    def _hold(self, first: bytes) -> None:
        assert self.transport is not None
        if self.transport.get_extra_info("sslcontext") is None:
            self.transport.pause_reading()
            self._held = first

    def take(self, request: web.BaseRequest) -> _Body | None:
        """Take the body of `request`, if kept; the connection closes after the response."""
        if self._held is None or self.transport is None or request.content is not self._newest:
            return None
        first, self._held = self._held, None
        framing = Chunked() if request.content_length is None else Sized(request.content_length)
        self._body = _Body(self.transport, first, framing)
        request.content.feed_eof()  # for aiohttp, the body has ended
        return self._body

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._body is not None:
            self._body.answered()

    def let_go(self) -> None:
        """Leave a body that was not taken to aiohttp, which discards it. To be called at the end of each request."""
        if self._held is not None:
            self._held = None
            if not self._reading_paused:
                self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if self._held is None and not self.taken:
            super()._resume_transport_reading()


async def feed_body(request: web.BaseRequest, take: Callable[[Any], None]) -> None:
    """Pass the whole body to `take`, in a thread.

    `InvalidInput` for invalid chunks or an early end, `ConnectionError` if the client disconnects, `Unavailable` if
    too many bodies are being read.
    """
    protocol = request.protocol
    body = protocol.take(request) if isinstance(protocol, HoldingProtocol) else None
    if body is None:
        await feed(request.content.iter_any(), take)
    else:
        await body.feed(take)


class _Body:
    """A body of which `first` was received; the rest is in the socket of `transport`, whose reading is paused."""

    def __init__(self, transport: asyncio.Transport, first: bytes, framing: Chunked | Sized) -> None:
        self._transport = transport
        self._first = first
        self._framing = framing
        self._socket: socket.socket = transport.get_extra_info("socket").dup()  # non-blocking

    async def feed(self, take: Callable[[memoryview], None]) -> None:
        try:
            working = in_own_thread(self._feed, take)
            await asyncio.shield(working)
        except asyncio.CancelledError:
            with suppress(OSError):  # disconnected: the thread notices, too
                self._socket.shutdown(socket.SHUT_RD)
            await asyncio.wait([working])
            working.exception()  # mark as retrieved
            self._socket.close()
            raise
        except ConnectionError:
            self._socket.close()
            self._transport.abort()
            raise
        except BaseException:
            spawn(self._discard(), "discard what a client sends that was refused")
            raise
        self._socket.close()

    def _feed(self, take: Callable[[memoryview], None]) -> None:
        buffer = bytearray(max(_BUFFER, len(self._first)))
        view = memoryview(buffer)
        count = len(self._first)
        view[:count] = self._first
        while True:
            if kept := self._framing.strip(buffer, count):
                take(view[:kept])
            if self._framing.ended:
                return
            if not (count := self._receive(view)):
                raise InvalidInput("unexpected EOF")  # a client that has disconnected does not receive this

    def _receive(self, view: memoryview) -> int:
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        while True:
            try:
                return self._socket.recv_into(view)
            except BlockingIOError:
                readable.poll()

    def answered(self) -> None:
        """The whole response is buffered: close our half of the connection, so that the client need not wait longer."""
        with suppress(OSError):  # closed, or the client has disconnected
            self._socket.shutdown(socket.SHUT_WR)

    async def _discard(self) -> None:
        """Read and drop what the client still sends: a reset could discard our response (RFC 9112, section 9.6)."""
        loop = asyncio.get_running_loop()
        with self._socket:
            try:
                async with asyncio.timeout(_LINGER_S):
                    while await loop.sock_recv(self._socket, _BUFFER):
                        pass
            except (TimeoutError, ConnectionError):
                return


class Sized:
    """A body with Content-Length."""

    def __init__(self, size: int) -> None:
        self._left = size

    @property
    def ended(self) -> bool:
        return not self._left

    def strip(self, buffer: bytearray, count: int) -> int:
        kept = min(count, self._left)
        self._left -= kept
        return kept


class Chunked:
    """A body in chunks: `size CRLF, content CRLF`, ..., `0 CRLF`, trailers, an empty line."""

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # of the chunk's data
        self._line = bytearray()  # an incomplete line
        self._trailers = 0
        self._take = self._size

    def strip(self, buffer: bytearray, count: int) -> int:
        """Move the data in the first `count` bytes to the front. Returns its length."""
        view = memoryview(buffer)
        at = kept = 0
        while at < count and not self.ended:
            if self._left:
                more = min(self._left, count - at)
                if at != kept:
                    view[kept : kept + more] = view[at : at + more]
                at, kept, self._left = at + more, kept + more, self._left - more
                continue
            end = buffer.find(b"\n", at, count)
            self._line += view[at : end + 1 if end >= 0 else count]
            at = end + 1 if end >= 0 else count
            if len(self._line) > _MAX_LINE:
                raise InvalidInput("a chunk header or trailer of the body is too long")
            if end >= 0:
                line, self._line = bytes(self._line), bytearray()
                if not line.endswith(b"\r\n"):
                    raise _malformed(line)
                self._take(line[:-2])
        return kept

    def _size(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise _malformed(line)
        self._left = int(digits, 16)
        self._take = self._gap if self._left else self._trailer

    def _gap(self, line: bytes) -> None:
        if line:
            raise _malformed(line)
        self._take = self._size

    def _trailer(self, line: bytes) -> None:
        self.ended = not line
        self._trailers += 1
        if self._trailers > _MAX_TRAILERS:
            raise InvalidInput(f"more than {_MAX_TRAILERS} trailer fields after the body")


def _malformed(line: bytes) -> InvalidInput:
    return InvalidInput(f"malformed chunk of the body: {line[:40]!r}")
