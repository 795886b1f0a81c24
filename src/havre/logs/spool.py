"""Moves records from conmon's file to the container's log, without losing or duplicating a line after any kill.

conmon cannot write Docker's format, rotate, or send to a log server; but it writes every line to a file before anything
else, and keeps running without the daemon. That file is used as a spool, whose records the daemon moves on.

    container --> conmon --> SPOOL --render--> LOG (json-file, local, or the cache of a remote driver)
                               |          '--> forwarder (syslog, journald)
                               '-- set aside as SPOOL.old when long, drained, removed

Its progress is one record, written after every batch by a single pwrite(2):

    spool inode, offset     everything before is in LOG and forwarded, except for
    resume                  the beginnings of unfinished lines, the first of which is here; negative: carried over
    log inode, start        rendering from that offset, byte 0 of the output is at `start` of LOG; negative after a
                            rotation within a batch, when the first bytes are in LOG.1
    forwarded               the offset after the last record forwarded
    carried                 where in this file the unfinished lines at the spool's beginning are

A daemon killed between writing a batch and recording it renders the same bytes again, and LOG's size tells how many of
them to skip. Inode 0 stands for a spool that does not exist yet. After a power loss lines may be missing or duplicated.

Unfinished lines are carried over to the next spool as records of conmon's, in one of two areas after the progress
record:
the area not in use, until the record is rewritten.

Where the container must not wait for its log, excess data is skipped (`gap`). As in dockerd, this affects what a log
server gets; its cache has everything.

Blocking; `keeper` ensures that only one thread is here at a time.

Why: docs/decisions/190.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from havre.logs.files import BLOCK, LogFile
from havre.logs.gap import Gap
from havre.logs.options import LogLimits
from havre.logs.records import Parts, Record, join, render_plain

# A spool of this size is set aside, drained and removed.
SPOOL_BYTES = 4 << 20
_PLACE = struct.Struct("<QQqQqQQ")
# For each stream an unfinished line of at most LONGEST bytes, after its length.
_AREA_BYTES = 64 << 10
_AREAS = (_AREA_BYTES, 2 * _AREA_BYTES)
_LENGTH = struct.Struct("<Q")


class Render(Protocol):
    """Renders a block of whole lines, after unfinished ones; returns the bytes, and what is unfinished now."""

    def __call__(self, block: bytes, parts: Parts, *, final: bool) -> tuple[bytes, Parts]: ...


class Forwarder(Protocol):
    """Sends records to a log server. Blocking; undeliverable ones are logged and dropped."""

    def send(self, record: Record) -> None: ...

    def hurry(self) -> None:
        """The container has ended: drop what is not delivered soon. Thread-safe."""

    def close(self) -> None: ...


@dataclass(slots=True)
class _Place:
    """The progress record; see the module's docstring."""

    spool: int = 0
    offset: int = 0
    resume: int = 0
    log: int = 0
    start: int = 0
    forwarded: int = 0
    carried: int = 0


@dataclass(frozen=True, slots=True)
class LogPlan:
    """A container's log: `spool` is conmon's file, `log` the user's (None: none), with its format and limits.

    `buffer` is the maximum of bytes waiting; None: unlimited, and the container waits.
    """

    spool: Path
    log: Path | None
    limits: LogLimits
    render: Render
    forwarder: Callable[[], Forwarder] | None = None
    buffer: int | None = None


