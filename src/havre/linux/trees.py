"""Directory trees: walked, copied, measured and removed without following links.

A container may have written the trees, so they are hostile: every step is relative to the descriptor of a directory
opened with O_NOFOLLOW, and no path is resolved twice. Blocking; failures are `OSError`.

`copy_tree` keeps modes, owners, times, extended attributes, hard links and holes, and shares data blocks where the file
system supports it (FICLONE). `remove_tree` needs two descriptors at any depth, so that deep nesting made in a container
cannot prevent removal.

Sources: openat(2), ioctl_ficlone(2), copy_file_range(2), lseek(2) for holes, xattr(7).
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from havre.linux.idmap import CAPABILITY, IdRange

Inode: TypeAlias = tuple[int, int]
"""(device, inode number)"""

_FICLONE = 0x40049409
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 16 << 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # removed or replaced since it was listed
_STAND_IN = os.makedev(0, 1)
_OVERLAY_ATTRIBUTES = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of a tree. `path` is relative to the root; `parent` is an open directory, valid until the next step."""

    path: str
    name: str
    parent: int
    stat: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Report whether this is a directory (not a link to one)."""
        return stat.S_ISDIR(self.stat.st_mode)


def open_directory(path: Path | str, parent: int | None = None) -> int:
    """Open a directory; OSError (ENOTDIR or ELOOP) for a link."""
    return os.open(path, _DIRECTORY, dir_fd=parent)


def open_regular(name: str, parent: int) -> int:
    """Open the regular file `name` in the directory `parent` for reading; FileNotFoundError if it is anything else.

    The type is checked (O_PATH) before opening for reading, since opening a device or a FIFO has side effects.
    """
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(pinned).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", name)
        return os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(pinned)


def sync_directory(path: Path) -> None:
    """fsync a directory, which makes its names durable."""
    descriptor = open_directory(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def walk(root: int, closed: Collection[int] = ()) -> Iterator[Entry]:
    """Yield every entry below the directory `root` in order of name, a directory before its content.

    Does not descend into directories on the devices in `closed` (st_dev). Entries removed or replaced concurrently are
    skipped. Takes one descriptor for each level of depth.
    """
    stack: list[tuple[int, str, Iterator[str]]] = [(root, "", iter(sorted(os.listdir(root))))]
    try:
        while stack:
            parent, prefix, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                if parent != root:
                    os.close(parent)
                continue
            try:
                entry = Entry(prefix + name, name, parent, os.stat(name, dir_fd=parent, follow_symlinks=False))
                enters = entry.is_directory and entry.stat.st_dev not in closed
                child = open_directory(name, parent) if enters else None
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            if child is not None:
                stack.append((child, entry.path + "/", iter(sorted(os.listdir(child)))))
            yield entry
    finally:
        for parent, _, _ in stack:
            if parent != root:
                os.close(parent)


def tree_size(root: Path) -> int:
    """Bytes of content below `root`: sizes of everything but directories, each inode counted once.

    Entries removed or replaced concurrently are skipped. Takes one descriptor for each level of depth.
    """
    seen: set[Inode] = set()
    stack = [open_directory(root)]
    below: list[list[str]] = []
    total = 0
    try:
        total = _measure(stack[0], below, seen)
        while stack:
            if not below[-1]:
                below.pop()
                os.close(stack.pop())
                continue
            try:
                stack.append(open_directory(below[-1].pop(), stack[-1]))
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                continue
            total += _measure(stack[-1], below, seen)
    finally:
        for directory in stack:
            os.close(directory)
    return total


def _measure(directory: int, below: list[list[str]], seen: set[Inode]) -> int:
    """Bytes of the files in one open directory; appends the names of its directories to `below`."""
    total, names = 0, list[str]()
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):  # known from d_type: no system call
                names.append(entry.name)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_nlink > 1:
                if (inode := (status.st_dev, status.st_ino)) in seen:
                    continue
                seen.add(inode)
            total += status.st_size
    below.append(names)
    return total


def remove_tree(root: Path) -> None:
    """Remove the directory `root` with all its content. Idempotent.

    Each directory is first moved up into `root` under a fresh name: depth then costs neither descriptors nor stack, and
    a
    mount point stops the removal (EBUSY) before anything inside it is touched.
    """
    try:
        top = open_directory(root)
    except FileNotFoundError:
        return
    try:
        empty_directory(top)
    finally:
        os.close(top)
    os.rmdir(root)


def empty_directory(top: int) -> None:
    """Remove all content of the open directory `top`, as `remove_tree` does."""
    fresh = (f".removing-{secrets.token_hex(8)}-{number}" for number in itertools.count())
    waiting = _clear(top, top, fresh)
    while waiting:
        name = waiting.pop()
        directory = open_directory(name, top)
        try:
            waiting += _clear(directory, top, fresh)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _clear(directory: int, top: int, fresh: Iterator[str]) -> list[str]:
    """Unlink the files of `directory` and move its directories to `top`; returns their names there."""
    moved = []
    for name in os.listdir(directory):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            fresh_name = next(fresh)
            try:
                os.rename(name, fresh_name, src_dir_fd=directory, dst_dir_fd=top)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # EXDEV: a directory of an overlay's lower layer cannot be renamed; their depth is bounded
                _remove_entry(name, directory)
            else:
                moved.append(fresh_name)
    return moved


def copy_tree(source: int, target: int, *, overlay: bool = False, ids: IdRange | None = None) -> None:
    """Copy the content of directory `source` into directory `target`, and the metadata of `source` onto it.

    Entries in `target` are replaced; directories merge. With `overlay`, the source is an overlayfs layer: a whiteout
    removes
    its name from the target, an opaque directory replaces the target's. `ids`: the source is mounted with this mapping,
    and
    the copy gets the owners inside.
    """
    _Copy(target, overlay, ids).run(source)


def is_whiteout(status: os.stat_result) -> bool:
    """Report whether this is the status of a whiteout: character device 0:0, or its stand-in 0:1 (`make_whiteout`)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev in (0, _STAND_IN)


