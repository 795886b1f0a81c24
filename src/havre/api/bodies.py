"""Bodies that one thread reads from the socket and uses, past the HTTP parser: what `cp` sends into a container.

    socket --recv--> buffer, the lines around HTTP's chunks taken out in place --> take(bytes)

aiohttp copies a body three times and runs Python for each chunk, which costs more than to write the files. By the time
that a handler runs, its parser has eaten the beginning. So a connection stops reading as soon as the head of such a
request is there, and holds the bytes that came behind it:

    data_received: head, 200 KiB of the body --> parsed as ever; reading stops, the bytes behind the head are held
    feed_body:     held bytes, then the socket --> take; the connection ends with the answer
    let_go:        nobody took them            --> reading goes on, aiohttp's parser is where it was

A body that came whole with its head, one over TLS, and one whose head came in pieces are aiohttp's, as all others.
Leans on private names of aiohttp (`_messages`, `_reading_paused`, `_resume_transport_reading`); its version is pinned.

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
_BUFFER = 128 << 10  # stays in the cache of the processor between recv and pwrite
_MAX_LINE = 4096
_MAX_TRAILERS = 64
_LINGER_S = 10.0  # aiohttp's: how long a client that was refused may go on sending before it is cut off


class HoldingProtocol(RequestHandler):
    """aiohttp's connection, which holds the bodies described above."""

    _newest: Any = None  # the payload of the newest request
    _held: bytes | None = None  # what has come of a body that nobody has taken
    _body: _Body | None = None  # that somebody has taken

    @property
    def holds(self) -> bool:
        """Whether the body of the newest request waits for a thread to read it."""
        return self._held is not None

    @property
    def taken(self) -> bool:
        """Whether the connection must end with the answer."""
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
        """The body of `request`, if that is held; the connection then ends with the answer."""
        if self._held is None or self.transport is None or request.content is not self._newest:
            return None
        first, self._held = self._held, None
        framing = Chunked() if request.content_length is None else Sized(request.content_length)
        self._body = _Body(self.transport, first, framing)
        request.content.feed_eof()  # for aiohttp, there is nothing more to come
        return self._body

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._body is not None:
            self._body.answered()

    def let_go(self) -> None:
        """To be called at the end of each request: what nobody took is aiohttp's to discard."""
        if self._held is not None:
            self._held = None
            if not self._reading_paused:
                self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if self._held is None and not self.taken:
            super()._resume_transport_reading()


async def feed_body(request: web.BaseRequest, take: Callable[[Any], None]) -> None:
    """Give all of the body to `take`, in a thread.

    `InvalidInput` for bad chunks and an early end, `ConnectionError` for a cut, `Unavailable` with too many at a time.
    """
    protocol = request.protocol
    body = protocol.take(request) if isinstance(protocol, HoldingProtocol) else None
    if body is None:
        await feed(request.content.iter_any(), take)
    else:
        await body.feed(take)


class _Body:
    """A body whose beginning is `first` and whose rest is in the socket of `transport`, which does not read."""

    def __init__(self, transport: asyncio.Transport, first: bytes, framing: Chunked | Sized) -> None:
        self._transport = transport
        self._first = first
        self._framing = framing
        self._socket: socket.socket = transport.get_extra_info("socket").dup()  # which does not block

    async def feed(self, take: Callable[[memoryview], None]) -> None:
        try:
            working = in_own_thread(self._feed, take)
            await asyncio.shield(working)
        except asyncio.CancelledError:
            with suppress(OSError):  # not connected any more: the thread sees that, too
                self._socket.shutdown(socket.SHUT_RD)
            await asyncio.wait([working])
            working.exception()  # retrieved: nobody waits for it
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
                raise InvalidInput("unexpected EOF")  # who has left altogether does not hear it

    def _receive(self, view: memoryview) -> int:
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        while True:
            try:
                return self._socket.recv_into(view)
            except BlockingIOError:
                readable.poll()

    def answered(self) -> None:
        """All of the answer is on its way; a client that waits for the end of the connection need not wait longer."""
        with suppress(OSError):  # closed, or the client has left
            self._socket.shutdown(socket.SHUT_WR)

    async def _discard(self) -> None:
        """A client that is cut off in the middle of sending may not see its answer."""
        loop = asyncio.get_running_loop()
        with self._socket:
            try:
                async with asyncio.timeout(_LINGER_S):
                    while await loop.sock_recv(self._socket, _BUFFER):
                        pass
            except (TimeoutError, ConnectionError):
                return


class Sized:
    """A body of a known length."""

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
        self._left = 0  # of the chunk's content
        self._line = bytearray()  # the beginning of one
        self._trailers = 0
        self._take = self._size

    def strip(self, buffer: bytearray, count: int) -> int:
        """Move the content that is in the first `count` bytes to the beginning; how much it is."""
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
                raise InvalidInput("a line between the chunks of the body is too long")
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
            raise InvalidInput(f"more than {_MAX_TRAILERS} trailers behind the chunks of the body")


def _malformed(line: bytes) -> InvalidInput:
    return InvalidInput(f"malformed chunk of the body: {line[:40]!r}")
