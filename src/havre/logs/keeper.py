"""Keeps one container's log while it runs: moves records from the spool and notifies followers.

    conmon writes SPOOL, then passes the same bytes to the fanout --alarm--> wake
    ^                                                                     | at once, but not twice in PAUSE_S
    |  output is paused while more than MOST_WAITING bytes wait <------ drain: Transcript.step until nothing is left
    |                                                                     |
    '-- reopens its log when the spool is long                            '--> followers are notified

No polling. A reader drains first, so that it sees everything written before its request; of a container that has just
started it waits for the end, for SETTLING_S at most.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Protocol

from havre.aio import SHARED, finish, in_pool, owned, spawn
from havre.errors import Failed
from havre.logs.files import close_all, open_all
from havre.logs.reading import Follower, LogOptions, read_files
from havre.logs.records import Form, LogChunk
from havre.logs.spool import LogPlan, Transcript

log = logging.getLogger(__name__)

PAUSE_S = 0.01
STEPS_AT_ONCE = 8
MOST_WAITING = 8 << 20
FEW_WAITING = 1 << 20
REOPEN_TIMEOUT_S = 5.0
#: Clients' tests start `echo` and read its log at once. With dockerd, whose start is slower, the text is there by then.
#: So the log of what ends within this time of its start is read whole.
SETTLING_S = 0.2


class Output(Protocol):
    """The part of a process's output that is needed here."""

    def alarm(self, ring: Callable[[], None]) -> None: ...

    def hold(self, held: bool) -> None: ...


class Writer(Protocol):
    """The part of a running process that is needed here."""

    @property
    def output(self) -> Output: ...

    def has_ended(self) -> bool: ...

    async def reopen_log(self) -> None: ...


