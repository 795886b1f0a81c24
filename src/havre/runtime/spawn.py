"""Child processes, started cheaply and awaited by pidfd.

`subprocess` starts a child with vfork when no `preexec_fn` is given, so that the daemon's size does not matter; only
descriptors 0 to 2 and those named in `pass_fds` are inherited. Output goes to a memory file that is read when the child
has ended: there is no pipe to drain, and a grandchild that keeps the descriptor open delays nothing.
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
"""For an OCI runtime to do what it is told: what it looks at may be a fifo, a hanging mount, a hook without an end."""
MAX_OUTPUT = 1 << 20
END_MS = 5000
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC", "LC_ALL": "C"}


@dataclass(frozen=True)
class Completed:
    """How a child ended: its exit code (negative: a signal), and up to 1 MiB each of what it wrote."""

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
    """Start a child in a session of its own, so that no terminal's signals reach it. FileNotFoundError and the like."""
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
    """Run a child to its end. Cancelled half-way, the child is killed and reaped; so it is after LIMIT_S: Failed."""
    with os.fdopen(os.memfd_create("stdout"), "r+b") as stdout, os.fdopen(os.memfd_create("stderr"), "r+b") as stderr:
        child = start(argv, cwd=cwd, stdout=stdout, stderr=stderr)
        try:
            async with asyncio.timeout(LIMIT_S if limited else None):
                await finish(child)
        except TimeoutError:
            raise Failed(f"{Path(argv[0]).name} {too_long()}") from None
        return Completed(child.returncode, _read(stdout), _read(stderr))


def too_long() -> str:
    """What is told of who was killed for taking longer than LIMIT_S."""
    return f"did not end within {LIMIT_S:g} s and was killed"


async def finish(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child and reap it. Cancelled half-way, it is killed, and reaped if it ends within END_MS."""
    if child.poll() is not None:  # it has ended; `Popen.kill` may have reaped it already
        return child.returncode
    descriptor = pidfd.open_process(child.pid)
    assert descriptor is not None, "a child keeps its PID until it is reaped"
    try:
        await pidfd.ended(descriptor)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with what it has started: the session is its own
        with contextlib.suppress(TimeoutError):  # SIGKILL reaches nobody who waits for a device or a file server
            async with asyncio.timeout(END_MS / 1000):
                await pidfd.ended(descriptor)
        raise
    finally:
        os.close(descriptor)
        child.poll()  # reaps it; one that the kernel holds is reaped by a later `Popen`
    return child.returncode


def end_workers(bundle: Path) -> None:
    """Kill the OCI runtimes that create on an OCI bundle and what they have started, whoever started them. Blocking.

    Monitors stay: one whose runtime fails ends by itself, another has a container's process to reap.
    """
    found = dict[int, int]()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        started = pidfd.start_time(pid)  # before the look: a PID that is recycled meanwhile has another
        if _works_on(f"/proc/{pid}", bundle):
            found[pid] = started
    _kill(pidfd.descendants(found))


def end_children(pid: int) -> None:
    """Kill all that process `pid`, a child of ours, has started, and what these have. Blocking."""
    found = pidfd.descendants({pid: pidfd.start_time(pid)})
    found.pop(pid, None)
    _kill(found)


def _kill(processes: Mapping[int, int]) -> None:
    """Kill processes, by PID and start time, and see their ends, for END_MS each at most."""
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
