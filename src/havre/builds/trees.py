"""Trees that COPY, ADD and mounts read: a directory, or a client's context packed into one file.

    Tree    locate("a/b") --> the resolved path, and whether it is a directory     links resolved inside the tree
            names("a")    --> the names in the directory
            item("a/b"), walk("a") --> Item: a file as an entry; its content by `pieces` and `digest`

Both are hostile: nothing in them can refer to files outside. Blocking.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from havre.linux import trees
from havre.linux.openat2 import open_in_root, resolve_in_root
from havre.tar.reader import Entry
from havre.tar.tree import pinned

PIECE = 1 << 20
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}
_KEPT_XATTRS = ("user.", "security.capability")
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Item(NamedTuple):
    """A member of a tree at `path`, without links in it; `place` is its path relative to the start of a walk.

    `entry.kind` is never hardlink, but may be socket; hard links share `inode`, which is None for a file with one name.
    """

    path: str
    place: str
    entry: Entry
    inode: Hashable | None = None


class Tree(Protocol):
    """Files to be read. Trees with the same `identity` have the same files; None if unknown."""

    @property
    def identity(self) -> Hashable | None: ...

    def locate(self, path: str) -> tuple[str, bool] | None:
        """`path` with links resolved, and whether it is a directory; None if it does not exist."""

    def names(self, path: str) -> list[str]:
        """The sorted names in the directory at `path`, a result of `locate`."""

    def item(self, path: str) -> Item:
        """The item at `path`, a result of `locate`."""

    def walk(self, path: str) -> Iterator[Item]:
        """Everything below the directory at `path`, by name, a directory before its content."""

    def digest(self, path: str) -> bytes:
        """The SHA-256 of a regular file's content."""

    def pieces(self, path: str) -> Iterator[bytes]:
        """A regular file's content."""

    def directory(self) -> Path:
        """A directory with all files, for mounts."""


class DirectoryTree:
    """The tree below `root`, which must not change meanwhile."""

    def __init__(self, root: Path, identity: Hashable | None = None) -> None:
        self._root = root
        self.identity = identity

    def locate(self, path: str) -> tuple[str, bool] | None:
        """See `Tree`."""
        try:
            resolved = resolve_in_root(self._root, path).lstrip("/")
            descriptor = open_in_root(self._root, resolved or ".", os.O_PATH | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _NOWHERE:
                return None
            raise
        try:
            return resolved, stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        """See `Tree`."""
        descriptor = self._open_directory(path)
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def item(self, path: str) -> Item:
        """See `Tree`."""
        above, _, name = path.rpartition("/")
        parent = self._open_directory(above)
        try:
            status = os.stat(name or ".", dir_fd=parent, follow_symlinks=False)
            return Item(path, "", entry_of(status, parent, name or "."), _inode(status))
        finally:
            os.close(parent)

    def walk(self, path: str) -> Iterator[Item]:
        """See `Tree`."""
        directory = self._open_directory(path)
        prefix = f"{path}/" if path else ""
        try:
            for each in trees.walk(directory):
                entry = entry_of(each.stat, each.parent, each.name)
                yield Item(prefix + each.path, each.path, entry, _inode(each.stat))
        finally:
            os.close(directory)

    def digest(self, path: str) -> bytes:
        """See `Tree`."""
        found = hashlib.sha256()
        for piece in self.pieces(path):
            found.update(piece)
        return found.digest()

    def pieces(self, path: str) -> Iterator[bytes]:
        """See `Tree`."""
        descriptor = open_in_root(self._root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            while piece := os.read(descriptor, PIECE):
                yield piece
        finally:
            os.close(descriptor)

    def directory(self) -> Path:
        """See `Tree`."""
        return self._root

    def _open_directory(self, path: str) -> int:
        return open_in_root(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def entry_of(status: os.stat_result, parent: int, name: str) -> Entry:
    """The entry of `name` in the open directory `parent`; the caller sets its path."""
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    mtime_s, mtime_ns = divmod(status.st_mtime_ns, 10**9)
    is_device = kind in ("char", "block")
    return Entry(
        path=b"",
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_s=mtime_s,
        mtime_ns=mtime_ns,
        size=status.st_size if kind == "file" else 0,
        link=os.fsencode(os.readlink(name, dir_fd=parent)) if kind == "symlink" else b"",
        rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        xattrs=_xattrs(parent, name) if kind in ("file", "dir") else {},
    )


def _inode(status: os.stat_result) -> Hashable | None:
    several = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
    return (status.st_dev, status.st_ino) if several else None


def _xattrs(parent: int, name: str) -> dict[bytes, bytes]:
    with pinned(parent, os.fsencode(name)) as path:
        try:
            names = os.listxattr(path)
            return {os.fsencode(each): os.getxattr(path, each) for each in names if each.startswith(_KEPT_XATTRS)}
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENODATA):
                return {}
            raise
