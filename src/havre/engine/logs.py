"""Reading what a container wrote, from the file that conmon keeps.

A record is `TIME STREAM TAG TEXT\n`: TAG is F for the end of a line, P for a part of one (a read of at most 8 KiB that
had no newline). Parts are passed on as they are read, so a line may be of any length; only the first part carries the
line's time stamp, and only the last its newline.

    2026-11-24T13:00:04.303359690+00:00 stdout P a long
    2026-11-24T13:00:04.303361000+00:00 stdout F  line

Following needs no polling: conmon writes the log before it hands the same bytes to those attached, so the process's own
output is the signal that there is more to read.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from havre.aio import in_thread
from havre.engine import times
from havre.engine.logfiles import open_all, open_newer
from havre.runtime import Process
from havre.runtime.fanout import Subscription

BLOCK = 256 << 10
_STREAMS = {b"stdout": 1, b"stderr": 2}


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of the log; `since` and `until` in seconds since the epoch, `tail` in lines, None for all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    since: float | None = None
    until: float | None = None
    tail: int | None = None


LogLine: TypeAlias = tuple[int, bytes]
"""A line or a part of one, newline included, and the stream it was written to (1 stdout, 2 stderr)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the file."""

    time: bytes
    stream: int
    ends_line: bool
    text: bytes


def parse_record(line: bytes) -> Record | None:
    """A line of the file without its newline; None for what is not a record (a write cut short by a full disk)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in _STREAMS or parts[2] not in (b"F", b"P"):
        return None
    return Record(parts[0], _STREAMS[parts[1]], parts[2] == b"F", parts[3] if len(parts) == 4 else b"")


def seconds_of(stamp: bytes) -> float:
    """A record's time as seconds since the epoch."""
    return times.parse(stamp.decode("ascii").replace("+00:00", "Z"))


class Selection:
    """Chooses and renders records by the options; remembers, for each stream, whether a line has begun and is shown."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._wanted = {number for number, given in ((1, options.stdout), (2, options.stderr)) if given}
        self._names = {name: number for name, number in _STREAMS.items() if number in self._wanted}
        # Without times a record says by itself how it is shown: a million of them are rendered in under a second.
        self._plain = not options.timestamps and options.since is None and options.until is None
        self._unfinished: dict[int, bool] = {}
        self.past_until = False

    def render_all(self, lines: list[bytes]) -> list[LogLine]:
        """What of some lines of the file the client sees."""
        return self._render_plain(lines) if self._plain else self._render_each(lines)

    def _render_each(self, lines: list[bytes]) -> list[LogLine]:
        records = (parse_record(line) for line in lines)
        return [shown for record in records if record and (shown := self.render(record))]

    def _render_plain(self, lines: list[bytes]) -> list[LogLine]:
        shown: list[LogLine] = []
        wanted = self._names
        for line in lines:
            _, _, rest = line.partition(b" ")
            name, _, rest = rest.partition(b" ")
            tag, _, text = rest.partition(b" ")
            if (stream := wanted.get(name)) is not None:
                if tag == b"F":
                    shown.append((stream, text + b"\n"))
                elif tag == b"P":
                    shown.append((stream, text))
        return shown

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
        stamp = b"" if continued or not self._options.timestamps else record.time.replace(b"+00:00", b"Z") + b" "
        return record.stream, stamp + record.text + (b"\n" if record.ends_line else b"")

    def _in_time(self, record: Record) -> bool:
        since, until = self._options.since, self._options.until
        if since is None and until is None:
            return True
        written = seconds_of(record.time)
        if until is not None and written > until:
            self.past_until = True
            return False
        return since is None or written >= since


async def read_log(path: Path, options: LogOptions, process: Process | None) -> AsyncIterator[list[LogLine]]:
    """The lines of the log at `path` and of the files it has been rotated to.

    With `follow`, new ones of `process` until it ends or `until` has come. They come as lists: what is in one can be
    had without waiting.
    """
    follow = process.output.subscribe() if options.follow and process is not None else None
    selection = Selection(options)
    files = await in_thread(open_all, path)
    try:
        place, offset = 0, 0
        if options.tail is not None:
            place, offset = await in_thread(tail_place, files, options.tail)
        rest, going = b"", True
        while place < len(files):
            data = await in_thread(os.pread, files[place], BLOCK, offset)
            offset += len(data)
            *lines, rest = (rest + data).split(b"\n")
            if shown := selection.render_all(lines):
                yield shown
            if len(data) == BLOCK:
                continue
            if place + 1 < len(files):
                place, offset = place + 1, 0
                continue
            if follow is None or not going or selection.past_until:
                return
            going = await _more(follow, options.until)
            files += await in_thread(open_newer, path, files[place])
    finally:
        if follow is not None:
            follow.close()
        for descriptor in files:
            os.close(descriptor)


async def _more(follow: Subscription, until: float | None) -> bool:
    """Wait for new output; False when there will be none, or `until` has come."""
    try:
        await asyncio.wait_for(anext(follow), None if until is None else max(0.0, until - time.time()))
    except (StopAsyncIteration, TimeoutError):
        return False
    return True


def tail_place(files: Sequence[int], lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of some files begin: which file, and its offset. Blocking.

    An unfinished last line of a stream counts as one.
    """
    if lines <= 0:
        return len(files) - 1, os.fstat(files[-1]).st_size if files else 0
    found = 0
    seen: set[int] = set()
    for place in reversed(range(len(files))):
        for end, line in _lines_backwards(files[place], os.fstat(files[place]).st_size):
            record = parse_record(line)
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
