"""The part of a spool that is skipped, where a container must not wait for its log (mode=non-blocking).

    offset                start                    end            being written
    -----|---------------------|///////////////////////|-----------------|
     at most `buffer` bytes, the oldest          fits in the buffer again, or widens the gap

As in dockerd, lines written while the buffer was full are dropped, never lines already in it. A gap begins and ends
between lines, if there are any within NEAR.
"""

from __future__ import annotations

import os

from havre.logs.files import BLOCK
from havre.logs.records import HEAD, kind_of

NEAR = 64 << 10


class Gap:
    """The gap of one spool; never one with a `buffer` of None."""

    def __init__(self, buffer: int | None) -> None:
        self._buffer = buffer
        self.start = self.end = 0

    def widen(self, spool: int, offset: int) -> None:
        """Drop what exceeds the buffer behind `offset`. Blocking."""
        if self._buffer is None:
            return
        size = os.fstat(spool).st_size
        if size - offset <= self._buffer:
            return
        room = _room(spool, offset, self._buffer)
        if offset >= self.end:
            if size - offset > room:
                self.start = _line_end(spool, offset, offset + room)
                self.end = _line_end(spool, self.start, size)
        elif size - self.end > room - max(0, self.start - offset):
            self.end = _line_end(spool, self.end, size)

    def covers(self, offset: int) -> bool:
        """Report whether data at `offset` is dropped."""
        return self.start <= offset < self.end

    def reach(self, offset: int) -> int:
        """Number of bytes that may be read at `offset` without crossing an edge, up to BLOCK."""
        edges = (edge for edge in (self.start, self.end) if edge > offset)
        return min(BLOCK, next(edges, offset + BLOCK) - offset)


def _room(spool: int, offset: int, buffer: int) -> int:
    """Length of the spool from `offset` that has `buffer` bytes of text, estimated from the share of text within
    NEAR."""
    sample = os.pread(spool, NEAR, offset)
    lines = sample.count(b"\n")
    return buffer * len(sample) // max(len(sample) - HEAD * lines, lines, 1)


def _line_end(spool: int, first: int, last: int) -> int:
    """The end of the last line between two offsets; of a record, if a line is longer than NEAR; else `first`."""
    begun = max(first, last - NEAR)
    *lines, rest = os.pread(spool, last - begun, begun).split(b"\n")
    end = whole = last - len(rest)
    for line in reversed(lines):
        if (kind := kind_of(line)) and kind[1]:
            return end
        end -= len(line) + 1
    return whole if lines and last - first >= NEAR else first
