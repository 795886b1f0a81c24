"""Device nodes of the host as values: one node, a directory of them, or all for `--privileged`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from havre.errors import InvalidInput
from havre.runtime.plan import Device

# A container has its own, or must not see the host's: pseudo-terminals, shared memory, queues, the console.
_OWN = ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev")
_CONSOLE = "/dev/console"


def read_devices(on_host: str, inside: str, access: str) -> list[Device]:
    """The node `on_host`, or all below it, to create at `inside` ("" is the same path) with `access` of "rwm".

    Raises InvalidInput when there is none.
    """
    access, inside = access or "rwm", inside or on_host
    if not set(access) <= set("rwm"):
        raise InvalidInput(f"invalid device mode: {access}", "expected letters of rwm")
    problem = f'error gathering device information while adding custom device "{on_host}"'
    try:
        status = os.stat(on_host)
    except OSError as error:
        raise InvalidInput(f"{problem}: {str(error.strerror).lower()}") from error
    paths = _walk(Path(on_host)) if stat.S_ISDIR(status.st_mode) else [on_host]
    found = [_device(path, inside + path[len(on_host.rstrip("/")) :], access) for path in paths]
    if not any(found):
        raise InvalidInput(f"{problem}: not a device node")
    return [device for device in found if device]


def all_devices() -> list[Device]:
    """Every device node below /dev, except those that a container has of its own."""
    found = (_device(path, path, "rwm", follow=False) for path in _walk(Path("/dev")) if path != _CONSOLE)
    return [device for device in found if device]


def _walk(directory: Path) -> Iterator[str]:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _OWN:
                yield from _walk(Path(entry.path))
        elif not entry.is_symlink():
            yield entry.path


def _device(path: str, inside: str, access: str, *, follow: bool = True) -> Device | None:
    status = os.stat(path, follow_symlinks=follow)
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return Device(
        path=inside,
        type=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        access=access,
    )
