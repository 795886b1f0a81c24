"""Path resolution inside a hostile tree: no symbolic link, `..` or magic link leads out of it.

RESOLVE_IN_ROOT resolves like chroot(2), but without races and for one call only. `syncfs` is here for the same callers,
which write such trees and make them durable. Source: openat2(2), sync(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NR_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10
_ATTEMPTS = 16
_MAX_LINKS = 40

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: Path, path: str, flags: int = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) -> int:
    """Open `path` with `root` as its root; the descriptor is close-on-exec. OSError as open(2)."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat_in_root(directory, path, flags)
    finally:
        os.close(directory)


def open_beneath(root: Path, path: str, flags: int) -> int:
    """Open `path` below `root`. OSError EXDEV for a link that is absolute or leads out of it."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(directory, path, flags, _RESOLVE_BENEATH)
    finally:
        os.close(directory)


def openat_in_root(directory: int, path: str | bytes, flags: int) -> int:
    """As `open_in_root`, with an open directory as the root. An empty path is the root itself."""
    return _openat2(directory, path, flags, _RESOLVE_IN_ROOT)


def openat_without_links(directory: int, path: str | bytes, flags: int) -> int:
    """Open `path` below an open directory; a link in it (ELOOP) or `..` out of it (EXDEV) is refused."""
    return _openat2(directory, path, flags, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)


def _openat2(directory: int, path: str | bytes, flags: int, resolve: int) -> int:
    """openat2(2) returns EAGAIN when a concurrent rename interferes; retries a bounded number of times."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve | _RESOLVE_NO_MAGICLINKS)
    number, size = ctypes.c_long(_NR_OPENAT2), ctypes.c_size_t(ctypes.sizeof(how))
    for _ in range(_ATTEMPTS):
        descriptor = int(_libc.syscall(number, directory, os.fsencode(path) or b".", ctypes.byref(how), size))
        if descriptor >= 0:
            return descriptor
        if (code := ctypes.get_errno()) != errno.EAGAIN:
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def open_regular_in_root(root: Path, path: str, *, follow: bool = True) -> int | None:
    """Open the regular file at `path` below `root` for reading; None if it is something else.

    The type is checked (O_PATH) before opening for reading: opening a FIFO blocks, and opening a device may act on it
    (a
    watchdog starts, a tape rewinds). OSError as open(2).
    """
    pinned = open_in_root(root, path, os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(pinned).st_mode):
            return None
        return os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(pinned)


def syncfs(descriptor: int) -> None:
    """Write back the file system that `descriptor` lies on."""
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def resolve_in_root(root: Path, path: str) -> str:
    """The absolute path that `path` leads to within `root`: links followed, missing components kept.

    Only for a tree that does not change concurrently; to open a path use `open_in_root`. OSError ELOOP.
    """
    return resolve(path, lambda inner: os.readlink(root / inner))


def resolveat_in_root(directory: int, path: str) -> str:
    """As `resolve_in_root`, with an open directory as the root. The tree may change: nothing outside it is accessed."""

    def read_link(inner: str) -> str:
        link = openat_in_root(directory, inner, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.readlink("", dir_fd=link)
        finally:
            os.close(link)

    return resolve(path, read_link)


def resolve(path: str, read_link: Callable[[str], str]) -> str:
    """Resolve `path`. `read_link` returns the target of a relative path and raises OSError if it is no link or
    missing."""
    resolved: list[str] = []
    left = list(reversed(path.split("/")))
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            del resolved[-1:]
        elif part not in ("", "."):
            try:
                target = read_link("/".join([*resolved, part]))
            except OSError:
                resolved.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                resolved.clear()
            left.extend(reversed(target.split("/")))
    return "/" + "/".join(resolved)
