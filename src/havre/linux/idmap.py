"""Other user and group IDs: ranges of the host's that stand for 0 and up in a user namespace, and what uses them.

    on disk     0 ... count-1        as files are kept, whoever writes them
                 |  idmapped mount (mount_setattr(2))
    on the host uid ... uid+count-1  what the kernel checks, and what the daemon sees of a mount that is so shown
                 |  user namespace
    inside      0 ... count-1

A user namespace is made by unshare(1), for a process of several threads cannot enter one: the child waits until its
maps are written and whatever is wanted of its namespaces is held by descriptors or mounts, and then ends, as it does
when the daemon is killed. Blocking; failures are OSError.

Sources: user_namespaces(7), subuid(5), mount_setattr(2), setfsuid(2), capget(2), capabilities(7).
Why: docs/decisions/320.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

OVERFLOW = 65534
"""Whom the kernel shows in place of an ID that has no name in a user namespace."""

CAPABILITY = "security.capability"
_CAPABILITY, _CAPABILITY_OF_ROOT, _FLAGS, _CAPABILITY_BYTES = 0x02000000, 0x03000000, 0x00FFFFFF, 20
"""<linux/capability.h>: revision 2; 3, after whose bytes the host's number follows of the root that they are for."""

_CAPABILITY_VERSION_3 = 0x20080522
_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class IdRange:
    """`count` user IDs of the host's from `uid` on and as many group IDs from `gid` on, which are 0 and up inside."""

    uid: int
    gid: int
    count: int

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """What the host calls an owner that is called so inside; whoever is out of range is nobody, or the last."""
        last = self.count - 1
        return self.uid + min(self._known(uid), last), self.gid + min(self._known(gid), last)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """What an owner that the host calls so is called inside."""
        return self._known(uid - self.uid), self._known(gid - self.gid)

    def capability_outside(self, value: bytes) -> bytes:
        """The attribute security.capability of a file as the host must set it, so that it counts inside."""
        head = int.from_bytes(value[:4], "little")
        if len(value) != _CAPABILITY_BYTES or head & ~_FLAGS != _CAPABILITY:
            return value
        return struct.pack("<I16sI", _CAPABILITY_OF_ROOT | head & _FLAGS, value[4:], self.uid)

    def capability_inside(self, value: bytes) -> bytes:
        """The same as it is told inside, given what the host sees."""
        head, root = int.from_bytes(value[:4], "little"), int.from_bytes(value[_CAPABILITY_BYTES:], "little")
        if head & ~_FLAGS != _CAPABILITY_OF_ROOT or root != self.uid:
            return value
        return struct.pack("<I16s", _CAPABILITY | head & _FLAGS, value[4:_CAPABILITY_BYTES])

    def _known(self, number: int) -> int:
        return number if 0 <= number < self.count else OVERFLOW


@contextmanager
def user_namespace(ids: IdRange) -> Iterator[int]:
    """A descriptor of a user namespace with these IDs, for the length of a block."""
    with _child(["unshare", "--user"]) as pid:
        _write_maps(pid, ids)
        descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def owned_network(owner: IdRange | Path) -> Iterator[int]:
    """The PID of a process in a network namespace that a user namespace owns, for the length of a block.

    `owner` are the IDs of a new user namespace or the file of one that there is.
    """
    if isinstance(owner, Path):
        with _child(["nsenter", f"--user={owner}", "unshare", "--net"]) as pid:
            yield pid
    else:
        with _child(["unshare", "--user", "--net"]) as pid:
            _write_maps(pid, owner)
            yield pid


@contextmanager
def as_root_of(ids: IdRange | None) -> Iterator[None]:
    """Let what this thread creates in a block belong to root of `ids`; it may do all it might before. None: no change.

    A mount with other IDs has no name for the host's root: without this, nothing could be created there (EOVERFLOW).
    """
    if ids is None:
        yield
        return
    header, capabilities = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, capabilities), "read capabilities")
    uid, gid = os.geteuid(), os.getegid()
    try:
        _set_ids(ids.uid, ids.gid)
        _check(_libc.capset(header, capabilities), "keep capabilities")  # those about files went with the UID
        yield
    finally:
        _set_ids(uid, gid)
        _check(_libc.capset(header, capabilities), "keep capabilities")


def _set_ids(uid: int, gid: int) -> None:
    """setfsgid(2), setfsuid(2): of the calling thread alone."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)


@contextmanager
def _child(command: Sequence[str]) -> Iterator[int]:
    """The PID of a process that the command has put into namespaces and that waits there."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "cat"], env=_PATH, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            with suppress(BrokenPipeError):
                os.write(child.stdin.fileno(), b"\n")
            if not os.read(child.stdout.fileno(), 1):  # what comes back has passed by all of the command
                reason = child.stderr.read().decode(errors="replace").strip()
                raise OSError(f"cannot make a user namespace: {reason}")
            yield child.pid
        finally:
            child.kill()


def _write_maps(pid: int, ids: IdRange) -> None:
    for name, first in (("uid_map", ids.uid), ("gid_map", ids.gid)):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {first} {ids.count}\n")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
