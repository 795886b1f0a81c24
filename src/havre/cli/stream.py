"""Copies between the terminal and a hijacked connection in both directions.

              stdin  --> DetachFilter --> pending --> connection (half-closed at stdin's end)
              stdout <-- demultiplexer <------------- connection
              stderr <--'
              signals --> wake-up pipe --> `on_signal` (resize, sig-proxy)

One loop over poll(2). stdin is not read while earlier input is pending, so a container that does not read costs no
memory; output is always drained, so the two sides cannot deadlock.

Frames of a container without a terminal: stream byte (0, 1 out, 2 err, 3 daemon's error), three zero bytes, length.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import posix
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from havre.cli.tty import DetachFilter
    from havre.client.endpoint import Stream

_CHUNK = 64 << 10
_HEADER = 8
ENDED = "ended"
DETACHED = "detached"


class Demultiplexer:
    """Splits framed output into (descriptor, data); frames may arrive in pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        """The frames completed by `data`."""
        self._buffer += data
        start, end = 0, len(self._buffer)
        while end - start >= _HEADER:
            length = int.from_bytes(self._buffer[start + 4 : start + _HEADER], "big")
            if end - start < _HEADER + length:
                break
            kind = self._buffer[start]
            yield (1 if kind < 2 else 2), self._buffer[start + _HEADER : start + _HEADER + length]
            start += _HEADER + length
        self._buffer = self._buffer[start:]


class Raw:
    """Output of a terminal: everything is standard output."""

    def feed(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        """`data` unchanged."""
        return ((1, data),)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; waits while a non-blocking descriptor is full. Raises OSError."""
    while data:
        try:
            data = data[posix.write(descriptor, data) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()


class Signals:
    """Signals as bytes in a pipe, handled between two iterations of a loop (self-pipe)."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.descriptor, self._write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        _signal.set_wakeup_fd(self._write)
        for number in numbers:
            _signal.signal(number, lambda *_: None)

    def taken(self) -> bytes:
        """The numbers of the signals received since the last call."""
        try:
            return posix.read(self.descriptor, 256)
        except BlockingIOError:
            return b""


class Copy:
    """One copy. `stdin` is None when not attached; `detach` filters it; output for `hidden` descriptors is dropped."""

    def __init__(
        self,
        stream: Stream,
        early: bytes,
        *,
        tty: bool,
        stdin: int | None = None,
        detach: DetachFilter | None = None,
        signals: Signals | None = None,
        on_signal: Callable[[int], None] | None = None,
        hidden: frozenset[int] = frozenset(),
    ) -> None:
        self._stream = stream
        self._early = early
        self._output: Raw | Demultiplexer = Raw() if tty else Demultiplexer()
        self._stdin = stdin
        self._detach = detach
        self._signals = signals
        self._on_signal = on_signal
        self._hidden = hidden
        self._pending = b""
        self._input_over = stdin is None
        self._half_closed = False

    def run(self) -> str:
        """Copy until the connection ends (ENDED) or the detach keys are typed (DETACHED)."""
        self._show(self._early)
        self._stream.setblocking(False)
        if self._stdin is None:
            self._close_write()
        poll = select.poll()
        while True:
            if self._stream.buffered() and not self._receive():
                return ENDED
            ready = dict(self._wait(poll))
            if self._signals is not None and self._signals.descriptor in ready:
                self._act_on_signals()
            events = ready.get(self._stream.fileno(), 0)
            if events & ~select.POLLOUT and not self._receive():
                return ENDED
            if self._stdin is not None and self._stdin in ready and not self._read_input():
                return DETACHED
            self._send()

    def _wait(self, poll: select.poll) -> list[tuple[int, int]]:
        poll.register(self._stream.fileno(), select.POLLIN | (select.POLLOUT if self._pending else 0))
        if self._stdin is not None:
            if self._pending or self._input_over:
                try:
                    poll.unregister(self._stdin)
                except KeyError:  # it was not registered
                    pass
            else:
                poll.register(self._stdin, select.POLLIN)
        if self._signals is not None:
            poll.register(self._signals.descriptor, select.POLLIN)
        return poll.poll()

    def _act_on_signals(self) -> None:
        assert self._signals is not None
        for number in self._signals.taken():
            if self._on_signal is not None:
                self._on_signal(number)

    def _receive(self) -> bool:
        try:
            data = self._stream.recv(_CHUNK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._show(data)
        return bool(data)

    def _show(self, data: bytes) -> None:
        for descriptor, part in self._output.feed(data):
            if descriptor not in self._hidden:
                write_all(descriptor, part)

    def _read_input(self) -> bool:
        assert self._stdin is not None
        try:
            data = posix.read(self._stdin, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # the terminal is gone: treat as end of input
            data = b""
        if not data:
            self._input_over = True
            return True
        detached = False
        if self._detach is not None:
            data, detached = self._detach.feed(data)
        self._pending += data
        return not detached

    def _send(self) -> None:
        try:
            if self._pending:
                self._pending = self._pending[self._stream.send(self._pending) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # the peer does not read; its output still counts
            self._pending = b""
            self._input_over = True
            self._half_closed = True
        if self._input_over and not self._pending:
            self._close_write()

    def _close_write(self) -> None:
        if not self._half_closed:
            self._half_closed = True
            self._stream.close_write()
