"""Mounting and unmounting, and reading the mount table.

Owns the kernel's mount interface: the file-system-context calls (a mount is built as an object and only then attached),
mount(2) for kernels and file systems that need it, umount2(2), and `/proc/self/mountinfo`. Knows nothing of what is
mounted or why. Blocking; every failure is an `OSError` whose text carries what the kernel wrote into the context's log.

    fsopen(type) --fsconfig(key, value)*--> fsconfig(CREATE) --fsmount(attributes)--> detached mount
                                                                                        |
    open_tree(path, CLONE) --------------------------------------------------------> detached mount
                                                                                        |
                                          mount_setattr(...)?  move_mount(fd, path)  <--+--> close(fd): gone again

Sources: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), mount_setattr(2), mount(2), umount2(2),
proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Numbers of the system calls: the same on every architecture but alpha (asm-generic/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 4, 0x40
_OPEN_TREE_CLONE = 1
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_AT_SYMLINK_NOFOLLOW, _STATX_ATTR_MOUNT_ROOT = 0x100, 0x2000

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
"""MOUNT_ATTR_*: attributes of one mount, as opposed to options of its file system."""
_ATTR_IDMAP = 0x100000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
"""Flags of mount(2)."""

_MS_SYNCHRONOUS, _MS_MANDLOCK, _MS_DIRSYNC, _MS_NOATIME, _MS_NODIRATIME = 16, 64, 128, 1024, 2048
_MS_RELATIME, _MS_STRICTATIME = 1 << 21, 1 << 24

_SET_FLAGS = {
    "ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC, "sync": _MS_SYNCHRONOUS,
    "remount": MS_REMOUNT, "mand": _MS_MANDLOCK, "dirsync": _MS_DIRSYNC, "noatime": _MS_NOATIME,
    "nodiratime": _MS_NODIRATIME, "bind": MS_BIND, "rbind": MS_BIND | MS_REC, "relatime": _MS_RELATIME,
    "strictatime": _MS_STRICTATIME, "defaults": 0,
}  # fmt: skip
_CLEARED_FLAGS = {
    "rw": MS_RDONLY, "suid": MS_NOSUID, "dev": MS_NODEV, "exec": MS_NOEXEC, "async": _MS_SYNCHRONOUS,
    "nomand": _MS_MANDLOCK, "atime": _MS_NOATIME, "diratime": _MS_NODIRATIME, "norelatime": _MS_RELATIME,
    "nostrictatime": _MS_STRICTATIME,
}  # fmt: skip
_PROPAGATION = {
    f"{depth}{name}": flag | more
    for depth, more in (("", 0), ("r", MS_REC))
    for name, flag in (
        ("private", MS_PRIVATE),
        ("shared", MS_SHARED),
        ("slave", MS_SLAVE),
        ("unbindable", MS_UNBINDABLE),
    )
}

MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
"""Flags of umount2(2)."""

OPTION_MAX_BYTES = 255
"""Longest value that fsconfig(2) takes for one option."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


_PEERS = {"shared": "shared", "master": "slave"}


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of the mount table. `options` are the mount's, `super_options` the file system's.

    `propagation` is of "shared", "slave", both or neither (private).
    """

    id: int
    parent: int
    device: str
    root: str
    target: Path
    options: str
    fstype: str
    source: str
    super_options: str
    propagation: frozenset[str] = frozenset()


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 240),
    )


def is_mount_point(directory: int, name: str | bytes) -> bool:
    """Report whether `name` in an open directory is a mount point, in whichever mount namespace (statx(2)).

    FileNotFoundError when `name` does not exist.
    """
    found = _Statx()
    if _libc.statx(directory, os.fsencode(name), _AT_SYMLINK_NOFOLLOW, 0, ctypes.byref(found)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return bool(found.attributes & _STATX_ATTR_MOUNT_ROOT)


def create_mount(fstype: str, options: Iterable[tuple[str, str | None]], attributes: int = 0) -> int:
    """Create a detached mount and return its descriptor; closing it unmounts.

    `options` are pairs in order (a key may repeat); a value of None sets a flag. `attributes` are `ATTR_*`.
    """
    context = _syscall(_FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC)
    try:
        for key, value in options:
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            encoded = None if value is None else os.fsencode(value)
            _configure(context, f"{fstype} option {key}", command, key.encode(), encoded)
        _configure(context, fstype, _FSCONFIG_CMD_CREATE, None, None)
        return _syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def attach_mount(mount: int, target: Path) -> None:
    """Attach the detached mount behind descriptor `mount` at `target`, which must exist."""
    _syscall(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def attach_mount_at(mount: int, directory: int) -> None:
    """As `attach_mount`, onto an open file or directory: safe in trees that other processes change."""
    _syscall(_MOVE_MOUNT, mount, b"", directory, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def mount_filesystem(fstype: str, options: Iterable[tuple[str, str | None]], target: Path, attributes: int = 0) -> None:
    """Create a mount and attach it at `target`."""
    with _closing(create_mount(fstype, options, attributes)) as mount:
        attach_mount(mount, target)


def bind_mount(
    source: Path, target: Path, *, recursive: bool = True, attributes: int = 0, user_namespace: int | None = None
) -> None:
    """Bind-mount the tree at `source` on `target`; other arguments as for `clone_mount`."""
    clone = clone_mount(source, recursive=recursive, attributes=attributes, user_namespace=user_namespace)
    with _closing(clone) as mount:
        attach_mount(mount, target)


def clone_mount(source: Path, *, recursive: bool = True, attributes: int = 0, user_namespace: int | None = None) -> int:
    """Clone the mount (`recursive`: and those below it) at `source`; returns a descriptor that the caller closes.

    `attributes` are set on every mount of the clone. With `user_namespace` it is an idmapped mount: an owner 0 on disk
    appears as the host ID that the namespace maps to 0. EINVAL where the file system does not support that.
    """
    depth = _AT_RECURSIVE if recursive else 0
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | depth
    mount = _syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    try:
        if attributes:
            restrict_mount(mount, attributes, recursive=recursive)
        if user_namespace is not None:
            _set_attributes(mount, _MountAttributes(attr_set=_ATTR_IDMAP, userns_fd=user_namespace), recursive)
    except BaseException:
        os.close(mount)
        raise
    return mount


def restrict_mount(mount: int, attributes: int, *, recursive: bool = False) -> None:
    """Set `attributes` on the mount whose root is the open directory `mount`; `recursive`: and on those below it."""
    _set_attributes(mount, _MountAttributes(attr_set=attributes), recursive)


def _set_attributes(mount: int, wanted: _MountAttributes, recursive: bool) -> None:
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _syscall(_MOUNT_SETATTR, mount, b"", flags, ctypes.byref(wanted), size)


def mount(source: str, target: Path, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2), for what the fsopen(2) interface cannot do. `data` holds at most one page."""
    arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), os.fsencode(data))
    if _libc.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (mounting {fstype} {source})", str(target))


