"""A process that conmon holds: its end, its output and its input. Containers and execs differ only in what they add.

How the end is learnt, without polling, from one pidfd while it runs and a second one in its last moment:

    process ends      --> conmon's pidfd is opened (at once over if it has ended)
    conmon ends       --> exit file there? --yes--> Exit(code of the file, its mtime)
                             | no: conmon was killed
                             v
                          wait status from the kernel --> Exit, and the exit file is written for a later daemon

    connection ends,  --> conmon's pidfd is opened: killed alone, it leaves a process that runs on without output
    process has not

When the process ends and conmon does not follow within STALL_S, it waits for a reader that does not read: then the rest
of the output is taken without waiting (`Fanout.hurry`), so that an end is never unreported.

While it runs, a process costs the daemon two descriptors, its pidfd and the connection (docs/why/processes.md#start).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal as signals
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from havre.errors import Conflict
from havre.linux import pidfd
from havre.runtime.conmon import Attachment, Control
from havre.runtime.fanout import Fanout
from havre.runtime.plan import Exit

STALL_S = 2.0
UNKNOWN_CODE = 255
_TICK_S = time.clock_getres(5)  # of CLOCK_REALTIME_COARSE, linux/time.h

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Monitor:
    """A conmon: its PID, when it started (None: it is ours, so that its PID stays its own), and `child` where it is."""

    pid: int
    started: int | None = None
    child: subprocess.Popen[bytes] | None = None

    def open(self) -> int | None:
        """Its pidfd; None when it is gone."""
        if self.child is not None and self.child.returncode is not None:
            return None
        return pidfd.open_process(self.pid, self.started)

    def reap(self) -> None:
        """It has ended: let the kernel forget it."""
        if self.child is not None:
            self.child.wait()


class Ending:
    """Watches a process and its conmon until the end is known; see the module's drawing."""

    def __init__(
        self,
        pid: int,
        process: int | None,
        monitor: Monitor,
        exit_file: Path,
        *,
        oom_killed: Callable[[], bool],
        stalled: Callable[[], None],
    ) -> None:
        """Watch from now on. Takes over the pidfd `process`; None is one that has ended."""
        self._loop = asyncio.get_running_loop()
        self._pid = pid
        self._process = process
        self._monitor = monitor
        self._conmon: int | None = None
        self._exit_file = exit_file
        self._oom_killed = oom_killed
        self._stalled = stalled
        self._over = process is None
        self.result: asyncio.Future[Exit] = self._loop.create_future()
        if process is not None:
            self._loop.add_reader(process, self._process_ended)
        else:
            self._loop.call_soon(self._watch_conmon)

    def send_signal(self, number: int) -> None:
        """Signal the process; Conflict when it has ended."""
        if self._process is None:
            raise Conflict("the process has ended")
        try:
            pidfd.send_signal(self._process, number)
        except ProcessLookupError as error:
            raise Conflict("the process has ended") from error

    def has_ended(self) -> bool:
        """Whether the process has ended, though its code may not be known yet."""
        return self._process is None or pidfd.has_ended(self._process)

    def kill_conmon(self) -> None:
        """For a conmon that hangs though its process has ended."""
        if self._conmon is not None:
            pidfd.send_signal(self._conmon, signals.SIGKILL)

    def connection_ended(self) -> None:
        """Conmon has closed its connection: it was killed, or the process has ended, or is about to."""
        if not self.result.done() and not self._over:
            self._watch_conmon()

    def close(self) -> None:
        """Stop watching and give the descriptors back. Idempotent."""
        for descriptor in (self._process, self._conmon):
            if descriptor is not None:
                self._loop.remove_reader(descriptor)
                os.close(descriptor)
        self._process = self._conmon = None
        self._stalled = _nothing  # both belong to the process that holds on to this
        self._oom_killed = _unknown

    def _process_ended(self) -> None:
        assert self._process is not None
        self._loop.remove_reader(self._process)
        self._over = True
        self._watch_conmon()

    def _watch_conmon(self) -> None:
        """Wait for conmon's end; for what it has written down, if it is gone."""
        if self.result.done():
            return
        if self._conmon is None and (conmon := self._monitor.open()) is not None:
            self._conmon = conmon
            self._loop.add_reader(conmon, self._conmon_ended)
        if self._conmon is None:
            self._decide()
        elif self._over:
            self._loop.call_later(STALL_S, self._check_stall)

    def _check_stall(self) -> None:
        if not self.result.done():
            self._stalled()

    def _conmon_ended(self) -> None:
        assert self._conmon is not None
        self._loop.remove_reader(self._conmon)
        os.close(self._conmon)
        self._conmon = None
        self._monitor.reap()
        self._decide()

    def _decide(self) -> None:
        """Conmon is gone: what is known of the process?"""
        if self.result.done():
            return
        recorded = read_exit(self._exit_file)
        if recorded is not None:
            self._finish(*recorded)
        elif self._over:
            self._ask_kernel()
        else:
            log.warning("a container's monitor was killed; its output is lost, its end will be noticed")

    def _ask_kernel(self) -> None:
        status = pidfd.exit_status(self._process, self._pid) if self._process is not None else None
        code = UNKNOWN_CODE if status is None else pidfd.exit_code(status)
        with contextlib.suppress(FileNotFoundError):  # an exec's directory goes with its container's
            self._exit_file.write_text(str(code))
        self._finish(code, time.time())

    def _finish(self, code: int, finished_at: float) -> None:
        self.result.set_result(Exit(code, finished_at, self._oom_killed()))
        self.close()


