"""A null device that containers cannot change, used as stdin, stdout and stderr where a process has no other.

conmon passes its own /dev/null, the host's, to the OCI runtime, and crun (before 1.24) changes the owner of its
standard
streams to the process's user, who could then close it to the whole host. With any OCI runtime, root in a container
could
do so by fchmod(2). The device made here is on its own file system, attached nowhere and read-only, so that chmod(2) and
chown(2) fail with EROFS, which crun ignores; reading and writing a device does not write to its mount. It is freed with
the last process that has it open. A prefix (half a millisecond) passes it to the OCI runtime:

    sh -c 'exec "$@" </proc/self/fd/N' sh crun exec ...

It is not needed where no descriptor of the host gets inside: an exec with `-t` or `-i` has a terminal or pipes, and the
runtime gives a first process the container's own null device, if the runtime created that one (`is_own`).

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
    """A descriptor of the device, shared by this process. Falls back to the host's, with a warning. Blocking."""
    try:
        return _make()
    except PermissionError as error:
        log.warning("containers may change the host's /dev/null: cannot create a separate null device: %s", error)
        return os.open(NULL, os.O_RDWR | os.O_CLOEXEC)


def shielded(command: Sequence[str], *, tty: bool, open_stdin: bool) -> list[str]:
    """An OCI runtime's command line, with the device for each standard stream that conmon does not provide.

    `null_device` must be open in conmon.
    """
    device = f"/proc/self/fd/{null_device()}"
    if tty:
        return ["/bin/sh", "-c", f'exec "$@" <{device} >{device}', "sh", *command]
    return list(command) if open_stdin else ["/bin/sh", "-c", f'exec "$@" <{device}', "sh", *command]


def is_own(plan: ContainerPlan) -> bool:
    """Report whether /dev/null inside is certainly created by the OCI runtime: no mount or device at that path or by
    links.

    Links may be in the image, and in what is mounted above another destination. Blocking.
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
        os.chmod("dev/null", 0o666, dir_fd=mount)  # independent of the umask
        try:
            mounts.restrict_mount(mount, mounts.ATTR_RDONLY)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # before Linux 5.12 it can be changed, but is not the host's
                raise
        return os.open("dev/null", os.O_RDWR | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)
