"""Where a container's mounts, devices and working directory are, once the links of its image have been followed.

OCI runtimes disagree about links that lead to what is not there: runc makes a mount's place where they lead to, crun
makes none, and neither makes a working directory so. Docker makes all of them, inside the root. Here they are followed
first, as in a chroot(2), and the runtime is told of places without links. What is mounted hides what lies below it, so
that the outer of two mounts is settled first, and links in what is mounted are left to the runtime.

Source: runc's securejoin, "Follow symlinks in scope"; path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import posixpath
from dataclasses import replace

from havre.errors import InvalidInput
from havre.linux.openat2 import resolve
from havre.runtime.plan import ContainerPlan
from havre.runtime.spec import check_destination

_KERNEL = ("/dev", "/proc", "/sys")


def settle_destinations(plan: ContainerPlan) -> ContainerPlan:
    """The plan with no link of the image in its paths. InvalidInput for loops, and for what would lie in /proc.

    Blocking. Nobody writes to the root file system meanwhile.
    """
    root = _Root(plan)
    mounts = []
    for mount in sorted(plan.mounts, key=lambda mount: mount.destination.count("/")):
        place = root.follow(mount.destination)
        check_destination(mount.destination, posixpath.normpath(place))
        root.cover(posixpath.normpath(place))
        mounts.append(replace(mount, destination=place))
    mounts.sort(key=lambda mount: mount.destination.count("/"))
    devices = tuple(replace(device, path=root.follow(device.path)) for device in plan.devices)
    return replace(plan, mounts=tuple(mounts), devices=devices, cwd=root.follow(plan.cwd))


class _Root:
    """The image's root with what has been mounted over it."""

    def __init__(self, plan: ContainerPlan) -> None:
        self._path = plan.rootfs
        self._covered = set(_KERNEL)

    def cover(self, place: str) -> None:
        """Something is mounted at `place`."""
        self._covered.add(place)

    def follow(self, path: str) -> str:
        """Where an absolute path leads; as it was given where no link is on its way."""
        followed = False

        def read_link(inner: str) -> str:
            nonlocal followed
            if self._is_covered(f"/{inner}"):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), inner)
            target = os.readlink(self._path / inner)
            followed = True
            return target

        try:
            place = resolve(path, read_link)
        except OSError as error:
            raise InvalidInput(f"too many links in {path}") from error
        return place if followed else path

    def _is_covered(self, place: str) -> bool:
        while place != "/":
            if place in self._covered:
                return True
            place = posixpath.dirname(place)
        return False
