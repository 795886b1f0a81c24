"""What a container changed in its root file system, as `docker diff` tells it.

    A  added       C  changed (its own metadata or content, or something below it)       D  deleted, with all below it

An overlay's upper directory holds whatever was touched, so only that is walked, beside the merged view of the layers:

    upper entry             the layers have    it is
    whiteout                it                 D
    anything                nothing there      A
    directory               a directory        C if its mode or owner differ, or anything below it changed
    opaque directory        a directory        as above, and D for each name that the upper one lacks
    anything else           something          C if mode, owner, device, size or time differ; else only copied up

A copied root file system is compared with a record of what was copied. Nothing is mounted here.
"""

from __future__ import annotations

import os
import stat
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from havre.linux.trees import Entry, is_opaque, is_whiteout, open_directory, walk

Kind: TypeAlias = Literal["A", "C", "D"]


class Change(msgspec.Struct, frozen=True):
    """One path, absolute inside the container, and what became of it."""

    kind: Kind
    path: str


class Recorded(NamedTuple):
    """What a copy's entry was like when it was made. The change time cannot be forged from inside."""

    mode: int
    uid: int
    gid: int
    inode: int
    ctime_ns: int


Record: TypeAlias = dict[str, Recorded]
Kinds: TypeAlias = dict[str, Kind]
"""What became of each path, relative to the root."""


def record(root: int) -> Record:
    """What lies below the open directory `root` now."""
    return {entry.path: _recorded(entry.stat) for entry in walk(root)}


def compare_with_record(root: int, before: Record) -> Kinds:
    """What became of the tree below `root` since `before`."""
    now = {entry.path: entry.stat for entry in walk(root)}
    found: Kinds = {}
    for path in before:
        above = _parent(path)
        if path not in now and (not above or (above in now and stat.S_ISDIR(now[above].st_mode))):
            found[path] = "D"
    for path, status in now.items():
        old = before.get(path)
        if old is None:
            found[path] = "A"
        elif _differs_from_record(status, old):
            found[path] = "C"
    return _with_parents(found)


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
            elif _differs(old, entry.stat):
                found[entry.path] = "C"
            if entry.is_directory:
                beside.enter(entry, below if old is not None and stat.S_ISDIR(old.st_mode) else None)
                beside.note_hidden(found, entry)
    finally:
        beside.close()
    return _with_parents(found)


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
        upper = open_directory(entry.name, entry.parent)
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


def _differs(old: os.stat_result, new: os.stat_result) -> bool:
    """Whether Docker would call it a change: a directory's size and times say nothing."""
    if (old.st_mode, old.st_uid, old.st_gid) != (new.st_mode, new.st_uid, new.st_gid):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return (old.st_size, old.st_mtime_ns, old.st_rdev) != (new.st_size, new.st_mtime_ns, new.st_rdev)


def _differs_from_record(status: os.stat_result, old: Recorded) -> bool:
    new = _recorded(status)
    return new[:3] != old[:3] if stat.S_ISDIR(status.st_mode) and new.inode == old.inode else new != old


def _recorded(status: os.stat_result) -> Recorded:
    return Recorded(status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_ctime_ns)


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _with_parents(found: Kinds) -> Kinds:
    """The directories above each change count as changed."""
    for path in list(found):
        while path := _parent(path):
            found.setdefault(path, "C")
    return found


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _text(path: str) -> str:
    """A path as JSON can carry it: bytes that are no UTF-8 become U+FFFD, as in Docker's answers."""
    return os.fsencode(path).decode("utf-8", "replace")