def make_whiteout(name: str | bytes, directory: int) -> None:
    """Create a whiteout in the open `directory`.

    The device 0:0 cannot be created inside an overlay; the device 0:1, which no driver serves, stands in for it. No
    overlay
    is mounted above such a directory, so only this module reads the stand-in.
    """
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
    except PermissionError:
        os.mknod(name, stat.S_IFCHR, _STAND_IN, dir_fd=directory)


def is_opaque(directory: int) -> bool:
    """Report whether this open directory is opaque: overlayfs hides the lower layers' content."""
    try:
        return os.getxattr(directory, "trusted.overlay.opaque") == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise


def copy_metadata(source: int, target: int, ids: IdRange | None = None) -> None:
    """Give the open file `target` the owner (mapped by `ids`), mode, extended attributes and times of `source`."""
    _apply_metadata(os.fstat(source), f"/proc/self/fd/{source}", f"/proc/self/fd/{target}", ids, follow=True)


class _Copy:
    """One run of `copy_tree`: a stack of directory pairs, and the path of the first copy of each hard-linked inode."""

    def __init__(self, target: int, overlay: bool, ids: IdRange | None) -> None:
        self._ids = ids
        self._target = target
        self._overlay = overlay
        self._links: dict[Inode, str] = {}

    def run(self, source: int) -> None:
        stack = [(os.dup(source), os.dup(self._target), "", iter(sorted(os.listdir(source))))]
        try:
            while stack:
                from_, to, prefix, names = stack[-1]
                name = next(names, None)
                if name is None:
                    copy_metadata(from_, to, self._ids)  # after the content, which changes its times
                    stack.pop()
                    os.close(from_)
                    os.close(to)
                    continue
                if (pair := self._copy(from_, to, name, prefix + name)) is not None:
                    stack.append((*pair, f"{prefix}{name}/", iter(sorted(os.listdir(pair[0])))))
        finally:
            for from_, to, _, _ in stack:
                os.close(from_)
                os.close(to)

    def _copy(self, from_: int, to: int, name: str, path: str) -> tuple[int, int] | None:
        """Copy one entry; for a directory, returns the pair of descriptors to continue with."""
        status = os.stat(name, dir_fd=from_, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._enter(from_, to, name)
        _remove_entry(name, to)
        if self._overlay and is_whiteout(status):
            return None
        inode = (status.st_dev, status.st_ino)
        if inode in self._links:
            _link_beneath(self._target, self._links[inode], to, name)
            return None
        if stat.S_ISREG(status.st_mode):
            _copy_file(from_, to, name)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=from_), name, dir_fd=to)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=to)
        pair = f"/proc/self/fd/{from_}/{name}", f"/proc/self/fd/{to}/{name}"
        _apply_metadata(status, *pair, self._ids, follow=False)
        if status.st_nlink > 1:
            self._links[inode] = path
        return None

    def _enter(self, from_: int, to: int, name: str) -> tuple[int, int]:
        source = open_directory(name, from_)
        try:
            try:
                os.mkdir(name, 0o700, dir_fd=to)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=to, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=to)
                    os.mkdir(name, 0o700, dir_fd=to)
            target = open_directory(name, to)
            if self._overlay and is_opaque(source):
                empty_directory(target)
        except BaseException:
            os.close(source)
            raise
        return source, target


def _remove_entry(name: str, directory: int) -> None:
    """Remove `name` from `directory`, whatever its type. Idempotent."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        child = open_directory(name, directory)
        try:
            empty_directory(child)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=directory)


def _link_beneath(root: int, path: str, directory: int, name: str) -> None:
    """Hard-link the file at `path` below `root` as `name`, without following links."""
    *parents, last = path.split("/")
    here = os.dup(root)
    try:
        for parent in parents:
            child = open_directory(parent, here)
            os.close(here)
            here = child
        os.link(last, name, src_dir_fd=here, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(here)


def _copy_file(from_: int, to: int, name: str) -> None:
    source = open_regular(name, from_)
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=to)
        try:
            copy_content(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def copy_content(source: int, target: int) -> None:
    """Share data blocks where the file system supports it, else copy all but holes."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY):
            raise
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in _data_ranges(source, size):
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            sent = os.sendfile(target, source, start, min(end - start, _COPY_BYTES))
            if sent == 0:  # the source was truncated concurrently
                return
            start += sent


def _data_ranges(file: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole up to the end
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def _apply_metadata(status: os.stat_result, source: str, target: str, ids: IdRange | None, *, follow: bool) -> None:
    """Sets the owner first: chown(2) clears set-user-ID bits and capabilities, which mode and attributes then
    restore."""
    owner = status.st_uid, status.st_gid
    os.chown(target, *(ids.inside(*owner) if ids else owner), follow_symlinks=follow)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for key in os.listxattr(source, follow_symlinks=follow):
        if not key.startswith(_OVERLAY_ATTRIBUTES):
            value = os.getxattr(source, key, follow_symlinks=follow)
            told = ids.capability_inside(value) if ids and key == CAPABILITY else value
            _set_attribute(target, key, told, follow=follow)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=follow)


def _set_attribute(target: str, key: str, value: bytes, *, follow: bool) -> None:
    try:
        os.setxattr(target, key, value, follow_symlinks=follow)
    except OSError as error:
        # the target's file system does not support this attribute; the content is kept
        if error.errno != errno.ENOTSUP:
            raise
