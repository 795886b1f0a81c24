"""What a container changed in its root file system, as `docker diff` tells it.

    A  added       C  changed (its own metadata or content, or something below it)       D  deleted, with all below it

An overlay's upper directory holds whatever was touched, so only that is walked, beside the merged view of the layers:

    upper entry             the layers have    it is
    whiteout                it                 D
    anything                nothing there      A
    directory               a directory        C if its mode or owner differ, or anything below it changed
    opaque directory        a directory        as above, and D for each name that the upper one lacks
    anything else           something          C if mode, owner, device, size or time differ; else only copied up

A copied root file system is compared with a record of what was copied, by the same rules.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from havre.linux.trees import Entry, is_opaque, is_whiteout, open_directory, walk

Kind: TypeAlias = Literal["A", "C", "D"]


class Change(msgspec.Struct, frozen=True):
    """One path, absolute inside the container, and what became of it."""

    kind: Kind
    path: str


class Seen(NamedTuple):
    """What an entry is like. Inode and change time cannot be forged from inside a container."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int
    inode: int
    ctime_ns: int


# What is made in a root file system before it runs, mostly to mount over; deeper ones first. Docker hides them below.
_MOUNT_POINTS = (
    ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "dev/console", "dev/pts", "dev/shm", "dev/mqueue",
    "dev", "proc", "sys",
)  # fmt: skip

Record: TypeAlias = dict[str, Seen]
Kinds: TypeAlias = dict[str, Kind]
"""What became of each path, relative to the root."""


def record(root: int) -> Record:
    """What lies below the open directory `root` now."""
    return {entry.path: _seen(entry.stat) for entry in walk(root)}


def changed_since(before: Record, root: int) -> Kinds:
    """What became of the tree below `root` since `before`, as Docker would tell it."""
    return _compare(before, root, _differs)


def touched_since(before: Record, root: int) -> Kinds:
    """As `changed_since`, and what was written to without looking different: an upper directory would hold it."""
    return _compare(before, root, Seen.__ne__)


def bare_mount_points(root: int) -> set[str]:
    """The paths below `root` where nothing is but what the OCI runtime mounted over: empty files and directories."""
    bare: set[str] = set()
    for path in _MOUNT_POINTS:
        status = _status(path, root)
        if status is None:
            continue
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(f"/proc/self/fd/{root}/{path}") as entries:
                if all(f"{path}/{entry.name}" in bare for entry in entries):
                    bare.add(path)
        elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
            bare.add(path)
    return bare


def _compare(before: Record, root: int, differs: Callable[[Seen, Seen], bool]) -> Kinds:
    now, found = record(root), Kinds()
    for path in before.keys() - now.keys():
        above = now.get(_parent(path))
        if "/" not in path or (above is not None and stat.S_ISDIR(above.mode)):
            found[path] = "D"
    for path, seen in now.items():
        old = before.get(path)
        if old is None:
            found[path] = "A"
        elif differs(old, seen):
            found[path] = "C"
    return _finish(found, root)


def compare_with_layers(upper: int, lower: int) -> Kinds:
    """What the upper directory changes of the merged layers; both are open directories."""
    found: Kinds = {}
    beside = _Beside(lower)
    try:
        if is_opaque(upper):
            _add_hidden(found, "", upper, lower)
        for entry in walk(upper):
            below = beside.leave(entry.path)
            old = None if below is None else _status(entry.name, below)
            if is_whiteout(entry.stat):
                if old is not None:
                    found[entry.path] = "D"
                continue
            if old is None:
                found[entry.path] = "A"
            elif _differs(_seen(old), _seen(entry.stat)):
                found[entry.path] = "C"
            if entry.is_directory:
                beside.enter(entry, below if old is not None and stat.S_ISDIR(old.st_mode) else None)
                beside.note_hidden(found, entry)
    finally:
        beside.close()
    return _finish(found, upper)


def as_changes(found: Kinds) -> list[Change]:
    """For the user: absolute, and in order of path."""
    return [Change(kind, _text("/" + path)) for path, kind in sorted(found.items(), key=lambda item: item[0])]


class _Beside:
    """The layers' directories beside the upper ones that a walk is in: one for each level, None where there is none."""

    def __init__(self, lower: int) -> None:
        self._levels: list[tuple[str, int | None]] = [("", os.dup(lower))]

    def leave(self, path: str) -> int | None:
        """The layers' directory beside the one that `path` lies in, all deeper ones being done with."""
        while not path.startswith(self._levels[-1][0]):
            self._close(self._levels.pop()[1])
        return self._levels[-1][1]

    def enter(self, entry: Entry, parent: int | None) -> None:
        """The walk goes on inside `entry`, which the layers have as a directory in `parent`, if that is not None."""
        self._levels.append((entry.path + "/", None if parent is None else open_directory(entry.name, parent)))

    def note_hidden(self, found: Kinds, entry: Entry) -> None:
        """Add what the directory just entered hides by being opaque."""
        prefix, lower = self._levels[-1]
        if lower is None:
            return
        try:
            upper = open_directory(entry.name, entry.parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # removed by the container just now
        try:
            if is_opaque(upper):
                _add_hidden(found, prefix, upper, lower)
        finally:
            os.close(upper)

    def close(self) -> None:
        while self._levels:
            self._close(self._levels.pop()[1])

    @staticmethod
    def _close(descriptor: int | None) -> None:
        if descriptor is not None:
            os.close(descriptor)


def _add_hidden(found: Kinds, prefix: str, upper: int, lower: int) -> None:
    for name in set(os.listdir(lower)) - set(os.listdir(upper)):
        found[prefix + name] = "D"


def _differs(old: Seen, new: Seen) -> bool:
    """Whether Docker would call it a change: a directory's size and times say nothing."""
    if stat.S_ISDIR(old.mode) and stat.S_ISDIR(new.mode):
        return old[:3] != new[:3]
    return old[:6] != new[:6]


def _seen(status: os.stat_result) -> Seen:
    return Seen(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_rdev,
        status.st_ino,
        status.st_ctime_ns,
    )


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _finish(found: Kinds, root: int) -> Kinds:
    """Without the mount points that were added; with the directories above each change, which count as changed."""
    for path in bare_mount_points(root):
        if found.get(path) == "A":
            del found[path]
    for path in list(found):
        while path := _parent(path):
            found.setdefault(path, "C")
    return found


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _text(path: str) -> str:
    """A path as JSON can carry it: bytes that are no UTF-8 become U+FFFD, as in Docker's answers."""
    return os.fsencode(path).decode("utf-8", "replace")
