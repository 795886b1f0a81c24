"""How many files this process may have open, and how many it has.

A service manager's soft limit is 1,024 for the sake of programs that use select(2), its hard one 524,288 (systemd's
DefaultLimitNOFILE, file-hierarchy of limits in systemd.exec(5)). This process uses none and takes the hard one; its
children get back what it was given, as Go's runtime does for dockerd's.

Source: getrlimit(2), prlimit(2), proc_pid_fd(5).
"""

from __future__ import annotations

import os
import resource

_given: list[tuple[int, int]] = []


def raise_limit() -> None:
    """Let this process open as many files as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given.append((soft, hard))


def give_back(child: int) -> None:
    """Let a child have the limits that this process was given."""
    if _given:
        resource.prlimit(child, resource.RLIMIT_NOFILE, _given[0])


def limit() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def count() -> int:
    """How many it has open; a look at one number since Linux 6.2."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
