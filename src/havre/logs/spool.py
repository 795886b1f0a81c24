"""From what conmon wrote to the log that users keep, without losing or doubling a line, whoever is killed when.

conmon cannot write Docker's format, rotate, or speak to a log server; but it writes every line to a file before anybody
else sees it, and goes on when the daemon is gone. That file is a spool here: the daemon moves its records on.

    container --> conmon --> SPOOL --render--> LOG (json-file, local, or the cache of a remote driver)
                               |          '--> forwarder (syslog, journald)
                               '-- set aside as SPOOL.old when long, drained, removed

How far it has come is one record, written after every batch by a single pwrite(2):

    spool inode, offset     everything before is in LOG and forwarded, but for
    resume                  the beginnings of unfinished lines, the first of which is here; negative: carried over
    log inode, start        rendering from that offset, byte 0 of the rendering is at `start` of LOG; negative after a
                            rotation within a batch, when the first bytes are in LOG.1
    forwarded               the offset behind the last record that was forwarded
    carried                 where in this file is what was unfinished when the spool began

A daemon killed between writing a batch and noting it renders the same bytes again, and LOG's own size tells how many of
them to leave out. An inode of 0 stands for a spool that is still to come. After a loss of power lines may be missing or
double.

What is unfinished when a spool is exchanged is carried over as records of conmon's, in one of two areas behind that
record; the other one is what the record refers to until it is written anew.

Where the container must not wait for its log, what is too much is passed over (`gap`). As with dockerd, this concerns
what a log server gets; its cache has everything.

Blocking; `keeper` sees to it that one thread is here at a time.

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

#: A spool that has got so long is set aside, drained and removed.
SPOOL_BYTES = 4 << 20
_PLACE = struct.Struct("<QQqQqQQ")
#: An unfinished line for each stream, of at most LONGEST bytes, behind their length.
_AREA_BYTES = 64 << 10
_AREAS = (_AREA_BYTES, 2 * _AREA_BYTES)
_LENGTH = struct.Struct("<Q")


class Render(Protocol):
    """Renders a block of whole lines, after unfinished ones; answers the bytes, and what is unfinished now."""

    def __call__(self, block: bytes, parts: Parts, *, final: bool) -> tuple[bytes, Parts]: ...


class Forwarder(Protocol):
    """Hands records to somebody else. Blocking; what cannot be delivered is told in the log and dropped."""

    def send(self, record: Record) -> None: ...

    def hurry(self) -> None:
        """Somebody waits for the end: what is not delivered soon is dropped. From any thread."""

    def close(self) -> None: ...


@dataclass(slots=True)
class _Place:
    """How far it has come; see the module."""

    spool: int = 0
    offset: int = 0
    resume: int = 0
    log: int = 0
    start: int = 0
    forwarded: int = 0
    carried: int = 0


@dataclass(frozen=True, slots=True)
class LogPlan:
    """Where a container's log goes: `spool` is conmon's, `log` the user's (None: nowhere), in which form and length.

    `buffer` is how many bytes may wait; None: as many as come, and the container waits.
    """

    spool: Path
    log: Path | None
    limits: LogLimits
    render: Render
    forwarder: Callable[[], Forwarder] | None = None
    buffer: int | None = None


class Transcript:
    """Moves the records of one container on, a block at a time."""

    def __init__(self, plan: LogPlan) -> None:
        """Continue where the last one stopped. OSError when there is no room; Failed when a log server is not there."""
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
        """Open the files, unless they are."""
        if self._file >= 0:
            return
        with contextlib.ExitStack() as undo:
            place = self._spool.with_name(self._spool.name + ".place")
            file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, file)
            os.truncate(file, 3 * _AREA_BYTES)  # sparse; zeros where nothing is noted
            self._place = _Place(*_PLACE.unpack(os.pread(file, _PLACE.size, 0)))
            self._file = file
            undo.callback(setattr, self, "_file", -1)
            if self._plan.log is not None:
                self._log = LogFile(self._plan.log, self._plan.limits, self._place.log, self._rotating)
                self._find_log(self._log)
            undo.pop_all()

    def rest(self) -> None:
        """Close the files; what comes next opens them again and goes on as after a restart. Idempotent."""
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
        if self._place.log != log.inode:  # the first time, or somebody has put another file there
            self._place.log, self._place.start = log.inode, log.size

    def _rotating(self, inode: int, written: int) -> None:
        self._place.log, self._place.start = inode, -written
        self._note()

    def _note(self) -> None:
        place = self._place
        numbers = (place.spool, place.offset, place.resume, place.log, place.start, place.forwarded, place.carried)
        os.pwrite(self._file, _PLACE.pack(*numbers), 0)

    def rotated(self) -> list[int]:
        """Descriptors of the log's files begun since the last call, to be closed by the caller."""
        taken, self._begun = self._begun, []
        return taken + (self._log.take_rotated() if self._log is not None else [])

    @property
    def wants_reopening(self) -> bool:
        """Whether conmon must be told to open its log anew: it has none under the name it was given."""
        return not self._spool.exists()

    @property
    def is_long(self) -> bool:
        """Whether the spool should be set aside."""
        return self._place.offset >= SPOOL_BYTES and not self._old.exists()

    def set_aside(self) -> None:
        """Rename the spool; conmon, told to open its log anew, will make the next one."""
        self._spool.rename(self._old)

    def step(self, *, final: bool = False) -> int | None:
        """Move a block on; the bytes that are left to move, or None when there was nothing to move.

        `final`: the container has ended. OSError: the disk is full, say; what was not noted is done again next time.
        """
        self._wake()
        successor = self._spool.exists()  # before reading: what conmon wrote to the old one is then complete
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
            whole += b"\n"  # a record cut short by a full disk: the next one is no part of it
        if not whole:
            return None
        self._move(whole, final=complete and not exchanged)
        return self._left()

    def _pass_over(self) -> int:
        """Drop what lies in the gap, and the beginnings of lines that end there."""
        end = self._gap.end
        self._place = replace(self._place, offset=end, resume=end)
        self._note()
        self._parts = {}
        return self._left()

    def _left(self) -> int:
        return max(0, os.fstat(self._reading).st_size - self._place.offset)

    def _open(self) -> bool:
        """The spool that is read: the one set aside first. False while there is none."""
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
        """Go on with another spool, after the unfinished lines of the last one."""
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
        """The beginnings of lines that are unfinished at the place."""
        place, begun = self._place, b""
        if place.resume < 0:
            (length,) = _LENGTH.unpack(os.pread(self._file, _LENGTH.size, place.carried))
            begun = os.pread(self._file, length, place.carried + _LENGTH.size)[place.resume :]
        first = max(0, place.resume)
        return join(begun + os.pread(spool, place.offset - first, first), {})[1]

    def _switch(self) -> int:
        """The old spool is drained and conmon writes to the next."""
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
        """Lines that are not finished now will never be."""
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
        """The container has ended, or the daemon: no log server is waited for any more. From any thread."""
        if self._forwarder is not None:
            self._forwarder.hurry()

    def finish(self) -> None:
        """The container has ended: move what is left, and remove the spool."""
        while self.step(final=True) is not None:
            pass
        self._end_parts()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
        self._old.unlink(missing_ok=True)
        self._spool.unlink(missing_ok=True)
        # Last: a daemon killed in between finds no spool, and nothing of the next one is taken for moved.
        self._place.spool = 0
        self._note()

    def close(self) -> None:
        """Let go of everything; the spool stays."""
        self.rest()
        for descriptor in self.rotated():
            os.close(descriptor)
        if self._forwarder is not None:
            self._forwarder.close()