class Transcript:
    """Moves the records of one container, a block at a time."""

    def __init__(self, plan: LogPlan) -> None:
        """Continue from the progress record. OSError on a full disk; Failed when a log server is unreachable."""
        self._plan = plan
        self._spool = plan.spool
        self._old = plan.spool.with_name(plan.spool.name + ".old")
        self._render = plan.render
        self._gap = Gap(plan.buffer)
        self._file = self._reading = -1
        self._log: LogFile | None = None
        self._begun: list[int] = []
        self._place = _Place()
        self._parts: Parts = {}
        self._forwarder: Forwarder | None = None
        self._wake()
        try:
            self._forwarder = plan.forwarder() if plan.forwarder else None
        except BaseException:
            self.rest()
            raise

    def _wake(self) -> None:
        """Open the files if they are closed."""
        if self._file >= 0:
            return
        with contextlib.ExitStack() as undo:
            place = self._spool.with_name(self._spool.name + ".place")
            file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, file)
            os.truncate(file, 3 * _AREA_BYTES)  # sparse; zeros mean an empty record
            self._place = _Place(*_PLACE.unpack(os.pread(file, _PLACE.size, 0)))
            self._file = file
            undo.callback(setattr, self, "_file", -1)
            if self._plan.log is not None:
                self._log = LogFile(self._plan.log, self._plan.limits, self._place.log, self._rotating)
                self._find_log(self._log)
            undo.pop_all()

    def rest(self) -> None:
        """Close the files; the next call reopens them and continues as after a restart. Idempotent."""
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
        if self._log is not None:
            self._begun += self._log.take_rotated()
            self._log.close()
            self._log = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _find_log(self, log: LogFile) -> None:
        if self._place.log != log.inode:  # the first time, or another program replaced the file
            self._place.log, self._place.start = log.inode, log.size

    def _rotating(self, inode: int, written: int) -> None:
        self._place.log, self._place.start = inode, -written
        self._note()

    def _note(self) -> None:
        place = self._place
        numbers = (place.spool, place.offset, place.resume, place.log, place.start, place.forwarded, place.carried)
        os.pwrite(self._file, _PLACE.pack(*numbers), 0)

    def rotated(self) -> list[int]:
        """Descriptors of the log's files begun since the last call; the caller closes them."""
        taken, self._begun = self._begun, []
        return taken + (self._log.take_rotated() if self._log is not None else [])

    @property
    def wants_reopening(self) -> bool:
        """Report whether conmon must reopen its log: there is no file of that name."""
        return not self._spool.exists()

    @property
    def is_long(self) -> bool:
        """Whether the spool should be set aside."""
        return self._place.offset >= SPOOL_BYTES and not self._old.exists()

    def set_aside(self) -> None:
        """Rename the spool; conmon creates the next one when told to reopen its log."""
        self._spool.rename(self._old)

    def step(self, *, final: bool = False) -> int | None:
        """Move one block; returns the bytes left, or None when there was nothing to move.

        `final`: the container has ended. OSError, e.g. for a full disk: what was not recorded is repeated next time.
        """
        self._wake()
        successor = self._spool.exists()  # before reading: conmon has then finished writing to the old one
        if not self._open():
            return None
        aside = self._old.exists()
        offset = self._place.offset
        self._gap.widen(self._reading, offset)
        if self._forwarder is None and self._gap.covers(offset):
            return self._pass_over()
        block = os.pread(self._reading, self._gap.reach(offset), offset)
        exchanged = aside and successor
        if not block:
            return self._switch() if exchanged else None
        complete = (final or exchanged) and offset + len(block) == os.fstat(self._reading).st_size
        whole = block if complete else block[: block.rfind(b"\n") + 1]
        if not whole and len(block) == BLOCK:
            whole = block
        if complete and not whole.endswith(b"\n"):
            whole += b"\n"  # a record truncated by a full disk: the next one must not continue it
        if not whole:
            return None
        self._move(whole, final=complete and not exchanged)
        return self._left()

    def _pass_over(self) -> int:
        """Skip the gap, and drop the beginnings of lines that end in it."""
        end = self._gap.end
        self._place = replace(self._place, offset=end, resume=end)
        self._note()
        self._parts = {}
        return self._left()

    def _left(self) -> int:
        return max(0, os.fstat(self._reading).st_size - self._place.offset)

    def _open(self) -> bool:
        """Open the spool to read, the one set aside first. False if there is none."""
        if self._reading >= 0:
            return True
        for path in (self._old, self._spool):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            inode = os.fstat(descriptor).st_ino
            if path == self._old and self._place.spool not in (0, inode):  # drained already
                os.close(descriptor)
                self._old.unlink()
                continue
            if self._place.spool != inode:
                self._begin(inode, {})
            self._parts = self._unfinished(descriptor)
            self._reading = descriptor
            return True
        return False

    def _begin(self, inode: int, parts: Parts) -> None:
        """Continue with another spool, after the unfinished lines of the last one."""
        records = [Record(part.time, stream, False, part.text) for stream, part in parts.items()]
        carried = b"".join(map(render_plain, records))
        area = _AREAS[self._place.carried == _AREAS[0]]
        os.pwrite(self._file, _LENGTH.pack(len(carried)) + carried, area)
        size = self._log.size if self._log is not None else 0
        self._place = _Place(spool=inode, resume=-len(carried), log=self._place.log, start=size, carried=area)
        self._note()
        self._gap.start = self._gap.end = 0
        self._parts = join(carried, {})[1]

    def _unfinished(self, spool: int) -> Parts:
        """The beginnings of unfinished lines at the recorded offset."""
        place, begun = self._place, b""
        if place.resume < 0:
            (length,) = _LENGTH.unpack(os.pread(self._file, _LENGTH.size, place.carried))
            begun = os.pread(self._file, length, place.carried + _LENGTH.size)[place.resume :]
        first = max(0, place.resume)
        return join(begun + os.pread(spool, place.offset - first, first), {})[1]

    def _switch(self) -> int:
        """The old spool is drained: continue with the one that conmon now writes."""
        os.close(self._reading)
        self._reading = os.open(self._spool, os.O_RDONLY | os.O_CLOEXEC)
        self._begin(os.fstat(self._reading).st_ino, self._parts)
        self._old.unlink()
        return os.fstat(self._reading).st_size

    def _move(self, block: bytes, *, final: bool) -> None:
        rendered, parts = self._render(block, self._parts, final=final)
        if self._log is not None:
            written = max(0, self._log.size - self._place.start)
            self._log.append(rendered[written:], written)
        if self._forwarder is not None:
            parts = self._forward(self._forwarder, block, final=final)
        place, offset = self._place, self._place.offset + len(block)
        resume = offset - max((part.behind for part in parts.values()), default=0)
        start = self._log.size if self._log is not None else 0
        self._place = replace(place, offset=offset, resume=resume, start=start, forwarded=offset)
        self._note()
        self._parts = parts

    def _end_parts(self) -> None:
        """End lines that are unfinished: nothing will complete them."""
        if self._parts:
            self._move(b"", final=True)

    def _forward(self, forwarder: Forwarder, block: bytes, *, final: bool) -> Parts:
        records, parts = join(block, self._parts, final=final)
        if self._gap.covers(self._place.offset):
            return parts
        for record, end in records:
            if self._place.offset + end > self._place.forwarded:
                forwarder.send(record)
                self._place.forwarded = self._place.offset + end
                self._note()
        return parts

    def hurry(self) -> None:
        """The container or the daemon is ending: stop waiting for log servers. Thread-safe."""
        if self._forwarder is not None:
            self._forwarder.hurry()

    def finish(self) -> None:
        """The container has ended: move the rest and remove the spool."""
        while self.step(final=True) is not None:
            pass
        self._end_parts()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
        self._old.unlink(missing_ok=True)
        self._spool.unlink(missing_ok=True)
        # Last: a daemon killed in between finds no spool, and does not take the next one as already moved.
        self._place.spool = 0
        self._note()

    def close(self) -> None:
        """Close everything; the spool stays."""
        self.rest()
        for descriptor in self.rotated():
            os.close(descriptor)
        if self._forwarder is not None:
            self._forwarder.close()