class Keeper:
    """Keeps the log of one container, from before its start until its end."""

    def __init__(self, plan: LogPlan, form: Form, *, blocking: bool) -> None:
        self._plan = plan
        # A log server may block a thread indefinitely, so a forwarder does not use the shared pool.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="havre-log") if plan.forwarder else SHARED
        self._form = form
        self._blocking = blocking
        self._transcript: Transcript | None = None
        self._process: Writer | None = None
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._followers: set[Follower] = set()
        self._task: asyncio.Task[None] | None = None
        self._troubled = False
        self._holding = False
        self._settled = 0.0  # by the loop's clock
        self._over = asyncio.Event()

    async def open(self) -> None:
        """Before a start: process what a killed daemon left, and connect to a log server.

        Failed when the server is unreachable; OSError.
        """
        try:
            self._transcript = await in_pool(self._pool, _opened, self._plan)
        except BaseException:
            self._release_pool()
            raise

    def watch(self, process: Writer) -> None:
        """Keep the log of this running process from now on."""
        self._process = process
        if self._transcript is not None:  # not taken over from another daemon
            self._settled = asyncio.get_running_loop().time() + SETTLING_S
        self._task = spawn(self._keep(process), f"log {self._plan.spool.parent.name[:12]}")

    async def _keep(self, process: Writer) -> None:
        if self._transcript is None:  # taken over from an earlier daemon
            self._transcript = await self._take_over()
        try:
            while True:
                self._wake.clear()
                process.output.alarm(self._wake.set)
                await self.drain()
                await asyncio.sleep(PAUSE_S)
                await self._wake.wait()
        finally:
            self._transcript.hurry()  # a thread may still be sending

    async def _take_over(self) -> Transcript:
        try:
            return await in_pool(self._pool, Transcript, self._plan)
        except Failed as error:  # an unreachable log server must not lose lines
            log.error("the log of %s is not forwarded: %s", self._plan.spool.parent.name, error)
            return await in_pool(self._pool, Transcript, _unforwarded(self._plan))

    async def drain(self) -> None:
        """Move everything written so far; afterwards it can be read."""
        await finish(self._drain())  # a running thread must not be abandoned

    async def _drain(self) -> None:
        async with self._lock:
            if self._transcript is None:
                return
            try:
                await self._move(self._transcript)
                self._troubled = False
            except (OSError, Failed) as error:
                self._hold(0)  # a full disk must not stop the container
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._troubled and not self._has_ended():
            log.warning("the log of %s is not being written: %s", self._plan.spool.parent.name, error)
        self._troubled = True

    def _has_ended(self) -> bool:
        return self._process is None or self._process.has_ended()

    async def _move(self, transcript: Transcript) -> None:
        left: int | None = 0
        while left is not None:
            left = await in_pool(self._pool, _some_steps, transcript)
            self._hold(left or 0)
            self._tell(transcript.rotated())
            if not self._holding and not self._has_ended():
                await self._renew(transcript)  # conmon does not read its FIFO while it is paused

    def _hold(self, waiting: int) -> None:
        """Pause or resume the container, according to the number of bytes that are waiting."""
        holding = self._blocking and waiting > (FEW_WAITING if self._holding else MOST_WAITING)
        if self._process is not None and holding != self._holding:
            self._holding = holding
            self._process.output.hold(holding)

    def _tell(self, begun: list[int]) -> None:
        """Pass the log's new files to the followers, as duplicated descriptors."""
        for follower in self._followers:
            follower.tell(begun)
        for file in begun:
            os.close(file)

    async def _renew(self, transcript: Transcript) -> None:
        """Make conmon begin a new spool when the old one is long, or when a daemon was killed while doing so."""
        assert self._process is not None
        if transcript.is_long:
            transcript.set_aside()
        if not transcript.wants_reopening:
            return
        await self._process.reopen_log()
        async with asyncio.timeout(REOPEN_TIMEOUT_S):
            while transcript.wants_reopening and not self._has_ended():  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # conmon sends no notification

    async def end(self) -> None:
        """The process has ended: complete its log and notify the followers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        async with self._lock:
            transcript = self._transcript or await self._take_over()
            transcript.hurry()
            self._transcript = None
            self._tell(await in_pool(self._pool, self._conclude, transcript))
        self._release_pool()
        self._over.set()
        for follower in self._followers:
            follower.end()

    def _release_pool(self) -> None:
        if self._pool is not SHARED:
            self._pool.shutdown(wait=False)

    def _conclude(self, transcript: Transcript) -> list[int]:
        """Move the rest and close; returns descriptors of the log's new files. Blocking."""
        try:
            transcript.finish()
        except OSError as error:
            log.warning("the log of %s is incomplete: %s", self._plan.spool.parent.name, error)
        begun = transcript.rotated()
        transcript.close()
        return begun

    async def read(self, options: LogOptions) -> AsyncGenerator[list[LogChunk], None]:
        """Yield what has been written so far; with `follow`, also what will be."""
        assert self._plan.log is not None
        if not options.follow:
            await self._settle()
        await self.drain()
        follower = None
        async with self._lock:
            files = await owned(close_all, open_all, self._plan.log)
            if options.follow and self._task is not None and self._transcript is not None:
                follower = Follower(self._plan.limits.max_files)
                self._followers.add(follower)
        try:
            async with aclosing(read_files(files, self._form, options, follower)) as chunks:
                async for lines in chunks:
                    yield lines
        finally:
            if follower is not None:
                self._followers.discard(follower)
                follower.close()

    async def _settle(self) -> None:
        """Wait for the end of what has just started, for a moment."""
        left = self._settled - asyncio.get_running_loop().time()
        if left > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), left)


def _opened(plan: LogPlan) -> Transcript:
    """Begin with an empty spool. Blocking."""
    transcript = Transcript(plan)
    try:
        transcript.finish()
    except BaseException:
        transcript.close()
        raise
    transcript.rest()
    return transcript


def _some_steps(transcript: Transcript) -> int | None:
    """Up to STEPS_AT_ONCE steps; returns the last result. Files stay open while there is more to do. Blocking."""
    left: int | None = None
    try:
        for _ in range(STEPS_AT_ONCE):
            if (left := transcript.step()) is None:
                break
    except BaseException:
        transcript.rest()
        raise
    if left is None:
        transcript.rest()
    return left


def _unforwarded(plan: LogPlan) -> LogPlan:
    return LogPlan(plan.spool, plan.log, plan.limits, plan.render)
