"""Distributes one container's output to any number of readers, with backpressure.

                          +-> Subscription (deque, at most LIMIT bytes waiting) -> async for
    conmon -> publish() --->+-> Subscription
      |     ^               +-> ...
    False: hold   room(): go on

conmon must always be drained, through a single connection. Its data is appended to each subscription's queue. `publish`
returns False once a queue holds LIMIT bytes: the caller stops reading from conmon, the socket fills up, and the
container's writes block, as in Docker. When the slowest reader is half-way down, or leaves, `room` is called and
reading
resumes. `hold` does the same for a log that is too slow. When the process has ended (`hurry`), the rest in pipe and
socket is read at once, and a reader loses only what exceeds LAST_LIMIT.

Memory per subscription is bounded by LIMIT, and LAST_LIMIT at the end, plus one packet. Event loop only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

STDOUT, STDERR = 1, 2
LIMIT = 1 << 20
LAST_LIMIT = 4 << 20
CHUNK = 1 << 16

Chunk = tuple[int, bytes]


class Subscription:
    """An async iterator of `(stream, data)`; it ends when the process's output has ended or after `close()`."""

    def __init__(self, fanout: Fanout, streams: frozenset[int]) -> None:
        self._fanout = fanout
        self._streams = streams
        self._queue: deque[Chunk] = deque()
        self._waiting = 0
        self._ended = False
        self._wakeup: asyncio.Future[None] | None = None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Chunk:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        chunk = self._take()
        self._fanout._consumed()
        return chunk

    def close(self) -> None:
        """Unsubscribe: discards queued data and ends the iteration. Idempotent."""
        self._queue.clear()
        self._waiting = 0
        self._end()
        self._fanout._leave(self)

    def _take(self) -> Chunk:
        """The next chunk, merged with later data of the same stream up to CHUNK bytes."""
        stream, data = self._queue.popleft()
        size = len(data)
        pieces = [data]
        while self._queue and self._queue[0][0] == stream and size + len(self._queue[0][1]) <= CHUNK:
            pieces.append(self._queue.popleft()[1])
            size += len(pieces[-1])
        self._waiting -= size
        return stream, b"".join(pieces) if len(pieces) > 1 else data

    def _put(self, stream: int, data: bytes) -> None:
        if stream in self._streams:
            self._queue.append((stream, data))
            self._waiting += len(data)
            self._wake()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


class Fanout:
    """The output of one process. `room` is called when `publish` has returned False and may be called again."""

    def __init__(self) -> None:
        self.room: Callable[[], None] = _nobody_waits
        self._subscriptions: list[Subscription] = []
        self._held = False
        self._closed = False
        self._hurried = False
        self._behind = False
        self._ring: Callable[[], None] | None = None

    def subscribe(self, *, stdout: bool = True, stderr: bool = True) -> Subscription:
        """Subscribe to output from now on. Without subscriptions output goes to the log only."""
        streams = frozenset({STDOUT} if stdout else ()) | frozenset({STDERR} if stderr else ())
        subscription = Subscription(self, streams)
        if self._closed:
            subscription._end()
        else:
            self._subscriptions.append(subscription)
        return subscription

    def alarm(self, ring: Callable[[], None]) -> None:
        """Call `ring` once at the next `publish`; replaces an earlier alarm."""
        self._ring = ring

    def hold(self, held: bool) -> None:
        """Pause the process's output, or resume it, for a log that is too slow."""
        self._behind = held
        self._consumed()

    def publish(self, stream: int, data: bytes) -> bool:
        """Queue `data` for all; False when the caller must not publish more until `room` is called."""
        for subscription in self._subscriptions:
            if subscription._waiting < LAST_LIMIT:
                subscription._put(stream, data)
        if self._ring is not None:
            ring, self._ring = self._ring, None
            ring()
        self._held = not self._hurried and (self._behind or self._fullest() >= LIMIT)
        return not self._held

    def hurry(self) -> None:
        """The process has ended: read what is left without waiting for readers."""
        self._hurried = True
        self._consumed()

    def close(self) -> None:
        """The output has ended: subscriptions end after their queued data. Idempotent."""
        self._closed = True
        self._ring = None
        self.room = _nobody_waits  # drops the reference to the connection, which refers to this
        for subscription in self._subscriptions:
            subscription._end()
        self._subscriptions.clear()

    def _fullest(self) -> int:
        return max((subscription._waiting for subscription in self._subscriptions), default=0)

    def _consumed(self) -> None:
        if self._held and (self._hurried or (not self._behind and self._fullest() <= LIMIT // 2)):
            self._held = False
            self.room()

    def _leave(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        self._consumed()


def _nobody_waits() -> None:
    """The value of `room` before a connection sets it."""
