"""Control groups on hosts of all three layouts: detect the layout, locate groups, read members and OOM counts, remove.

    v1      one tree per controller, e.g. /sys/fs/cgroup/memory, and possibly a tree without one for systemd
    v2      a single tree on /sys/fs/cgroup
    hybrid  v1 trees, and a v2 tree on /sys/fs/cgroup/unified that still has a controller (hugetlb, say)

A v2 tree without controllers beside v1 trees counts as v1, as in the OCI runtimes. The OCI runtime sets the limits;
this module only reads them. Blocking, but it reads kernel files only.

Source: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["v1", "v2", "hybrid"]

_MEMBER_TREES = ("pids", "memory", "cpu", "freezer", "devices", "name=systemd")  # v1 trees used to look up members


@dataclass(frozen=True)
class Cgroups:
    """The host's layout. `trees` maps a controller (v1, `name=systemd`) to its mount point; the key "" is the v2 tree.

    `swap_limit` and `blkio_weight` report whether the kernel can limit memory plus swap and weight block I/O.
    """

    layout: Layout
    trees: Mapping[str, Path]
    swap_limit: bool = True
    blkio_weight: bool = True

    def path(self, group: str) -> Path:
        """The directory of `group` (as in `/havre/ID`) in the tree used to look up members."""
        if self.layout == "v2":
            return below(self.trees[""], group)
        tree = next((name for name in _MEMBER_TREES if name in self.trees), None)
        if tree is None:
            raise FileNotFoundError(errno.ENOENT, "no cgroup tree is mounted")
        return below(self.trees[tree], group)


def clean_group(group: str) -> str:
    """`group` as an absolute path without `.` and `..`, which cannot lead above the root of its tree."""
    return posixpath.normpath(f"/{group.lstrip('/')}")


def below(tree: Path, group: str) -> Path:
    """The directory of `group` in `tree`; `..` in `group` cannot lead out of it."""
    return tree / clean_group(group)[1:]


def read_cgroups() -> Cgroups:
    """Read the layout of this host from its mount table."""
    trees = parse_mounts(Path("/proc/self/mountinfo").read_text())
    controllers = ""
    if "" in trees:
        controllers = (trees[""] / "cgroup.controllers").read_text()
    layout = decide_layout(trees, controllers.split())
    if layout == "v2":
        return Cgroups(layout, trees, swap_limit=True, blkio_weight="io" in controllers.split())
    return Cgroups(
        layout,
        trees,
        swap_limit=_has(trees, "memory", "memory.memsw.limit_in_bytes"),
        blkio_weight=_has(trees, "blkio", "blkio.weight") or _has(trees, "blkio", "blkio.bfq.weight"),
    )


def _has(trees: Mapping[str, Path], controller: str, file: str) -> bool:
    # The root group of a v1 tree lacks some limit files; every group below it has them all.
    tree = trees.get(controller)
    if tree is None:
        return False
    children = (Path(entry.path) for entry in os.scandir(tree) if entry.is_dir(follow_symlinks=False))
    return (tree / file).exists() or any((child / file).exists() for child in children)


def parse_mounts(mountinfo: str) -> dict[str, Path]:
    """Return the cgroup trees in a mountinfo text: controller ("" for v2) to mount point. The first mount of each
    counts."""
    trees: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        where, kind = before.split()[4], after.split()
        if kind[0] == "cgroup2":
            trees.setdefault("", Path(where))
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if option not in ("rw", "ro", "xattr", "clone_children") and not option.startswith("release_agent="):
                    trees.setdefault(option, Path(where))
    return trees


def decide_layout(trees: Mapping[str, Path], unified_controllers: list[str]) -> Layout:
    """Return v2 without v1 trees; hybrid when a v2 tree beside v1 trees has a controller; else v1."""
    if not any(name for name in trees if name):
        return "v2"
    return "hybrid" if unified_controllers else "v1"


def pids(group: Path) -> list[int]:
    """PIDs in `group` and its subgroups, ascending; empty when the group is gone."""
    found: set[int] = set()
    for directory, _, files in os.walk(group):
        if "cgroup.procs" in files:
            found.update(_read_pids(Path(directory, "cgroup.procs")))
    return sorted(found)


def _read_pids(file: Path) -> list[int]:
    try:
        return [int(line) for line in file.read_text().split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []  # removed since it was listed, or a threaded group (cgroups(7))
        raise


def oom_kills(cgroups: Cgroups, group: str) -> int:
    """Number of processes of `group` killed by the OOM killer; 0 when the group is gone or the kernel does not
    count."""
    if cgroups.layout == "v2":
        file = below(cgroups.trees[""], group) / "memory.events"
    elif "memory" in cgroups.trees:
        file = below(cgroups.trees["memory"], group) / "memory.oom_control"
    else:
        return 0
    try:
        counters = dict(line.split() for line in file.read_text().splitlines())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return 0
        raise
    return int(counters.get("oom_kill", "0"))


def service_trees(cgroups: Cgroups) -> dict[str, Path]:
    """The trees that a service manager uses to track a service's processes: v2, `name=systemd`, or both."""
    return {name: tree for name, tree in cgroups.trees.items() if name in ("", "name=systemd")}


def groups_of(pid: int | str) -> dict[str, str]:
    """The groups of process `pid` ("self": this one), keyed by tree: a controller (v1), `name=systemd`, "" for v2."""
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, group = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), group))
    return groups


def move(tree: Path, group: str, pid: int) -> None:
    """Move a process into `group` of `tree`; creates the group."""
    directory = below(tree, group)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.procs").write_text(str(pid))


def remove(cgroups: Cgroups, group: str, timeout_s: float) -> None:
    """Kill all processes of `group` in every tree and remove it. Idempotent; OSError when it stays busy until the
    timeout."""
    deadline = time.monotonic() + timeout_s
    for tree in cgroups.trees.values():
        top = below(tree, group)
        if not _is_removed(top):
            for directory, _, _ in os.walk(top, topdown=False):
                _remove(Path(directory), deadline)


def _is_removed(directory: Path) -> bool:
    """Try to remove an empty group with one call (the usual case); returns whether it is gone."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _remove(directory: Path, deadline: float) -> None:
    while True:
        for pid in _read_pids(directory / "cgroup.procs"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.002)  # a killed process leaves its group asynchronously
        else:
            return


def thaw(cgroups: Cgroups, group: str) -> None:
    """Thaw the frozen processes of `group`: on v1, a frozen process does not even act on SIGKILL. Idempotent."""
    if cgroups.layout == "v2":
        file, go_on = cgroups.path(group) / "cgroup.freeze", "0"
    elif "freezer" in cgroups.trees:
        file, go_on = below(cgroups.trees["freezer"], group) / "freezer.state", "THAWED"
    else:
        return
    try:
        file.write_text(go_on)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
