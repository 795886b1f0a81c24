"""One container's log while it runs: who moves its records on, when, and who is told.

    conmon writes SPOOL, then hands the same bytes to the fanout --alarm--> wake
       ^                                                                     | at once, but not twice in PAUSE_S
       |  the container waits while more than MOST_WAITING bytes wait <-- drain: Transcript.step until nothing is left
       |                                                                     |
       '-- told to begin a new file when the spool is long                   '--> followers are told

Nothing is polled. A reader drains first, so that it sees all that was written before it asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from havre.aio import SHARED, finish, in_pool, in_thread, spawn
from havre.errors import Failed
from havre.logs.files import open_all
from havre.logs.reading import Follower, LogOptions, read_files
from havre.logs.records import Form, LogChunk
from havre.logs.spool import LogPlan, Transcript

log = logging.getLogger(__name__)

PAUSE_S = 0.01
STEPS_AT_ONCE = 8
MOST_WAITING = 8 << 20
FEW_WAITING = 1 << 20
REOPEN_TIMEOUT_S = 5.0


class Output(Protocol):
    """The output of a process, seen from here."""

    def alarm(self, ring: Callable[[], None]) -> None: ...

    def hold(self, held: bool) -> None: ...


class Writer(Protocol):
    """A running process that conmon holds, seen from here."""

    @property
    def output(self) -> Output: ...

    def has_ended(self) -> bool: ...

    async def reopen_log(self) -> None: ...


class Keeper:
    """Keeps the log of one container, from before its start until it has ended."""

    def __init__(self, plan: LogPlan, form: Form, *, blocking: bool) -> None:
        self._plan = plan
        # A log server may let a thread wait for ever: not one of those that all of the engine shares.
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

    async def open(self) -> None:
        """Before a start: what a daemon that was killed has left is moved on, and a log server is spoken to.

        Failed when that is not there; OSError.
        """
        try:
            self._transcript = await in_pool(self._pool, _opened, self._plan)
        except BaseException:
            self._release_pool()
            raise

    def watch(self, process: Writer) -> None:
        """It runs: keep its log from now on."""
        self._process = process
        self._task = spawn(self._keep(process), f"log {self._plan.spool.parent.name[:12]}")

    async def _keep(self, process: Writer) -> None:
        if self._transcript is None:  # taken over from another daemon
            self._transcript = await self._take_over()
        try:
            while True:
                self._wake.clear()
                process.output.alarm(self._wake.set)
                await self.drain()
                await asyncio.sleep(PAUSE_S)
                await self._wake.wait()
        finally:
            self._transcript.hurry()  # a thread may be sending still

    async def _take_over(self) -> Transcript:
        try:
            return await in_pool(self._pool, Transcript, self._plan)
        except Failed as error:  # a log server that is not there is no reason to lose the lines
            log.error("the log of %s is not forwarded: %s", self._plan.spool.parent.name, error)
            return await in_pool(self._pool, Transcript, _unforwarded(self._plan))

    async def drain(self) -> None:
        """Move on all that has been written; afterwards it can be read."""
        await finish(self._drain())  # a thread that is at it must not be left to itself

    async def _drain(self) -> None:
        async with self._lock:
            if self._transcript is None:
                return
            try:
                await self._move(self._transcript)
                self._troubled = False
            except (OSError, Failed) as error:
                self._hold(0)  # a full disk is no reason to stop the container
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._troubled and not self._has_ended():
            log.warning("the log of %s stands still: %s", self._plan.spool.parent.name, error)
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
                await self._renew(transcript)  # conmon heeds nothing while it is held

    def _hold(self, waiting: int) -> None:
        """Let the container wait, or no longer, when so many bytes are still to be moved."""
        holding = self._blocking and waiting > (FEW_WAITING if self._holding else MOST_WAITING)
        if self._process is not None and holding != self._holding:
            self._holding = holding
            self._process.output.hold(holding)

    def _tell(self, begun: list[int]) -> None:
        """Give the followers the log's files that were begun, by descriptors of their own."""
        for follower in self._followers:
            follower.tell(begun)
        for file in begun:
            os.close(file)

    async def _renew(self, transcript: Transcript) -> None:
        """Give conmon a new spool where the old one is long, or where a daemon was killed while it did that."""
        assert self._process is not None
        if transcript.is_long:
            transcript.set_aside()
        if not transcript.wants_reopening:
            return
        await self._process.reopen_log()
        async with asyncio.timeout(REOPEN_TIMEOUT_S):
            while transcript.wants_reopening and not self._has_ended():  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # conmon tells nobody

    async def end(self) -> None:
        """The process has ended: all that it wrote is in the log when this returns, and those who follow are told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        async with self._lock:
            transcript = self._transcript or await self._take_over()
            transcript.hurry()
            self._transcript = None
            self._tell(await in_pool(self._pool, self._conclude, transcript))
        self._release_pool()
        for follower in self._followers:
            follower.end()

    def _release_pool(self) -> None:
        if self._pool is not SHARED:
            self._pool.shutdown(wait=False)

    def _conclude(self, transcript: Transcript) -> list[int]:
        """Move on what is left, and let go; descriptors of the log's files that were begun. Blocking."""
        try:
            transcript.finish()
        except OSError as error:
            log.warning("the log of %s is not complete: %s", self._plan.spool.parent.name, error)
        begun = transcript.rotated()
        transcript.close()
        return begun

    async def read(self, options: LogOptions) -> AsyncGenerator[list[LogChunk], None]:
        """What has been written so far; with `follow`, what will be."""
        assert self._plan.log is not None
        await self.drain()
        follower = None
        async with self._lock:
            files = await in_thread(open_all, self._plan.log)
            if options.follow and self._task is not None and self._transcript is not None:
                follower = Follower(self._plan.limits.max_files)
                self._followers.add(follower)
        try:
            async for lines in read_files(files, self._form, options, follower):
                yield lines
        finally:
            if follower is not None:
                self._followers.discard(follower)
                follower.close()


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
    """Up to STEPS_AT_ONCE steps; what the last one answered. Files are open while there is more to do. Blocking."""
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
