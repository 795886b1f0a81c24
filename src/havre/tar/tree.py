"""Writes the entries of a tar into a directory tree whose content is hostile.

Every parent directory is opened by openat2(2) with RESOLVE_IN_ROOT, and every last component is created exclusively or
accessed without following links: no path, link or device of the tar, nor anything that a container swaps in
concurrently, reaches outside the tree, and no chroot is needed. Directories' times are set last, because filling a
directory changes them.

Subclasses: `storage.unpack` creates a layer, `extract` copies into a container, `client.untar` into a user's directory.

Blocking; runs as root. Raises `InvalidInput` for invalid archives, `OSError` for disk errors.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

from havre.errors import InvalidInput
from havre.linux.openat2 import openat_in_root
from havre.tar.reader import MAX_DEPTH, Data, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_NOTES = 2_000_000  # limit of recorded directories, and of the records of subclasses
_CACHED_PARENTS = 64
_NODE_TYPES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}


class TreeWriter:
    """Fills the tree below the open directory `root`: `add` each entry, `data` for its bytes, then `finish`, `close`.

    `what` names the archive in messages. Takes ownership of `root`.
    """

    _open_below: Callable[[int, bytes, int], int] = staticmethod(openat_in_root)
    """Opens a path below a directory. Links are resolved within the root, as the container itself would."""

    def __init__(self, root: int, what: str) -> None:
        self._root = root
        self._what = what
        self._depth = len(os.readlink(f"/proc/self/fd/{self._root}").split("/"))
        self._parents: dict[bytes, int] = {}
        self._stale = False  # a directory or link on the path of a cached parent was removed
        self._file: tuple[int, Entry] | None = None  # the regular file being written
        self._extent = 0
        self._times: dict[bytes, int] = {}  # directories' times, in nanoseconds
        self._notes = 0

    def add(self, entry: Entry) -> None:
        """Create `entry`, which is not the root. Replaces existing files, merges directories."""
        self._begin_entry()
        directory, _, name = entry.path.rpartition(b"/")
        parent = self._parent(directory)
        if entry.kind == "dir":
            self._make_dir(parent, name, entry)
        elif entry.kind == "hardlink":
            self._link(parent, name, entry)
        else:
            try:
                self._make(parent, name, entry)
            except FileExistsError:
                self._clear_way(parent, name, entry)
                self._make(parent, name, entry)

    def data(self, event: Data) -> None:
        """Write bytes of the file added last; ignored for other entries."""
        if self._file is None:
            return
        descriptor, entry = self._file
        offset, view = event.offset, event.view
        while view:
            extent = entry.extents[self._extent]
            within = offset - extent.offset
            if within == extent.length:
                self._extent += 1
                continue
            written = os.pwrite(descriptor, view[: extent.length - within], extent.start + within)
            view, offset = view[written:], offset + written

    def finish(self) -> None:
        """Close the last file and set the directories' times."""
        self._end_file()
        for path, time in self._times.items():
            self._set_time(path, time)

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        self._forget_parents()
        if self._file is not None:
            os.close(self._file[0])
            self._file = None
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _begin_entry(self) -> None:
        self._end_file()
        if self._stale:
            self._forget_parents()

    # -- parents

    def _parent(self, path: bytes) -> int:
        """An O_PATH descriptor of the directory `path`; missing parents are created with mode 0755."""
        if (known := self._parents.get(path)) is not None:
            return known
        try:
            descriptor = self._open_parent(path)
        except FileNotFoundError:
            above, _, name = path.rpartition(b"/")
            parent = self._parent(above)
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
            except FileExistsError:
                raise InvalidInput(f"{self._what} has members below {path!r}, a symbolic link to nothing") from None
            with pinned(parent, name) as made:
                os.chmod(made, 0o755)  # independent of the umask
            self._made_parent(path)
            descriptor = self._open_parent(path)
        if len(self._parents) == _CACHED_PARENTS:
            self._forget_parents()
        self._parents[path] = descriptor
        return descriptor

    def _made_parent(self, path: bytes) -> None:
        """Called for each created directory that has no entry in the archive."""

    def _open_parent(self, path: bytes) -> int:
        try:
            descriptor = self._open_below(self._root, path, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise InvalidInput(f"{self._what} has members below {path!r}, which is not a directory") from error
            raise
        # A chain of links may lead deeper than PATH_MAX allows for a single path.
        if os.readlink(f"/proc/self/fd/{descriptor}").count("/") - self._depth > MAX_DEPTH:
            os.close(descriptor)
            raise InvalidInput(f"{self._what} nests directories too deeply at {path[:200]!r}")
        return descriptor

    def _forget_parents(self) -> None:
        for descriptor in self._parents.values():
            os.close(descriptor)
        self._parents.clear()
        self._stale = False

    # -- entries

    def _make_dir(self, parent: int, name: bytes, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._clear_way(parent, name, entry)
                os.mkdir(name, 0o700, dir_fd=parent)
        with pinned(parent, name) as path:
            self._describe(path, entry)
        self._note()
        self._times.pop(entry.path, None)  # the latest entry is applied last
        self._times[entry.path] = nanoseconds(entry)

    def _make(self, parent: int, name: bytes, entry: Entry) -> None:
        if entry.kind == "file":
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file, self._extent = (os.open(name, flags, 0o600, dir_fd=parent), entry), 0
            return
        if entry.kind == "symlink":
            os.symlink(entry.link, name, dir_fd=parent)
        else:
            os.mknod(name, _NODE_TYPES[entry.kind] | 0o600, os.makedev(*entry.rdev), dir_fd=parent)
        with pinned(parent, name) as path:
            self._describe(path, entry)
            os.utime(path, ns=(nanoseconds(entry), nanoseconds(entry)))

    def _end_file(self) -> None:
        if self._file is None:
            return
        descriptor, entry = self._file
        if len(entry.extents) != 1 or entry.extents[0].length != entry.size:
            os.ftruncate(descriptor, entry.size)
        self._describe(descriptor, entry)
        os.utime(descriptor, ns=(nanoseconds(entry), nanoseconds(entry)))
        self._file = None
        os.close(descriptor)

    def _describe(self, file: bytes | int, entry: Entry) -> None:
        """Set the file's owner, mode and extended attributes."""
        describe(file, entry)

    def _link(self, parent: int, name: bytes, entry: Entry) -> None:
        if entry.link == entry.path:
            return
        directory, _, target = entry.link.rpartition(b"/")
        try:
            source = self._open_below(self._root, directory, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise self._no_link_target(entry) from error
        try:
            status = os.stat(target, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                raise self._no_link_target(entry)
            if not _is_same(status, parent, name):
                self._remove(parent, name)
                os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise self._no_link_target(entry) from error
        finally:
            os.close(source)

    def _no_link_target(self, entry: Entry) -> InvalidInput:
        return InvalidInput(
            f"hard link {entry.path!r} names {entry.link!r}, which is no earlier file of its {self._what}"
        )

    def _clear_way(self, parent: int, name: bytes, entry: Entry) -> None:
        """Remove the existing file in place of `entry`: a file, or anything of another type."""
        self._remove(parent, name)

    def _remove(self, parent: int, name: bytes) -> None:
        """Remove `name`, whatever its type. Idempotent."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            from havre.linux.trees import empty_directory, open_directory  # costs the command line milliseconds

            child = open_directory(os.fsdecode(name), parent)
            try:
                empty_directory(child)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        self._stale |= not stat.S_ISREG(status.st_mode)

    # -- the end

    def _set_time(self, path: bytes, time: int) -> None:
        try:
            descriptor = self._open_below(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return  # replaced by a later member
            raise
        try:
            os.utime(descriptor, ns=(time, time))
        finally:
            os.close(descriptor)

    def _note(self) -> None:
        self._notes += 1
        if self._notes > MAX_NOTES:
            raise InvalidInput(f"{self._what} holds more files than can be unpacked")


def _is_same(status: os.stat_result, parent: int, name: bytes) -> bool:
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino)


def nanoseconds(entry: Entry) -> int:
    return entry.mtime_s * 10**9 + entry.mtime_ns


@contextmanager
def pinned(parent: int, name: bytes) -> Iterator[bytes]:
    """A path that keeps referring to the current `name` itself (a link is not followed), even if the name is
    replaced."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield name_of(descriptor)
    finally:
        os.close(descriptor)


def name_of(descriptor: int) -> bytes:
    """A /proc/self/fd path for calls that accept no O_PATH descriptor; it resolves to the open file itself."""
    return b"/proc/self/fd/%d" % descriptor


def describe(file: bytes | int, entry: Entry) -> None:
    """Sets the owner first: chown(2) clears set-user-ID bits and capabilities, which mode and attributes then
    restore."""
    os.chown(file, entry.uid, entry.gid)
    if entry.kind != "symlink":
        os.chmod(file, entry.mode)
    set_xattrs(file, entry.xattrs)


def set_xattrs(file: bytes | int, xattrs: dict[bytes, bytes]) -> None:
    """Set extended attributes. Best effort: ignored if file system or file type supports none, as in dockerd."""
    for name, value in xattrs.items():
        try:
            os.setxattr(file, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):  # xattr(7): user.* exists on files and directories only
                raise
