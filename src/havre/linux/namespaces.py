"""Network namespaces bound to a path, created and entered in dedicated threads.

A namespace lives as long as a process, a descriptor or a mount refers to it. Here a bind mount of its nsfs file at the
caller's path does, so that it outlives every process:

    daemon's thread ──start──▶ new thread: unshare(CLONE_NEWNET)
                                           mount --bind /proc/thread-self/ns/net PATH
                    ◀──join─── (ends; the mount keeps the namespace)

A namespace that a user namespace owns, so that its root has capabilities there, is taken from a process that was
started in both (`idmap.owned_network`). A new user namespace is bound in the same way, at PATH.user.

The calling thread never changes its own namespace: setns(2) and unshare(2) act on the calling thread, and a thread of
the shared pool would then serve its next caller from the wrong network.

Source: network_namespaces(7), setns(2), mount(2). Blocking; failures are OSError.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from havre.linux.idmap import IdRange, owned_network

T = TypeVar("T")

_USER = ".user"
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_EINVAL, _ENOENT = 22, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p]


def create_netns(path: Path, then: Callable[[], T], owner: IdRange | Path | None = None) -> T:
    """Create a network namespace bound to `path`, and return `then()`, called inside it.

    `owner` is the mapping of a new user namespace that owns it, or the nsfs file of an existing one. On any failure,
    that
    of `then` included, mount and file are removed.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def inside() -> T:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare network namespace")
        _hold("/proc/thread-self/ns/net", path)
        return then()

    try:
        if owner is None:
            return _aside(inside)
        with owned_network(owner) as pid:
            _hold(f"/proc/{pid}/ns/net", path)
            if isinstance(owner, IdRange):
                _hold(f"/proc/{pid}/ns/user", user_namespace_at(path))
        return in_netns(path, then)
    except BaseException:
        delete_netns(path)
        raise


def user_namespace_at(path: Path) -> Path:
    """The path to which the user namespace created with the network namespace at `path` is bound."""
    return path.with_suffix(_USER)


def _hold(source: str, path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o400))
    _check(_libc.mount(source.encode(), os.fsencode(path), None, _MS_BIND, None), f"bind namespace at {path}")


def hold_netns(path: Path, pid: int, *, owned: bool) -> None:
    """Bind the network namespace of process `pid` to `path`, unless one is bound there; `owned`: its user namespace
    too.

    Needed when a daemon in another mount namespace made the bind mount, which is not visible here. Idempotent.
    """
    for kind, place in (("net", path), ("user", user_namespace_at(path))):
        if not is_netns(place) and (owned or kind == "net"):
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            _hold(f"/proc/{pid}/ns/{kind}", place)


def in_netns(path: Path, function: Callable[[], T]) -> T:
    """Call `function` in the network namespace at `path` and return its result."""

    def inside() -> T:
        _enter(path)
        return function()

    return _aside(inside)


def _enter(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, _CLONE_NEWNET), f"enter network namespace {path}")
    finally:
        os.close(fd)


def in_each_netns(paths: Iterable[Path], function: Callable[[], T]) -> dict[Path, T]:
    """Call `function` in each network namespace, in one thread; returns the results by path."""

    def inside() -> dict[Path, T]:
        found: dict[Path, T] = {}
        for path in paths:
            _enter(path)
            found[path] = function()
        return found

    return _aside(inside)


def delete_netns(path: Path) -> None:
    """Unmount and remove the file, and those of the user namespace created with it. Idempotent.

    The namespaces end when no process is left in them.
    """
    for each in (path, user_namespace_at(path)):
        if _libc.umount2(os.fsencode(each), _MNT_DETACH | _UMOUNT_NOFOLLOW) < 0:
            number = ctypes.get_errno()
            if number not in (_EINVAL, _ENOENT):  # not a mount point, or does not exist
                raise OSError(number, f"unmount {each}: {os.strerror(number)}")
        each.unlink(missing_ok=True)


def is_netns(path: Path) -> bool:
    """Report whether a namespace is mounted at `path`; after a reboot, or in another mount namespace, it is an empty
    file."""
    try:
        return os.stat(path).st_dev != os.stat(path.parent).st_dev
    except FileNotFoundError:
        return False


def _aside(function: Callable[[], T]) -> T:
    """Call in a new thread that ends afterwards, because its namespace makes it unusable for other work."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="havre-netns") as thread:
        return thread.submit(function).result()


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
