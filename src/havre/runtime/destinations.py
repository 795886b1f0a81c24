"""Resolves symbolic links of the image in the paths of mounts, devices and the working directory.

OCI runtimes differ on dangling links: runc creates the target of a mount's link, crun does not, and neither creates a
working directory that way. Docker creates all of them, inside the root. So links are resolved here first, as in a
chroot(2), and the runtime gets paths without links. A mount hides what lies below it: outer mounts are resolved first,
and links inside mounts are left to the runtime.

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
    """The plan with links resolved in its paths. InvalidInput for loops, and for paths that lead into /proc.

    Blocking. The root file system must not change meanwhile.
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
    """The image's root file system and the mounts on it so far."""

    def __init__(self, plan: ContainerPlan) -> None:
        self._path = plan.rootfs
        self._covered = set(_KERNEL)

    def cover(self, place: str) -> None:
        """Record a mount at `place`."""
        self._covered.add(place)

    def follow(self, path: str) -> str:
        """Resolve an absolute path; unchanged if it contains no link."""
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
