"""The leak check: the kernel must hold the same objects before and after a test.

Compares mounts, links, nft tables, cgroups, named network namespaces and the processes of containers, in one network
namespace (the tests' own, or that of the engine under test). Everything is read in this process, as it happens twice
per test.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from havre.linux.namespaces import in_netns
from havre.linux.nft import Nft
from support.waiting import until

_HOLDERS = {"conmon", "crun", "runc", "catatonit"}
_OURS = ("/run/havre/",)


@dataclass(frozen=True)
class Scope:
    """What to compare: a network namespace by name (default: the caller's), paths below `roots`, and one cgroup.

    Without an engine, also a daemon's default paths.
    """

    roots: tuple[str, ...]
    cgroup: str = "/havre"
    netns: str | None = None
    daemon: int | None = None  # the PID whose descriptors are counted


@dataclass(frozen=True)
class Kernel:
    """Names of kernel objects that an engine may have created."""

    mounts: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    descriptors: frozenset[str] = frozenset()

    @classmethod
    def look(cls, scope: Scope) -> Kernel:
        """The objects present now."""
        net = in_netns(Path("/run/netns", scope.netns), _net) if scope.netns else _net()
        opened = _descriptors(scope.daemon) if scope.daemon else frozenset[str]()
        return cls(_mounts(scope), *net, _cgroups(scope.cgroup), _processes(scope.roots), opened)

    def more_than(self, before: Kernel) -> list[str]:
        """The objects that were not present before, as lines of text."""
        return sorted(
            f"{kind}: {item}"
            for kind in ("mounts", "links", "rules", "cgroups", "processes", "descriptors")
            for item in getattr(self, kind) - getattr(before, kind)
        )


def assert_no_leak(before: Kernel, scope: Scope, timeout_s: float = 10.0) -> None:
    """Fail if new objects are present; background cleanup gets `timeout_s`."""
    left: list[str] = []

    def clean() -> bool:
        left[:] = Kernel.look(scope).more_than(before)
        return not left

    try:
        until(clean, "a clean kernel", timeout_s)
    except AssertionError:
        raise AssertionError("left behind:\n  " + "\n  ".join(left)) from None


def _mounts(scope: Scope) -> frozenset[str]:
    """Mounts, except image layers that the daemon keeps mounted for a while; it unmounts them when it ends."""
    return frozenset(
        point
        for point in mounts_below("/")
        if "/run/layers/" not in point and point.startswith(scope.roots if scope.netns else (*scope.roots, *_OURS))
    )


def mounts_below(root: str) -> frozenset[str]:
    """Mount points below `root` in the caller's mount namespace."""
    return frozenset(
        point
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if (point := line.split()[4]).startswith(root)
    )


def _net() -> tuple[frozenset[str], frozenset[str]]:
    """The links and all nft rules, without counters, in the thread's network namespace."""
    links = [line.partition(":")[0].strip() for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]]
    nft = Nft()
    listed = re.sub(r"packets \d+ bytes \d+|expires \w+", "", nft.run("list ruleset"))
    nft.close()
    return frozenset(links), frozenset(line.strip() for line in listed.splitlines() if line.strip() not in {"", "}"})


def _cgroups(parent: str) -> frozenset[str]:
    # Parent cgroups shared by containers stay, like /docker; a container's own is named by its ID.
    patterns = (f"{parent[1:]}/*", f"*{parent}/*")  # cgroup v2, and every hierarchy of v1
    groups = (group for pattern in patterns for group in Path("/sys/fs/cgroup").glob(pattern))
    return frozenset(str(group) for group in groups if len(group.name) == 64)


def _processes(roots: tuple[str, ...]) -> frozenset[str]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
            if name not in _HOLDERS:
                continue
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(root in command for root in roots):
            found.add(f"{name} {pid}")
    return frozenset(found)


def _descriptors(pid: int) -> frozenset[str]:
    """A process's descriptors by kind, numbered within the kind, so that one more is one more name.

    Packed contexts that the builder caches are excluded: their number is limited.
    """
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if "/build/contexts/" not in target:
            kinds[target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target] += 1
    return frozenset(f"{kind} {number}" for kind, count in kinds.items() for number in range(1, count + 1))
