"""Reads logs: selects lines, finds the last ones, follows.

Parts are passed on as they are read, so lines may have any length; only a line's first part carries the time stamp, and
only the last the newline. Each chunk is the result of one read of a file, available without waiting. Lines are
processed
one by one only around `since` and `until`, and with `details`.

Times increase along a log, so bisection finds the start of `since`, and the ends of a block decide whether all of it is
in range.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from havre.aio import in_thread
from havre.logs.files import BLOCK, close_all
from havre.logs.records import Form, LogChunk, Record

# Bytes of a file read to find a record; a bisection stops at this size.
NEAR = 64 << 10


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The selection of a log; `since` and `until` in seconds since the epoch, `tail` in lines, None for all."""

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
    """Selects and renders records; tracks, for each stream, whether an unfinished line is being shown."""

    def __init__(self, options: LogOptions, form: Form) -> None:
        self._options = options
        self._form = form
        self._wanted = frozenset(number for number, given in ((1, options.stdout), (2, options.stderr)) if given)
        self._unfinished: dict[int, bool] = {}
        self.past_until = False

    def render_all(self, block: bytes) -> list[LogChunk]:
        """Render some whole lines of the file for the client."""
        if not self._options.details and not self._unfinished and self._all_in_time(block):
            chunks = self._form.show(block, self._options.timestamps)
            if chunks is not None:
                return [chunk for chunk in chunks if chunk[0] in self._wanted]
        records = (self._form.parse(line) for line in block.split(b"\n")[:-1])
        return [shown for record in records if record and (shown := self.render(record))]

    def _all_in_time(self, block: bytes) -> bool:
        if self._options.since is None and self._options.until is None:
            return True
        first = self._form.parse(block[: block.index(b"\n")])
        last = self._form.parse(block[block.rfind(b"\n", 0, -1) + 1 : -1])
        return first is not None and last is not None and self._in_time(first) and self._in_time(last)

    def render(self, record: Record) -> LogChunk | None:
        """Render a record for the client; None if it is not selected."""
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
    """The notifications to a following reader: more data, new files, and the end."""

    def __init__(self, most_files: int) -> None:
        self._most = most_files
        self._files: deque[int] = deque()
        self._news = asyncio.Event()
        self.over = False

    def tell(self, files: Sequence[int]) -> None:
        """Report more data; `files` (descriptors, duplicated here) are new. The oldest are dropped as on disk."""
        self._files.extend(os.dup(file) for file in files)
        while len(self._files) > self._most:
            os.close(self._files.popleft())
        self._news.set()

    def end(self) -> None:
        """Report the end."""
        self.over = True
        self._news.set()

    def take(self) -> list[int]:
        """The files begun since the last call; the caller closes them."""
        taken = list(self._files)
        self._files.clear()
        return taken

    async def wait(self, until: float | None) -> bool:
        """Wait for a notification; False at the end, or when `until` has passed."""
        if self.over:
            return False
        try:
            await asyncio.wait_for(self._news.wait(), None if until is None else max(0.0, until - time.time()))
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def close(self) -> None:
        """Release the descriptors: the reader has left."""
        close_all(self.take())


async def read_files(
    files: list[int], form: Form, options: LogOptions, follower: Follower | None
) -> AsyncGenerator[list[LogChunk], None]:
    """Yield the lines of some files, oldest first, and then what `follower` reports. Takes ownership of the
    descriptors."""
    selection = Selection(options, form)
    try:
        place, offset = await in_thread(_first_place, files, options, form)
        rest, going = b"", True
        while not selection.past_until:
            if follower is not None:
                files += follower.take()
            last = place + 1 >= len(files)  # before reading: a file with a successor is complete
            data = await in_thread(os.pread, files[place], BLOCK, offset) if files else b""
            if data:
                offset += len(data)
                end = data.rfind(b"\n") + 1
                whole, rest = (rest + data[:end], data[end:]) if end else (b"", rest + data)
                if whole and (shown := selection.render_all(whole)):
                    yield shown
            elif not last:
                place, offset, rest = place + 1, 0, b""
            elif follower is None or not going:
                return
            else:
                going = await follower.wait(options.until)
    finally:
        close_all(files)


def _first_place(files: Sequence[int], options: LogOptions, form: Form) -> tuple[int, int]:
    """The file and offset where reading begins. Blocking."""
    begun = (0, 0) if options.tail is None else tail_place(files, options.tail, form)
    return begun if options.since is None else max(begun, since_place(files, options.since, form))


def since_place(files: Sequence[int], since: float, form: Form) -> tuple[int, int]:
    """A file and offset shortly before the first record written at `since` or later. Blocking."""

    def is_before(record: Record | None) -> bool:
        return record is not None and seconds_of(record.time) < since

    for place in reversed(range(len(files))):
        begun, record = _record_from(files[place], 0, form)
        if not is_before(record):
            continue
        low, high = 0, os.fstat(files[place]).st_size
        while high - low > NEAR:
            middle = (low + high) // 2
            start, record = _record_from(files[place], middle, form)
            if is_before(record):
                low, begun = middle, start
            else:
                high = middle
        return place, begun
    return 0, 0


def _record_from(file: int, offset: int, form: Form) -> tuple[int, Record | None]:
    """The first record at or after `offset`, and its offset; None if there is none within NEAR."""
    data = os.pread(file, NEAR, offset - 1) if offset else b"\n" + os.pread(file, NEAR, 0)
    start = data.find(b"\n") + 1
    return offset + start - 1, form.parse(data[start : data.find(b"\n", start)]) if start else None


def tail_place(files: Sequence[int], lines: int, form: Form) -> tuple[int, int]:
    """The file and offset where the last `lines` lines begin. Blocking.

    An unfinished last line of a stream counts as one.
    """
    if lines <= 0:
        return max(0, len(files) - 1), os.fstat(files[-1]).st_size if files else 0
    found = 0
    seen: set[int] = set()
    for place in reversed(range(len(files))):
        for begun, block in _blocks_backwards(files[place], os.fstat(files[place]).st_size):
            count = form.count(block)
            if count is not None and found + count <= lines:
                found += count
                seen |= {1, 2}
                continue
            end = begun + block.rfind(b"\n") + 1
            for line in reversed(block.split(b"\n")[:-1]):
                record = form.parse(line)
                if record is not None and (record.ends_line or record.stream not in seen):
                    if found == lines:
                        return place, end
                    found += 1
                if record is not None:
                    seen.add(record.stream)
                end -= len(line) + 1
    return 0, 0


def _blocks_backwards(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines in large blocks, from the last to the first, each with the block's offset."""
    position, rest = size, b""
    while position > 0:
        step = min(BLOCK, position)
        position -= step
        data = os.pread(descriptor, step, position) + rest
        begun = data.find(b"\n") + 1 if position else 0
        rest = data[:begun]
        if begun < len(data):
            yield position + begun, data[begun:]
