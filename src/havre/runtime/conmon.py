"""conmon: the program that holds a process's pty or pipes, writes its log, and outlives the daemon.

This module has its command line, the handshake, the attach connection and the control FIFO.

    daemon                 conmon                         OCI runtime
      | start pipe: 1 byte    |                               |
      |---------------------->|  create --bundle B            |
      |                       |------------------------------>|   (exec: exec --process FILE ID)
      |  sync pipe: {"data": PID} or {"data": -1, "message"}  |
      |<----------------------|<------------------------------|
      | connect B/attach      |
      |======================>|  SEQPACKET: byte 2 (stdout) or 3 (stderr), then data; stdin raw the other way
      |                       |
      |  pidfd readable       |  writes EXITDIR/NAME (decimal, 128+n for signal n), then ends
      |<----------------------|

An exec with output has one more step: {"data": 0} on the attach pipe, the connection, and only then a second byte.

Quirks, all observed: stdin packets over 32768 bytes are truncated; a client that does not read blocks conmon, hence one
connection that is always drained; two messages in the control FIFO at once corrupt each other (2.1.12), hence the wait
until it is empty; `--log-size-max` discards old lines and is never used.

Why: docs/decisions/040.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from havre.aio import in_thread
from havre.aio import spawn as spawn_task
from havre.errors import Failed
from havre.linux import nofile
from havre.runtime import spawn
from havre.runtime.fanout import STDERR, STDOUT, Fanout
from havre.runtime.null import null_device, shielded

MAX_STDIN_PACKET = 32768
MAX_PACKET = 1 << 16
PACKETS_PER_WAKEUP = 32
CONTROL_TIMEOUT_S = 2.0

_buffer = memoryview(bytearray(MAX_PACKET))
"""The receive buffer of all connections: the event loop copies each packet before it receives the next."""


class Report(msgspec.Struct):
    """A line of the sync pipe: a PID or an exit code, or -1 and an error message."""

    data: int
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One conmon: `directory` holds the attach socket and control FIFO, `arguments` are conmon's, `runtime` its -r.

    conmon inherits the descriptors `kept` and holds them open. With `shield`, the OCI runtime gets our null device
    instead
    of the host's /dev/null (`null`).
    """

    program: Path
    directory: Path
    runtime: Sequence[str]
    name: str
    container_id: str
    log_path: Path | None
    tty: bool
    open_stdin: bool
    leave_stdin_open: bool = False
    arguments: Sequence[str] = field(default=())
    kept: Sequence[int] = field(default=())
    shield: bool = False

    def argv(self) -> list[str]:
        """conmon's command line."""
        program, *options = self.runtime
        if self.shield:
            program, *options = shielded(self.runtime, tty=self.tty, open_stdin=self.open_stdin)
        return [
            str(self.program),
            *("--api-version", "1", "--sync", "--full-attach", "--no-sync-log"),
            *("--cid", self.container_id, "--cuuid", self.name, "--name", self.name),
            *("--runtime", program, "--bundle", str(self.directory)),
            *("--container-pidfile", str(self.directory / "pid"), "--exit-dir", str(self.directory / "exit")),
            *("--log-path", f"k8s-file:{self.log_path}" if self.log_path else "none"),
            *(["--terminal"] if self.tty else []),
            *(["--stdin"] if self.open_stdin else []),
            *(["--leave-stdin-open"] if self.leave_stdin_open else []),
            *(f"--runtime-arg={option}" for option in (*options, "--log-format=json", f"--log={self.runtime_log}")),
            *self.arguments,
        ]

    @property
    def runtime_log(self) -> Path:
        """The OCI runtime's error log."""
        return self.directory / "runtime.log"

    @property
    def exit_file(self) -> Path:
        """The file with the exit code; for an exec, too, it has the container's name."""
        return self.directory / "exit" / self.container_id


class Handshake:
    """A started conmon with the daemon's ends of its pipes; as a context manager, it closes them."""

    def __init__(self, launch: Launch, set_apart: Callable[[int], None], *, attach_first: bool = False) -> None:
        """Start conmon, and call `set_apart` with its PID in a thread; the PID is not reaped before `finish` or
        `Ending`."""
        self._open: list[int] = []
        theirs: list[int] = []
        env = dict(spawn.ENVIRONMENT)
        try:
            self._sync = self._pipe_from("_OCI_SYNCPIPE", env, theirs)
            self._attach = self._pipe_from("_OCI_ATTACHPIPE", env, theirs) if attach_first else -1
            start_read, self._start = os.pipe()
            self._open.append(self._start)
            theirs.append(start_read)
            env["_OCI_STARTPIPE"] = str(start_read)
            with open(launch.directory / "conmon.log", "wb") as log:
                self.child: subprocess.Popen[bytes] = spawn.start(
                    launch.argv(),
                    cwd=launch.directory,
                    env=env,
                    pass_fds=(*theirs, *launch.kept, *([null_device()] if launch.shield else [])),
                    stdout=log,
                    stderr=log,
                )
            nofile.give_back(self.child.pid)
            os.write(self._start, b"1")
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._apart = spawn_task(in_thread(set_apart, self.child.pid), f"set conmon {self.child.pid} apart")

    def __enter__(self) -> Handshake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pipe_from(self, variable: str, env: dict[str, str], theirs: list[int]) -> int:
        read, write = os.pipe()
        os.set_blocking(read, False)
        self._open.append(read)
        theirs.append(write)
        env[variable] = str(write)
        return read

    def close(self) -> None:
        """Close the daemon's ends of the pipes."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def proceed(self) -> None:
        """Write the second byte: the attach connection is established."""
        os.write(self._start, b"1")

    async def attach_report(self) -> Report | None:
        """conmon's report before the attach connection; None when it ended without one."""
        return await _read_report(self._attach)

    async def report(self) -> Report | None:
        """The next line of the sync pipe, after `set_apart` has completed; None when conmon ended without one."""
        report = await _read_report(self._sync)
        await self._apart
        return report

    async def finish(self) -> None:
        """Wait for the end of a conmon that failed."""
        await self._apart
        await spawn.finish(self.child)

    async def abandon(self) -> None:
        """Kill a conmon that has not reported yet, and its descendants."""
        await in_thread(spawn.end_children, self.child.pid)
        self.child.kill()
        await self.finish()


