"""A null device that no container can change: what a process reads that has no other standard input.

conmon gives its own /dev/null, the host's, to the OCI runtime, and crun (before 1.24) gives what it is called with to
the user of the process: who could then close it to everybody on the host. With any OCI runtime, root in a container
could do that by fchmod(2). The device made here is a file system's of its own, attached nowhere and read-only, so that
chmod(2) and chown(2) fail with EROFS, which crun overlooks; reading and writing a device is no writing to its mount.
It ends with the last process that has it open. A prefix gives it to the OCI runtime, for half a millisecond:

    sh -c 'exec "$@" </proc/self/fd/N' sh crun exec ...

Not where nothing of the host's arrives inside: an exec gets a terminal or pipes by `-t` or `-i`, and a first process
the container's own null device by the runtime, if that is the one which the runtime has made (`is_own`).

Sources: crun's container.c (maybe_chown_std_streams), conmon's conmon.c (dev_null_r), mount_setattr(2), null(4).
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import posixpath
import stat
from collections.abc import Sequence

from havre.linux import mounts
from havre.linux.openat2 import resolve_in_root
from havre.runtime.plan import ContainerPlan

NULL = "/dev/null"
_PLACES = frozenset({"/dev", NULL})

log = logging.getLogger(__name__)


@functools.cache
def null_device() -> int:
    """A descriptor of the device, one for this process. The host's, and a warning, where none can be made. Blocking."""
    try:
        return _make()
    except PermissionError as error:
        log.warning("containers may change the host's /dev/null, as no device of our own can be made: %s", error)
        return os.open(NULL, os.O_RDWR | os.O_CLOEXEC)


def shielded(command: Sequence[str], *, tty: bool, open_stdin: bool) -> list[str]:
    """An OCI runtime's command line, with the device in place of each standard stream that conmon has none for.

    `null_device` is to be open in conmon.
    """
    device = f"/proc/self/fd/{null_device()}"
    if tty:
        return ["/bin/sh", "-c", f'exec "$@" <{device} >{device}', "sh", *command]
    return list(command) if open_stdin else ["/bin/sh", "-c", f'exec "$@" <{device}', "sh", *command]


def is_own(plan: ContainerPlan) -> bool:
    """Whether /dev/null inside is surely the OCI runtime's own: no mount or device lies there, nor may by a link.

    Links can be in the image, and in what is mounted around another destination. Blocking.
    """
    paths = {posixpath.normpath(mount.destination) for mount in plan.mounts}
    outer = tuple(f"{path}/" for path in paths)
    paths |= {posixpath.normpath(device.path) for device in plan.devices}
    return not paths & _PLACES and not any(
        path.startswith(outer) or resolve_in_root(plan.rootfs, path) != path for path in paths
    )


def _make() -> int:
    mount = mounts.create_mount("tmpfs", [("mode", "755"), ("size", "4k")])
    try:
        os.mkdir("dev", 0o755, dir_fd=mount)
        os.mknod("dev/null", stat.S_IFCHR, os.makedev(1, 3), dir_fd=mount)
        os.chmod("dev/null", 0o666, dir_fd=mount)  # the umask does not apply
        try:
            mounts.restrict_mount(mount, mounts.ATTR_RDONLY)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # before Linux 5.12: it can be changed, but it is not the host's
                raise
        return os.open("dev/null", os.O_RDWR | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)
