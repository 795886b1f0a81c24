"""Reading a log: selecting lines, finding the last ones, following.

Parts are passed on as they are read, so a line may be of any length; only the first part carries the line's time stamp,
and only the last its newline. Lines are handed out in lists: all of one read of a file, which is also what can be had
without waiting.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from havre.aio import in_thread
from havre.logs.files import BLOCK
from havre.logs.records import Form, LogLine, Record


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of the log; `since` and `until` in seconds since the epoch, `tail` in lines, None for all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    since: float | None = None
    until: float | None = None
    tail: int | None = None


def seconds_of(stamp: bytes) -> float:
    """A record's time as seconds since the epoch."""
    whole, _, fraction = stamp.decode("ascii").removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + (float("0." + fraction) if fraction else 0.0)


class Selection:
    """Chooses and renders records by the options; remembers, for each stream, whether a line has begun and is shown."""

    def __init__(self, options: LogOptions, form: Form) -> None:
        self._options = options
        self._form = form
        self._wanted = frozenset(number for number, given in ((1, options.stdout), (2, options.stderr)) if given)
        # Without times a record says by itself how it is shown: a million of them are rendered in under a second.
        timed = options.timestamps or options.since is not None or options.until is not None
        self._plain = not timed and not options.details
        self._unfinished: dict[int, bool] = {}
        self.past_until = False

    def render_all(self, lines: Sequence[bytes]) -> list[LogLine]:
        """What of some lines of the file the client sees."""
        if self._plain:
            return self._form.show(lines, self._wanted)
        records = (self._form.parse(line) for line in lines)
        return [shown for record in records if record and (shown := self.render(record))]

    def render(self, record: Record) -> LogLine | None:
        """The record as the client sees it, or None if it is not wanted."""
        continued = record.stream in self._unfinished
        shown = self._unfinished[record.stream] if continued else self._in_time(record)
        if record.ends_line:
            self._unfinished.pop(record.stream, None)
        else:
            self._unfinished[record.stream] = shown
        if not shown or record.stream not in self._wanted:
            return None
        head = b"" if continued else self._head(record)
        return record.stream, head + record.text + (b"\n" if record.ends_line else b"")

    def _head(self, record: Record) -> bytes:
        stamp = record.time + b" " if self._options.timestamps else b""
        return stamp + record.attrs + b" " if self._options.details else stamp

    def _in_time(self, record: Record) -> bool:
        since, until = self._options.since, self._options.until
        if since is None and until is None:
            return True
        written = seconds_of(record.time)
        if until is not None and written > until:
            self.past_until = True
            return False
        return since is None or written >= since


class Follower:
    """What a reader who follows is told: that there is more, which files have been begun, and that it is over."""

    def __init__(self, most_files: int) -> None:
        self._most = most_files
        self._files: deque[int] = deque()
        self._news = asyncio.Event()
        self.over = False

    def tell(self, files: Sequence[int]) -> None:
        """There is more; `files` (descriptors, duplicated here) have been begun. The oldest go as on disk."""
        self._files.extend(os.dup(file) for file in files)
        while len(self._files) > self._most:
            os.close(self._files.popleft())
        self._news.set()

    def end(self) -> None:
        """No more will come."""
        self.over = True
        self._news.set()

    def take(self) -> list[int]:
        """The files begun since the last call; the caller closes them."""
        taken = list(self._files)
        self._files.clear()
        return taken

    async def wait(self, until: float | None) -> bool:
        """Wait for news; False when there will be none, or `until` has come."""
        if self.over:
            return False
        try:
            await asyncio.wait_for(self._news.wait(), None if until is None else max(0.0, until - time.time()))
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def close(self) -> None:
        """The reader has left."""
        for file in self.take():
            os.close(file)


async def read_files(
    files: list[int], form: Form, options: LogOptions, follower: Follower | None
) -> AsyncIterator[list[LogLine]]:
    """The lines of some files, oldest first, and what `follower` tells of. Takes over the descriptors."""
    selection = Selection(options, form)
    try:
        place, offset = 0, 0
        if options.tail is not None:
            place, offset = await in_thread(tail_place, files, options.tail, form)
        rest, going = b"", True
        while True:
            if follower is not None:
                files += follower.take()
            last = place + 1 >= len(files)  # before reading: what is followed by another is complete
            data = await in_thread(os.pread, files[place], BLOCK, offset) if files else b""
            if data:
                offset += len(data)
                *lines, rest = (rest + data).split(b"\n")
                if shown := selection.render_all(lines):
                    yield shown
            elif not last:
                place, offset, rest = place + 1, 0, b""
            elif follower is None or not going or selection.past_until:
                return
            else:
                going = await follower.wait(options.until)
    finally:
        for descriptor in files:
            os.close(descriptor)


def tail_place(files: Sequence[int], lines: int, form: Form) -> tuple[int, int]:
    """Where the last `lines` lines of some files begin: which file, and its offset. Blocking.

    An unfinished last line of a stream counts as one.
    """
    if lines <= 0:
        return max(0, len(files) - 1), os.fstat(files[-1]).st_size if files else 0
    found = 0
    seen: set[int] = set()
    for place in reversed(range(len(files))):
        for end, line in _lines_backwards(files[place], os.fstat(files[place]).st_size):
            record = form.parse(line)
            if record is None:
                continue
            if record.ends_line or record.stream not in seen:
                if found == lines:
                    return place, end
                found += 1
            seen.add(record.stream)
    return 0, 0


def _lines_backwards(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The lines from the last to the first, each with the offset behind its newline."""
    position, rest = size, b""
    while position > 0:
        step = min(BLOCK, position)
        position -= step
        first, *lines = (os.pread(descriptor, step, position) + rest).split(b"\n")
        end = position + step + len(rest)
        for line in reversed(lines):
            if line or end < size:
                yield min(end + 1, size), line
            end -= len(line) + 1
        rest = first
    yield min(len(rest) + 1, size), rest