def read_exit(file: Path) -> tuple[int, float] | None:
    """The exit code conmon wrote and when; None when there is none (conmon creates the file whole, by rename).

    The kernel stamps files with the time of its last tick: one tick more, and it is not before what was written last.
    """
    try:
        with open(file) as opened:
            text = opened.read().strip()
            return int(text), os.fstat(opened.fileno()).st_mtime + _TICK_S
    except FileNotFoundError:
        return None


def _nothing() -> None:
    """What a watch that is over does about a stall."""


def _unknown() -> bool:
    return False


class Held:
    """What a container's first process and an exec have in common."""

    def __init__(self, directory: Path, *, ends_input: bool) -> None:
        self._directory = directory
        self._ends_input = ends_input
        self._attachment: Attachment | None = None
        self._control = Control(directory)
        self._ending: Ending | None = None
        self.output = Fanout()
        self.pid = 0

    @property
    def directory(self) -> Path:
        """Where its conmon works."""
        return self._directory

    def _attach(self) -> None:
        self._attachment = Attachment(self._directory, self.output, self._connection_ended)

    def _connection_ended(self) -> None:
        if self._ending is not None:
            self._ending.connection_ended()

    def _watch(self, pid: int, process: int | None, monitor: Monitor, exit_file: Path) -> None:
        self.pid = pid
        self._ending = Ending(pid, process, monitor, exit_file, oom_killed=self._oom_killed, stalled=self.output.hurry)
        if self._attachment is None or not self._attachment.is_open:  # it has ended before anybody watched
            self._ending.connection_ended()

    def _oom_killed(self) -> bool:
        return False

    async def wait(self) -> Exit:
        """The end of the process. Its output may still be in subscriptions' buffers."""
        if self._ending is None:
            raise Conflict("the process has not been started")
        return await asyncio.shield(self._ending.result)

    def exited(self) -> Exit | None:
        """How it ended, if it has."""
        if self._ending is None or not self._ending.result.done():
            return None
        return self._ending.result.result()

    def has_ended(self) -> bool:
        """Whether it has ended, though `exited` may not know how yet."""
        return self._ending is None or self._ending.has_ended()

    async def write_stdin(self, data: bytes) -> None:
        """Input for the process, waiting while it does not read; dropped when it has ended."""
        if self._attachment is not None:
            await self._attachment.write(data)

    async def close_stdin(self) -> None:
        """End of input, where the input ends with its client; a terminal and a shared input stay open."""
        if self._attachment is not None and self._ends_input:
            await self._attachment.end_input()

    async def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal in characters. Failed when it has ended."""
        await self._control.resize(rows, columns)

    async def reopen_log(self) -> None:
        """After a rename of the log: write to a new file of the old name. Failed when it has ended."""
        await self._control.reopen_log()

    async def kill(self, signal: int) -> None:
        """Send a signal; Conflict when it has ended. Cannot hit another process."""
        if self._ending is None:
            raise Conflict("the process has not been started")
        self._ending.send_signal(signal)

    async def _settle(self, timeout_s: float) -> None:
        """Wait until the end of a killed process is known; conmon is killed when it does not come in time.

        What it wrote stays readable: the connection ends by itself when conmon has ended.
        """
        if self._ending is None:
            self.output.close()
            return
        try:
            await asyncio.wait_for(asyncio.shield(self._ending.result), timeout_s)
        except TimeoutError:
            log.error("the monitor of process %d hangs and is killed", self.pid)
            self._ending.kill_conmon()
            try:
                await asyncio.wait_for(asyncio.shield(self._ending.result), timeout_s)
            except TimeoutError:  # SIGKILL reaches nobody who waits for a device or a file server
                log.error("process %d does not end: the kernel holds it", self.pid)
