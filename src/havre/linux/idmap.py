"""User namespaces and ID mappings: a range of host IDs that appears as 0 and up in a user namespace.

    on disk     0 ... count-1        as stored, independent of the mapping
                 |  idmapped mount (mount_setattr(2))
    on the host uid ... uid+count-1  what the kernel checks, and what the daemon sees through an idmapped mount
                 |  user namespace
    inside      0 ... count-1

A multithreaded process cannot enter a user namespace (setns(2)), so unshare(1) makes it in a child process. The child
waits until its maps are written and the namespaces wanted are held by descriptors or mounts, and is then killed; it
also
ends when the daemon is killed. Blocking; failures are OSError.

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
"""The overflow ID: what an ID without a mapping appears as (user_namespaces(7))."""

CAPABILITY = "security.capability"
_CAPABILITY, _CAPABILITY_OF_ROOT, _FLAGS, _CAPABILITY_BYTES = 0x02000000, 0x03000000, 0x00FFFFFF, 20
"""<linux/capability.h>: revision 2, and revision 3, which appends the host's UID of the namespace's root."""

_CAPABILITY_VERSION_3 = 0x20080522
_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class IdRange:
    """`count` host user IDs from `uid` and group IDs from `gid`, mapped to 0 and up inside the user namespace."""

    uid: int
    gid: int
    count: int

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Map a UID and GID inside to the host's; IDs out of range map to the overflow ID, or to the last of the
        range."""
        last = self.count - 1
        return self.uid + min(self._known(uid), last), self.gid + min(self._known(gid), last)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Map a UID and GID of the host to those inside; the overflow ID where there is no mapping."""
        return self._known(uid - self.uid), self._known(gid - self.gid)

    def capability_outside(self, value: bytes) -> bytes:
        """Convert `security.capability` from its value inside to the host's: revision 3, bound to the namespace's
        root."""
        head = int.from_bytes(value[:4], "little")
        if len(value) != _CAPABILITY_BYTES or head & ~_FLAGS != _CAPABILITY:
            return value
        return struct.pack("<I16sI", _CAPABILITY_OF_ROOT | head & _FLAGS, value[4:], self.uid)

    def capability_inside(self, value: bytes) -> bytes:
        """Convert `security.capability` from the host's value to the one seen inside: revision 2."""
        head, root = int.from_bytes(value[:4], "little"), int.from_bytes(value[_CAPABILITY_BYTES:], "little")
        if head & ~_FLAGS != _CAPABILITY_OF_ROOT or root != self.uid:
            return value
        return struct.pack("<I16s", _CAPABILITY | head & _FLAGS, value[4:_CAPABILITY_BYTES])

    def _known(self, number: int) -> int:
        return number if 0 <= number < self.count else OVERFLOW


@contextmanager
def user_namespace(ids: IdRange) -> Iterator[int]:
    """Create a user namespace with this mapping and yield a descriptor of it; closed after the block."""
    with _child(["unshare", "--user"]) as pid:
        _write_maps(pid, ids)
        descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def owned_network(owner: IdRange | Path) -> Iterator[int]:
    """Create a network namespace owned by a user namespace and yield the PID of a process in it, killed after the
    block.

    `owner` is the mapping of a new user namespace, or the nsfs file of an existing one.
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
    """Make this thread create files as root of `ids`, with its capabilities kept. None: no change.

    The host's root has no mapping on an idmapped mount, so creating a file there fails with EOVERFLOW otherwise.
    """
    if ids is None:
        yield
        return
    header, capabilities = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, capabilities), "read capabilities")
    uid, gid = os.geteuid(), os.getegid()
    try:
        _set_ids(ids.uid, ids.gid)
        # changing fsuid drops the file capabilities (capabilities(7))
        _check(_libc.capset(header, capabilities), "keep capabilities")
        yield
    finally:
        _set_ids(uid, gid)
        _check(_libc.capset(header, capabilities), "keep capabilities")


def _set_ids(uid: int, gid: int) -> None:
    """setfsgid(2) and setfsuid(2): they affect the calling thread only."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)


@contextmanager
def _child(command: Sequence[str]) -> Iterator[int]:
    """Start `command`, which enters namespaces, and yield the PID of the waiting process; killed after the block."""
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
            if not os.read(child.stdout.fileno(), 1):  # `cat` echoes only after the whole command has run
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
