"""Parts of volumes: `--mount type=volume,volume-subpath=PATH`, mounted at a place of their own while a container runs.

What is in a volume is written by containers: a link in it may point anywhere. The path is therefore resolved by the
kernel, which refuses what leads out of the volume (openat2, RESOLVE_BENEATH); what it led to is held by a descriptor
until it is mounted, so that nothing can be exchanged in between. The OCI runtime is given the place of the mount, which
is ours.

    run_root/subpaths/CONTAINER/HEX       HEX names volume and path
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from havre.aio import in_thread
from havre.errors import Failed
from havre.linux import mounts
from havre.linux.openat2 import open_beneath


class Subpaths:
    """The mounts below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def open(self, container_id: str, volume: Path, subpath: str) -> Path:
        """Where `subpath` of the volume whose files are at `volume` is mounted; Failed where there is no such path."""
        name = hashlib.sha256(f"{volume}\0{subpath}".encode()).hexdigest()[:16]
        try:
            return await in_thread(_mount, volume, subpath, self._root / container_id / name)
        except OSError as error:
            if error.errno == errno.EXDEV:
                problem = f"path concatenation escapes the base directory, base: {volume}, subpath: {subpath}"
                raise Failed(problem) from error
            reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
            raise Failed(f"cannot access path {volume / subpath}: {reason}", "make it in the volume first") from error

    async def close(self, container_id: str) -> None:
        """Take a container's mounts down. Idempotent."""
        directory = self._root / container_id
        if directory.exists():
            await in_thread(_unmount_below, directory)


def _mount(volume: Path, subpath: str, target: Path) -> Path:
    found = open_beneath(volume, subpath, os.O_PATH)
    try:
        is_directory = stat.S_ISDIR(os.fstat(found).st_mode)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts.unmount_all(target)
        if is_directory:
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        mounts.bind_mount(Path(f"/proc/self/fd/{found}"), target)
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
