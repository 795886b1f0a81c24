"""Network namespaces with a name in the file system, made and entered in threads of their own.

A namespace lives as long as a process, a descriptor or a mount holds it. Here the holder is a bind mount of its nsfs
file at a path of the caller's choice, so that it outlives every process:

    daemon's thread ──start──▶ new thread: unshare(CLONE_NEWNET)
                                           mount --bind /proc/thread-self/ns/net PATH
                    ◀──join─── (ends; the mount keeps the namespace)

The calling thread never changes its own namespace: setns and unshare act on the thread that calls them, and a thread
of the shared pool that had moved would serve the next caller from the wrong network.

Follows network_namespaces(7), setns(2), mount(2). Blocking; failures are OSError.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_EINVAL, _ENOENT = 22, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p]


def create_netns(path: Path, then: Callable[[], T]) -> T:
    """Make a network namespace held by a bind mount at `path`, and return `then()`, called inside it.

    When anything fails, `then` included, neither mount nor file stays.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o400))

    def inside() -> T:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare network namespace")
        source = b"/proc/thread-self/ns/net"
        _check(_libc.mount(source, os.fsencode(path), None, _MS_BIND, None), f"bind network namespace at {path}")
        return then()

    try:
        return _aside(inside)
    except BaseException:
        delete_netns(path)
        raise


def in_netns(path: Path, function: Callable[[], T]) -> T:
    """Call `function` in the network namespace at `path` and return its result."""

    def inside() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, _CLONE_NEWNET), f"enter network namespace {path}")
        finally:
            os.close(fd)
        return function()

    return _aside(inside)


def delete_netns(path: Path) -> None:
    """Drop the mount and the file; the namespace ends when no process is left in it. Idempotent."""
    if _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) < 0:
        number = ctypes.get_errno()
        if number not in (_EINVAL, _ENOENT):  # not a mount point, or not there
            raise OSError(number, f"unmount {path}: {os.strerror(number)}")
    path.unlink(missing_ok=True)


def is_netns(path: Path) -> bool:
    """Whether a namespace is mounted at `path` (a leftover of a reboot is a plain file)."""
    try:
        return os.stat(path).st_dev != os.stat(path.parent).st_dev
    except FileNotFoundError:
        return False


def _aside(function: Callable[[], T]) -> T:
    """Call in a thread that exists for nothing else, because its namespace is spoilt for other work."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="havre-netns") as thread:
        return thread.submit(function).result()


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