async def _read_report(descriptor: int) -> Report | None:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = await _read_some(descriptor)
        if not piece:
            break
        line += piece
    if not line.strip():
        return None
    try:
        return msgspec.json.decode(line.splitlines()[0], type=Report)
    except msgspec.DecodeError as error:
        raise Failed(f"conmon sent {bytes(line[:200])!r}") from error


async def _read_some(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 65536)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Attachment:
    """The daemon's connection to a conmon: passes output to a `Fanout`, input from `write`."""

    def __init__(self, directory: Path, output: Fanout, ended: Callable[[], None]) -> None:
        """Connect to `directory/attach`; OSError when nothing listens. `ended` is called when conmon closes the
        connection."""
        self._socket = _connect(directory)
        self._output = output
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._writing = asyncio.Lock()
        output.room = self._resume
        self._resume()

    def _resume(self) -> None:
        if self._open:
            self._loop.add_reader(self._socket.fileno(), self._drain)

    def _drain(self) -> None:
        for _ in range(PACKETS_PER_WAKEUP):
            try:
                size = self._socket.recv_into(_buffer)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # reported once, when conmon ended with unread input: its last output is still in the socket
            if size == 0:
                self.close()
                self._ended()
                self._ended = _nobody  # breaks the reference cycle
                return
            stream = STDERR if _buffer[0] == 3 else STDOUT
            if size > 1 and not self._output.publish(stream, bytes(_buffer[1:size])):
                self._loop.remove_reader(self._socket.fileno())
                return

    @property
    def is_open(self) -> bool:
        """Report whether conmon may still send output."""
        return self._open

    def close(self) -> None:
        """Close the connection: end of output. Idempotent."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        self._output.close()

    async def write(self, data: bytes) -> None:
        """Write to the process's stdin, waiting while it does not read; discarded when it has ended."""
        async with self._writing:
            for start in range(0, len(data), MAX_STDIN_PACKET):
                await self._send(data[start : start + MAX_STDIN_PACKET])

    async def _send(self, packet: bytes) -> None:
        while self._open:
            try:
                self._socket.send(packet)
            except BlockingIOError:
                await self._writable()
            except (BrokenPipeError, ConnectionResetError):
                return
            else:
                return

    async def _writable(self) -> None:
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _set, writable)
        try:
            # Closing the connection concurrently removes the writer callback: check again every second.
            await asyncio.wait([writable], timeout=1.0)
        finally:
            if self._open:
                self._loop.remove_writer(self._socket.fileno())

    async def end_input(self) -> None:
        """End of input for the process, after pending writes; output continues."""
        async with self._writing:
            if self._open:
                try:
                    self._socket.shutdown(socket.SHUT_WR)
                except OSError:  # ENOTCONN: the process has ended and conmon with it
                    return


def _nobody() -> None:
    """The `ended` callback of a connection whose end was already reported."""


def _connect(directory: Path) -> socket.socket:
    # A socket address holds 107 bytes (unix(7)); a path through /proc/self/fd always fits.
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{parent}/attach")
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(parent)
    return connection


class Control:
    """conmon's control FIFO: resizes the terminal and reopens the log."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ctl"
        self._lock = asyncio.Lock()

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal, in characters."""
        await self._send(f"1 {rows} {columns}\n")

    async def reopen_log(self) -> None:
        """Make conmon reopen its log by name. Rename the old one first: conmon truncates the file."""
        await self._send("2 0 0\n")

    async def _send(self, message: str) -> None:
        async with self._lock:
            try:
                fifo = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:  # ENXIO: no reader; ENOENT: removed
                raise Failed("the process's monitor has ended") from error
            try:
                os.write(fifo, message.encode())
                async with asyncio.timeout(CONTROL_TIMEOUT_S):
                    while _unread(fifo):  # noqa: ASYNC110
                        await asyncio.sleep(0.001)  # a FIFO does not notify its writer of reads
            except BrokenPipeError as error:
                raise Failed("the process's monitor has ended") from error
            except TimeoutError as error:
                raise Failed("the process's monitor does not read its control fifo") from error
            finally:
                os.close(fifo)


def _unread(fifo: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(fifo, termios.FIONREAD, b"\0\0\0\0"))
    return int(count)


def read_failure(launch: Launch, message: str) -> str:
    """Why conmon or the OCI runtime failed: the runtime's log, else conmon's report, else conmon's stderr."""
    for line in reversed(_lines(launch.runtime_log)):
        with contextlib.suppress(json.JSONDecodeError):
            entry = json.loads(line)
            if entry.get("level") in ("error", "fatal"):
                return str(entry.get("msg", ""))
    return (
        message
        or "\n".join(_lines(launch.directory / "conmon.log")[-3:])
        or "the monitor ended without an error message"
    )


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
