"""Child processes, started cheaply and awaited by pidfd.

`subprocess` starts a child with vfork(2) when no `preexec_fn` is given, independent of the daemon's size; it inherits
only descriptors 0 to 2 and `pass_fds`. Output goes to a memfd that is read when the child has ended: no pipe to drain,
and a grandchild that keeps the descriptor open delays nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from havre.errors import Failed
from havre.linux import pidfd

LIMIT_S = 60.0
"""Time limit of an OCI runtime's call: it may block on a FIFO, a hanging mount or a hook."""
MAX_OUTPUT = 1 << 20
END_MS = 5000
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC", "LC_ALL": "C"}


@dataclass(frozen=True)
class Completed:
    """A child's exit code (negative: a signal), and up to 1 MiB each of its output."""

    code: int
    stdout: str
    stderr: str


def start(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] = ENVIRONMENT,
    pass_fds: Sequence[int] = (),
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that no terminal's signals reach it. OSError, e.g. FileNotFoundError."""
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=dict(env),
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


async def run(argv: Sequence[str], *, cwd: Path | None = None, limited: bool = True) -> Completed:
    """Run a child to its end. When cancelled, it is killed and reaped; likewise after LIMIT_S, with Failed."""
    with os.fdopen(os.memfd_create("stdout"), "r+b") as stdout, os.fdopen(os.memfd_create("stderr"), "r+b") as stderr:
        child = start(argv, cwd=cwd, stdout=stdout, stderr=stderr)
        try:
            async with asyncio.timeout(LIMIT_S if limited else None):
                await finish(child)
        except TimeoutError:
            raise Failed(f"{Path(argv[0]).name} {too_long()}") from None
        return Completed(child.returncode, _read(stdout), _read(stderr))


def too_long() -> str:
    """The message for a child killed after LIMIT_S."""
    return f"did not end within {LIMIT_S:g} s and was killed"


async def finish(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child and reap it. When cancelled, it is killed, and reaped if it ends within END_MS."""
    if child.poll() is not None:  # `Popen.kill` may have reaped it already
        return child.returncode
    descriptor = pidfd.open_process(child.pid)
    assert descriptor is not None, "a child keeps its PID until it is reaped"
    try:
        await pidfd.ended(descriptor)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # including its descendants: the session is its own
        with contextlib.suppress(TimeoutError):  # SIGKILL has no effect in uninterruptible sleep
            async with asyncio.timeout(END_MS / 1000):
                await pidfd.ended(descriptor)
        raise
    finally:
        os.close(descriptor)
        child.poll()  # reaps it; otherwise a later `Popen` does
    return child.returncode


def end_workers(bundle: Path) -> None:
    """Kill the OCI runtimes that are creating an OCI bundle, and their descendants. Blocking.

    conmons are left: one whose runtime fails ends by itself, another has to reap a container's process.
    """
    found = dict[int, int]()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        started = pidfd.start_time(pid)  # read first: a recycled PID would have another
        if _works_on(f"/proc/{pid}", bundle):
            found[pid] = started
    _kill(pidfd.descendants(found))


def end_children(pid: int) -> None:
    """Kill all descendants of process `pid`, a child of ours. Blocking."""
    found = pidfd.descendants({pid: pidfd.start_time(pid)})
    found.pop(pid, None)
    _kill(found)


def _kill(processes: Mapping[int, int]) -> None:
    """Kill processes, given by PID and start time, and wait for their ends, at most END_MS each."""
    held = [pidfd.open_process(pid, started) for pid, started in processes.items()]
    descriptors = [each for each in held if each is not None]
    try:
        for descriptor in descriptors:
            with contextlib.suppress(ProcessLookupError):
                pidfd.send_signal(descriptor, signal.SIGKILL)
        for descriptor in descriptors:
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            ended.poll(END_MS)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _works_on(process: str, bundle: Path) -> bool:
    try:
        arguments = Path(process, "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    program = arguments.partition(b"\0")[0]
    return b"\0--bundle\0%b\0" % os.fsencode(bundle) in arguments and not program.endswith(b"/conmon")


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT).decode(errors="replace")