def unmount(target: Path, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2): remove the topmost mount from `target`."""
    if _libc.umount2(os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount_all(target: Path) -> bool:
    """Remove every mount from `target`, lazily where busy. Returns whether there was one. Idempotent."""
    found = False
    while True:
        try:
            unmount(target)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # not a mount point, or does not exist
                return found
            if error.errno != errno.EBUSY:
                raise
            unmount(target, UMOUNT_NOFOLLOW | MNT_DETACH)
        found = True


def mount_by_options(source: str, target: Path, fstype: str, options: str) -> None:
    """Mount as `mount -t fstype -o options` does: separates flags, propagation and file system options (mount(8)).

    mount(2) needs up to three calls: a bind mount takes its flags in a remount, and propagation is set alone.
    """
    parsed = parse_options(options)
    mount(source, target, fstype, parsed.flags, parsed.data)
    try:
        if parsed.flags & MS_BIND and parsed.flags & ~(MS_BIND | MS_REC):
            mount("none", target, "", parsed.flags | MS_REMOUNT)
        for flag in parsed.propagation:
            mount("none", target, "", flag)
    except BaseException:
        unmount(target, UMOUNT_NOFOLLOW | MNT_DETACH)
        raise


@dataclass(frozen=True, slots=True)
class Options:
    """A comma-separated option text, separated into mount(2)'s flags, propagation and the file system's own options."""

    flags: int
    data: str
    propagation: tuple[int, ...]


def parse_options(text: str) -> Options:
    """Parse the options in `text`; later ones override earlier ones."""
    flags, data, propagation = 0, [], []
    for option in filter(None, text.split(",")):
        if option in _SET_FLAGS:
            flags |= _SET_FLAGS[option]
        elif option in _CLEARED_FLAGS:
            flags &= ~_CLEARED_FLAGS[option]
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        else:
            data.append(option)
    return Options(flags, ",".join(data), tuple(propagation))


def mounts_below(directory: Path) -> list[MountEntry]:
    """The mounts at or below `directory`, in the table's order."""
    top = str(directory).rstrip("/") + "/"
    return [_parse_entry(line) for line in _lines() if _target(line).startswith(top)]


def parse_mountinfo(text: str) -> list[MountEntry]:
    """The entries of a mountinfo file."""
    return [_parse_entry(line) for line in text.splitlines()]


def _lines() -> list[str]:
    return Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape").splitlines()


def _target(line: str) -> str:
    """The mount point of a mountinfo line, with a trailing slash: a prefix that is cheap to compare for thousands of
    lines."""
    return _unescape(line.split(" ", 5)[4]).rstrip("/") + "/"


def _parse_entry(line: str) -> MountEntry:
    left, _, right = line.partition(" - ")
    number, parent, device, root, target, options, *optional = left.split(" ")
    fstype, source, super_options = right.split(" ", 2)
    return MountEntry(
        id=int(number),
        parent=int(parent),
        device=device,
        root=_unescape(root),
        target=Path(_unescape(target)),
        options=options,
        fstype=fstype,
        source=_unescape(source),
        super_options=super_options,
        propagation=frozenset(_PEERS[name] for tag in optional if (name := tag.partition(":")[0]) in _PEERS),
    )


def mount_of(path: Path) -> MountEntry:
    """The mount that `path` lies on. `path` must not contain symbolic links."""
    place = str(path).rstrip("/") + "/"
    return _parse_entry([line for line in _lines() if place.startswith(_target(line))][-1])


def _unescape(field: str) -> str:
    """Decode the octal escapes of space, tab, newline and backslash (proc_pid_mountinfo(5))."""
    if "\\" not in field:
        return field
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _configure(context: int, what: str, command: int, key: bytes | None, value: bytes | None) -> None:
    try:
        _syscall(_FSCONFIG, context, command, key, value, 0)
    except OSError as error:
        detail = "; ".join(_context_log(context)) or error.strerror
        raise OSError(error.errno, f"{what}: {detail}") from None


def _context_log(context: int) -> Iterator[str]:
    """The messages in a file system context's log: lines like `e overlay: No changes allowed`."""
    while True:
        try:
            yield os.read(context, 4096).decode(errors="replace").strip()[2:]
        except OSError:  # ENODATA: no more messages
            return


def _syscall(number: int, *arguments: Any) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
