"""Parts of volumes: `--mount type=volume,volume-subpath=PATH`, mounted at a place of their own while a container runs.

So is a whole volume for a container that has other user IDs on the host: the mount shows them in place of those on
disk. And its root file system, for the OCI runtime opens that as the container's root, who has no way through the
daemon's directories; the one here is open to that group alone, so that no user of the host gets at set-user-ID files.
Only volumes that lie in the data root are shown with other IDs, for the same reason: elsewhere, what the container's
root writes would be root's on the host.

What is in a volume is written by containers: a link in it may point anywhere. The path is therefore resolved by the
kernel, which refuses what leads out of the volume (openat2, RESOLVE_BENEATH); what it led to is held by a descriptor
until it is mounted, so that nothing can be exchanged in between. The OCI runtime is given the place of the mount, which
is ours.

    run_root/subpaths/CONTAINER/HEX       HEX names volume and path
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
        """Where the root of `ids` finds what is mounted at `rootfs`, which belongs to them already.

        Unsupported where the daemon's directories lie in one that others may not enter.
        """
        return await in_thread(self._show, container_id, rootfs, ids)

    def _show(self, container_id: str, rootfs: Path, ids: IdRange) -> Path:
        target = _mount(rootfs, ".", self._root / container_id / "rootfs", None)
        self._root.chmod(0o711)
        for parent in self._root.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                raise Unsupported(
                    f"the root of a container with other user IDs has no way to its files through {parent}",
                    f"let others enter it (chmod o+x {parent}), or give the daemon another --exec-root",
                )
        os.chown(target.parent, 0, ids.gid)
        target.parent.chmod(0o710)
        return target

    async def open(self, container_id: str, volume: Path, subpath: str, ids: IdRange | None = None) -> Path:
        """Where `subpath` of the volume whose files are at `volume` is mounted, for `ids`.

        Failed where there is no such path, Unsupported where its file system cannot show other IDs.
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
                    f"the file system of {volume} cannot show other user IDs (idmapped mounts)",
                    "keep the volume on another one, or run the container with --userns=host",
                ) from error
            reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
            raise Failed(f"cannot access path {volume / subpath}: {reason}", "make it in the volume first") from error

    async def sweep(self, running: Collection[str]) -> None:
        """At start: take down what a killed daemon left of containers and builds that do not run."""
        for directory in self._root.iterdir() if self._root.exists() else ():
            if directory.name not in running:
                await self.close(directory.name)

    async def close(self, container_id: str) -> None:
        """Take a container's mounts down. Idempotent."""
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
