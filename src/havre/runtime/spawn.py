"""Child processes, started cheaply and awaited by pidfd.

`subprocess` starts a child with vfork when no `preexec_fn` is given, so that the daemon's size does not matter; only
descriptors 0 to 2 and those named in `pass_fds` are inherited. Output goes to a memory file that is read when the child
has ended: there is no pipe to drain, and a grandchild that keeps the descriptor open delays nothing.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from havre.linux import pidfd

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


async def run(argv: Sequence[str], *, cwd: Path | None = None) -> Completed:
    """Run a child to its end. Cancelled half-way, the child is killed and reaped."""
    with os.fdopen(os.memfd_create("stdout"), "r+b") as stdout, os.fdopen(os.memfd_create("stderr"), "r+b") as stderr:
        child = start(argv, cwd=cwd, stdout=stdout, stderr=stderr)
        await finish(child)
        return Completed(child.returncode, _read(stdout), _read(stderr))


async def finish(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child and reap it. Cancelled half-way, it is killed and reaped."""
    if child.poll() is not None:  # it has ended; `Popen.kill` may have reaped it already
        return child.returncode
    descriptor = pidfd.open_process(child.pid)
    assert descriptor is not None, "a child keeps its PID until it is reaped"
    try:
        await pidfd.ended(descriptor)
    except BaseException:
        child.kill()
        raise
    finally:
        os.close(descriptor)
        child.wait()
    return child.returncode


def end_workers(bundle: Path) -> None:
    """Kill the OCI runtimes that work on an OCI bundle, whoever started them, and see their end. Blocking.

    Monitors stay: one whose runtime fails ends by itself, another has a container's process to reap.
    """
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or not _works_on(entry.path, bundle):
            continue
        descriptor = pidfd.open_process(int(entry.name))
        if descriptor is None:
            continue
        try:
            if _works_on(entry.path, bundle):  # still: so the descriptor is its own
                pidfd.send_signal(descriptor, signal.SIGKILL)
                ended = select.poll()
                ended.register(descriptor, select.POLLIN)
                ended.poll(END_MS)
        except ProcessLookupError:
            continue
        finally:
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
