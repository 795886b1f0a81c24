"""Mounts of parts of volumes (`--mount type=volume,volume-subpath=PATH`), while a container runs.

Containers with mapped IDs also get whole volumes from here, ID-mapped, and their root file system: the OCI runtime
opens it as the container's root, which cannot traverse the daemon's directories. The directory here is accessible to
that group only, so users of the host cannot reach set-user-ID files. For the same reason only volumes in the data root
are ID-mapped: elsewhere, files written by the container's root would belong to root on the host.

The content of a volume is written by containers, so links in it may point anywhere. The kernel resolves the path and
refuses one that leads outside (openat2(2), RESOLVE_BENEATH); a descriptor refers to the result until it is mounted, so
it cannot be swapped in between (a race). The OCI runtime gets the path of that mount, which havre owns.

    run_root/subpaths/CONTAINER/HEX       HEX is a hash of volume and path
                                rootfs
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

from havre.aio import in_thread
from havre.errors import Failed, Unsupported
from havre.linux import mounts
from havre.linux.idmap import IdRange, user_namespace
from havre.linux.openat2 import open_beneath


class Subpaths:
    """The mounts below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def show(self, container_id: str, rootfs: Path, ids: IdRange) -> Path:
        """Mount `rootfs`, which already belongs to `ids`, at a path that the root of `ids` can traverse.

        Raises `Unsupported` if a parent of the daemon's directories is not traversable by others.
        """
        return await in_thread(self._show, container_id, rootfs, ids)

    def _show(self, container_id: str, rootfs: Path, ids: IdRange) -> Path:
        target = _mount(rootfs, ".", self._root / container_id / "rootfs", None)
        self._root.chmod(0o711)
        for parent in self._root.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                raise Unsupported(
                    f"the root user of a container with mapped user IDs cannot traverse {parent}",
                    f"let others enter it (chmod o+x {parent}), or give the daemon another --exec-root",
                )
        os.chown(target.parent, 0, ids.gid)
        target.parent.chmod(0o710)
        return target

    async def open(self, container_id: str, volume: Path, subpath: str, ids: IdRange | None = None) -> Path:
        """Mount `subpath` of the volume at `volume`, mapped to `ids`. Returns the mount point.

        Raises `Failed` if the path does not exist, `Unsupported` if the file system does not support ID-mapped mounts.
        """
        name = hashlib.sha256(f"{volume}\0{subpath}".encode()).hexdigest()[:16]
        try:
            return await in_thread(_mount, volume, subpath, self._root / container_id / name, ids)
        except OSError as error:
            if error.errno == errno.EXDEV:
                problem = f"path concatenation escapes the base directory, base: {volume}, subpath: {subpath}"
                raise Failed(problem) from error
            if ids is not None and error.errno == errno.EINVAL:
                raise Unsupported(
                    f"the file system of {volume} does not support ID-mapped mounts",
                    "keep the volume on another one, or run the container with --userns=host",
                ) from error
            reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
            raise Failed(f"cannot access path {volume / subpath}: {reason}", "make it in the volume first") from error

    async def sweep(self, running: Collection[str]) -> None:
        """At the daemon's start: unmount what an earlier daemon left of containers and builds that do not run."""
        for directory in self._root.iterdir() if self._root.exists() else ():
            if directory.name not in running:
                await self.close(directory.name)

    async def close(self, container_id: str) -> None:
        """Unmount all of a container. Idempotent."""
        directory = self._root / container_id
        if directory.exists():
            await in_thread(_unmount_below, directory)


def _mount(volume: Path, subpath: str, target: Path, ids: IdRange | None) -> Path:
    found = open_beneath(volume, subpath, os.O_PATH)
    try:
        is_directory = stat.S_ISDIR(os.fstat(found).st_mode)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts.unmount_all(target)
        if is_directory:
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        source = Path(f"/proc/self/fd/{found}")
        with nullcontext() if ids is None else user_namespace(ids) as namespace:
            mounts.bind_mount(source, target, user_namespace=namespace)
    finally:
        os.close(found)
    return target


def _unmount_below(directory: Path) -> None:
    for target in directory.iterdir():
        mounts.unmount_all(target)
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()
    directory.rmdir()
