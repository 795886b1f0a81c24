"""Processes by descriptor: signals that cannot hit a recycled PID, and exit statuses of processes that are not
children.

A pidfd becomes readable when its process ends; `ended` awaits that in the event loop. Its exit status comes from
waitid(2) for the parent; from /proc/PID/stat for root until it is reaped; and after that from a pidfd held open
(PIDFD_GET_INFO with PIDFD_INFO_EXIT, kernel 6.15). On older kernels the daemon becomes a subreaper, so that it is the
parent of orphans.

Source: pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2), prctl(2), linux/pidfd.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
from collections.abc import Mapping

_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), 64 bytes in its first version
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=QQ11Ii")  # mask, cgroup ID, eleven IDs of process, user and group, wait status

_PR_SET_CHILD_SUBREAPER = 36
_SYS_PIDFD_GETFD = 438  # the same on every architecture: added after system call numbers were unified

_libc = ctypes.CDLL(None, use_errno=True)


def open_process(pid: int, started: int | None = None) -> int | None:
    """Open a pidfd (close-on-exec) for `pid`; None if it has ended, or its start time is not `started` (PID
    recycled)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if started is not None and start_time(pid) != started:
        os.close(descriptor)
        return None
    return descriptor


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal; ProcessLookupError when the process has ended."""
    signal.pidfd_send_signal(pidfd, number)


def has_ended(pidfd: int) -> bool:
    """Report whether the process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def ended(pidfd: int) -> None:
    """Wait until the process ends. One waiter per descriptor; the descriptor stays open."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _resolve, future)
    try:
        await future
    finally:
        loop.remove_reader(pidfd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def exit_status(pidfd: int, pid: int) -> int | None:
    """The wait status of an ended process: a child (which is reaped), another's zombie, or one reaped by another
    process.

    None while it runs, or when the kernel no longer reports it.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        status = _zombie_status(pidfd, pid)
        return _reaped_status(pidfd) if status is None else status
    if result is None:
        return None
    return result.si_status << 8 if result.si_code == os.CLD_EXITED else result.si_status


def _zombie_status(pidfd: int, pid: int) -> int | None:
    """From /proc/PID/stat, readable by root. A zombie keeps its PID."""
    try:
        fields = _stat_fields(pid)
        send_signal(pidfd, 0)  # still the same process, so the status read is its own
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[49]) if fields[0] == b"Z" else None


def _reaped_status(pidfd: int) -> int | None:
    buffer = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH, errno.EREMOTE):
            return None
        raise
    mask, *_, status = _PIDFD_INFO.unpack(buffer)
    return status if mask & _PIDFD_INFO_EXIT else None


def tells_exit_of_others() -> bool:
    """Report whether this kernel reports the exit status of processes that others reap (6.15)."""
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1].split("-")[0])) >= (6, 15)


def exit_code(status: int) -> int:
    """The shell's exit code for a wait status: the exit code, or 128+n for signal n."""
    code = os.waitstatus_to_exitcode(status & 0xFFFF)
    return code if code >= 0 else 128 - code


def take_descriptor(pidfd: int, number: int) -> int:
    """Duplicate (close-on-exec) another process's descriptor. OSError EBADF when it has no such descriptor."""
    found: int = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"pidfd_getfd: {os.strerror(code)}")
    return found


def parent(pid: int) -> int:
    """The parent PID of a process; 0 when it has ended."""
    try:
        return int(_stat_fields(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def descendants(roots: Mapping[int, int]) -> dict[int, int]:
    """These processes (PID to start time) and their descendants that are still alive."""
    started, children = {}, dict[int, list[int]]()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = _stat_fields(int(name))
            started[int(name)] = int(fields[19])
            children.setdefault(int(fields[1]), []).append(int(name))
    found = dict[int, int]()
    left = [pid for pid, time in roots.items() if started.get(pid) == time]
    while left:
        pid = left.pop()
        found[pid] = started[pid]
        left.extend(child for child in children.get(pid, ()) if child not in found)
    return found


def start_time(pid: int) -> int:
    """A process's start time in clock ticks since boot; with the PID it identifies a process. 0 when it has ended."""
    try:
        return int(_stat_fields(pid)[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _stat_fields(pid: int) -> list[bytes]:
    # Field 2, the command in parentheses, may contain any character; the fields after it are plain (proc_pid_stat(5)).
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def become_subreaper() -> None:
    """Become the parent of orphaned descendants (PR_SET_CHILD_SUBREAPER), so that `exit_status` can reap them."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
