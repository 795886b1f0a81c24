"""A process held by conmon: its end, its output and its input. The base of containers and execs.

How the end is detected, without polling, from one pidfd while it runs and a second one at its end:

    process ends      --> open conmon's pidfd (readable at once if conmon has ended)
    conmon ends       --> exit file present? --yes--> Exit(code of the file, its mtime)
                          | no: conmon was killed
                          v
                          wait status from the kernel --> Exit, and write the exit file for a later daemon
    connection ends,  --> open conmon's pidfd: if only conmon was killed, the process keeps running without output
    process has not

When the process ends and conmon does not within STALL_S, conmon waits for a slow reader: the rest of the output is then
read without waiting (`Fanout.hurry`), so that the end is always reported.

A running process costs the daemon two descriptors, its pidfd and the connection (docs/why/processes.md#start).
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
    """A conmon: its PID, start time (None: it is our child, so the PID cannot be recycled), and `child` if it is
    one."""

    pid: int
    started: int | None = None
    child: subprocess.Popen[bytes] | None = None

    def open(self) -> int | None:
        """Open its pidfd; None when it has ended."""
        if self.child is not None and self.child.returncode is not None:
            return None
        return pidfd.open_process(self.pid, self.started)

    def reap(self) -> None:
        """Reap it if it is our child."""
        if self.child is not None:
            self.child.wait()


class Ending:
    """Watches a process and its conmon until the end is known; see the module's docstring."""

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
        """Start to watch. Takes ownership of the pidfd `process`; None if it has ended."""
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
        """Report whether the process has ended; its exit code may not be known yet."""
        return self._process is None or pidfd.has_ended(self._process)

    def kill_conmon(self) -> None:
        """Kill a conmon that hangs after its process has ended."""
        if self._conmon is not None:
            pidfd.send_signal(self._conmon, signals.SIGKILL)

    def connection_ended(self) -> None:
        """conmon has closed its connection: it was killed, or the process has ended or is about to."""
        if not self.result.done() and not self._over:
            self._watch_conmon()

    def close(self) -> None:
        """Stop watching and close the descriptors. Idempotent."""
        for descriptor in (self._process, self._conmon):
            if descriptor is not None:
                self._loop.remove_reader(descriptor)
                os.close(descriptor)
        self._process = self._conmon = None
        self._stalled = _nothing  # breaks the reference cycle
        self._oom_killed = _unknown

    def _process_ended(self) -> None:
        assert self._process is not None
        self._loop.remove_reader(self._process)
        self._over = True
        self._watch_conmon()

    def _watch_conmon(self) -> None:
        """Wait for conmon's end; if it has ended, read its exit file."""
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
        """conmon has ended: determine how the process ended."""
        if self.result.done():
            return
        recorded = read_exit(self._exit_file)
        if recorded is not None:
            self._finish(*recorded)
        elif self._over:
            self._ask_kernel()
        else:
            log.warning("a container's conmon was killed: its output is lost, its exit will still be reported")

    def _ask_kernel(self) -> None:
        status = pidfd.exit_status(self._process, self._pid) if self._process is not None else None
        code = UNKNOWN_CODE if status is None else pidfd.exit_code(status)
        with contextlib.suppress(FileNotFoundError):  # an exec's directory is removed with its container's
            self._exit_file.write_text(str(code))
        self._finish(code, time.time())

    def _finish(self, code: int, finished_at: float) -> None:
        self.result.set_result(Exit(code, finished_at, self._oom_killed()))
        self.close()


def read_exit(file: Path) -> tuple[int, float] | None:
    """The exit code written by conmon, and when; None without one (conmon renames the complete file into place).

    File timestamps have the granularity of the kernel's tick: adding one makes it no earlier than the last write.
    """
    try:
        with open(file) as opened:
            text = opened.read().strip()
            return int(text), os.fstat(opened.fileno()).st_mtime + _TICK_S
    except FileNotFoundError:
        return None


def _nothing() -> None:
    """The stall callback of a closed watch."""


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
        """conmon's working directory."""
        return self._directory

    def _attach(self) -> None:
        self._attachment = Attachment(self._directory, self.output, self._connection_ended)

    def _connection_ended(self) -> None:
        if self._ending is not None:
            self._ending.connection_ended()

    def _watch(self, pid: int, process: int | None, monitor: Monitor, exit_file: Path) -> None:
        self.pid = pid
        self._ending = Ending(pid, process, monitor, exit_file, oom_killed=self._oom_killed, stalled=self.output.hurry)
        if self._attachment is None or not self._attachment.is_open:  # it ended before anything watched
            self._ending.connection_ended()

    def _oom_killed(self) -> bool:
        return False

    async def wait(self) -> Exit:
        """Wait for the end of the process. Subscriptions may still have queued output."""
        if self._ending is None:
            raise Conflict("the process has not been started")
        return await asyncio.shield(self._ending.result)

    def exited(self) -> Exit | None:
        """How it ended, or None while it runs."""
        if self._ending is None or not self._ending.result.done():
            return None
        return self._ending.result.result()

    def has_ended(self) -> bool:
        """Report whether it has ended, even if `exited` does not know its exit code yet."""
        return self._ending is None or self._ending.has_ended()

    async def write_stdin(self, data: bytes) -> None:
        """Write to its stdin, waiting while it does not read; discarded when it has ended."""
        if self._attachment is not None:
            await self._attachment.write(data)

    async def close_stdin(self) -> None:
        """Close its stdin, if that ends with its client; a terminal and a shared stdin stay open."""
        if self._attachment is not None and self._ends_input:
            await self._attachment.end_input()

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal, in characters. Failed when it has ended."""
        await self._control.resize(rows, columns)

    async def reopen_log(self) -> None:
        """Reopen the log after a rename. Failed when it has ended."""
        await self._control.reopen_log()

    async def kill(self, signal: int) -> None:
        """Send a signal (by pidfd). Conflict when it has ended."""
        if self._ending is None:
            raise Conflict("the process has not been started")
        self._ending.send_signal(signal)

    async def settle(self, timeout_s: float) -> None:
        """Wait until the end of a killed process is known; kills conmon after the timeout.

        Its output stays readable: the connection closes when conmon ends.
        """
        if self._ending is None:
            self.output.close()
            return
        try:
            await asyncio.wait_for(asyncio.shield(self._ending.result), timeout_s)
        except TimeoutError:
            log.error("killing the conmon of process %d, which hangs", self.pid)
            self._ending.kill_conmon()
            try:
                await asyncio.wait_for(asyncio.shield(self._ending.result), timeout_s)
            except TimeoutError:  # SIGKILL has no effect in uninterruptible sleep (a device, a file server)
                log.error("process %d does not end: it is in uninterruptible sleep", self.pid)
