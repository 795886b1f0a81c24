"""The changes of a container's root file system, as `docker diff` reports them.

    A  added       C  changed (its metadata or content, or something below it)       D  deleted, with everything below
    it

An overlay's upper directory contains everything that was changed, so only it is walked, beside the merged layers:

    upper entry             in the layers      result
    whiteout                exists             D
    anything                missing            A
    directory               a directory        C if its mode or owner differ, or anything below it changed
    opaque directory        a directory        as above, and D for each name missing in the upper one
    anything else           exists             C if mode, owner, device, size or time differ; otherwise only copied up

A copied root file system is compared with the record made when it was copied, by the same rules.
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
    """One changed path, absolute inside the container, and its kind of change."""

    kind: Kind
    path: str


class Seen(NamedTuple):
    """The attributes compared of an entry. A container cannot forge the inode number and the change time."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int
    inode: int
    ctime_ns: int


# Mount points created in a root file system before it runs; deeper ones first. Docker omits them from its diff.
_MOUNT_POINTS = (
    ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "dev/console", "dev/pts", "dev/shm", "dev/mqueue",
    "dev", "proc", "sys",
)  # fmt: skip

Record: TypeAlias = dict[str, Seen]
Kinds: TypeAlias = dict[str, Kind]
"""Kind of change by path, relative to the root."""


def record(root: int) -> Record:
    """Record the attributes of everything below the open directory `root`."""
    return {entry.path: _seen(entry.stat) for entry in walk(root)}


def changed_since(before: Record, root: int) -> Kinds:
    """The changes below `root` since `before`, as Docker reports them."""
    return _compare(before, root, _differs)


def touched_since(before: Record, root: int) -> Kinds:
    """As `changed_since`, and files written without a visible difference, as an upper directory would contain."""
    return _compare(before, root, Seen.__ne__)


def bare_mount_points(root: int) -> set[str]:
    """Paths below `root` that are empty mount points left by the OCI runtime: empty files and directories."""
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
    """The changes that the upper directory makes to the merged layers; both are open directories."""
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
    """Convert to `Change`s with absolute paths, ordered by path."""
    return [Change(kind, _text("/" + path)) for path, kind in sorted(found.items(), key=lambda item: item[0])]


class _Beside:
    """The layers' directories that correspond to the upper ones on the walk's path: one for each level, None where
    missing."""

    def __init__(self, lower: int) -> None:
        self._levels: list[tuple[str, int | None]] = [("", os.dup(lower))]

    def leave(self, path: str) -> int | None:
        """The layers' directory that corresponds to the parent of `path`; closes all deeper ones."""
        while not path.startswith(self._levels[-1][0]):
            self._close(self._levels.pop()[1])
        return self._levels[-1][1]

    def enter(self, entry: Entry, parent: int | None) -> None:
        """Descend into `entry`, which the layers have as a directory in `parent`; None: they do not."""
        self._levels.append((entry.path + "/", None if parent is None else open_directory(entry.name, parent)))

    def note_hidden(self, found: Kinds, entry: Entry) -> None:
        """Add the names that the directory just entered hides because it is opaque."""
        prefix, lower = self._levels[-1]
        if lower is None:
            return
        try:
            upper = open_directory(entry.name, entry.parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # removed concurrently by the container
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
    """Report whether Docker counts this as a change: a directory's size and times do not count."""
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
    """Removes the mount points added for the container, and adds the directories above each change as changed."""
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
    """A path as JSON text: bytes that are not UTF-8 become U+FFFD, as in Docker's answers."""
    return os.fsencode(path).decode("utf-8", "replace")
