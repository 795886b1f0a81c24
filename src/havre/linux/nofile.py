"""RLIMIT_NOFILE: the limit of open files of this process, and how many it has open.

systemd's default soft limit is 1,024, for programs that use select(2), its hard limit 524,288 (DefaultLimitNOFILE,
systemd-system.conf(5)). This process raises its soft limit to the hard one; its children get the original limits back,
as Go's runtime does for dockerd's children.

Source: getrlimit(2), prlimit(2), proc_pid_fd(5).
"""

from __future__ import annotations

import os
import resource

_given: list[tuple[int, int]] = []


def raise_limit() -> None:
    """Raise the soft limit to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given.append((soft, hard))


def give_back(child: int) -> None:
    """Reset a child's limits to those that this process was started with."""
    if _given:
        resource.prlimit(child, resource.RLIMIT_NOFILE, _given[0])


def limit() -> int:
    """The soft limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def count() -> int:
    """Number of open descriptors; since Linux 6.2 a single stat(2) (proc_pid_fd(5))."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
