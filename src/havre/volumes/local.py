"""Volumes of the driver `local` on disk: directories, and file systems mounted there on demand.

    data_root/volumes/NAME/_data         the files; a volume with options has its file system mounted here
                      NAME/_data.new     being filled from an image
                      NAME/_renamed      a symbolic link to OLD/NAME: the rename is not yet in the database
                      .gone-NAME         being removed, or incomplete

Options are those of mount(8): `type`, `device`, `o` (bind, tmpfs, nfs, cifs, any block device). Crash-safe: `sweep`
completes or reverts interrupted operations at the next start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from havre.aio import in_thread
from havre.errors import Failed
from havre.failpoints import failpoint
from havre.linux import mounts, trees
from havre.linux.idmap import IdRange, as_root_of
from havre.linux.openat2 import open_in_root
from havre.volumes.spec import Volume, attempt

_GONE, _RENAMED = ".gone-", "_renamed"


class LocalVolumes:
    """The directories below `root` (data_root/volumes)."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()  # as in /proc/self/mountinfo
        self._mounting = asyncio.Lock()

    def data(self, name: str) -> Path:
        """The directory of a volume's files."""
        return self.root / name / "_data"

    def sweep(self) -> tuple[dict[str, float], dict[str, str]]:
        """Complete removals and renames, remove incomplete volumes. Blocking.

        Returns creation times by name of the volumes found, and old names by new name of renames for which `renamed`
        was not called.
        """
        self.root.mkdir(mode=0o700, exist_ok=True)
        trees.sync_directory(self.root.parent)
        found, renames = {}, {}
        for directory in [self._finish_rename(entry) for entry in self.root.iterdir()]:
            if directory.name.startswith(_GONE):
                trees.remove_tree(directory)
            elif (directory / "_data").is_dir():
                trees.remove_tree(directory / "_data.new")
                found[directory.name] = directory.stat().st_mtime
                if (mark := directory / _RENAMED).is_symlink():
                    renames[directory.name] = mark.readlink().parts[0]
            elif directory.is_dir() and {entry.name for entry in directory.iterdir()} <= {"_data.new"}:
                trees.remove_tree(directory)  # the daemon was killed while creating it
        return found, renames

    def _finish_rename(self, directory: Path) -> Path:
        mark = directory / _RENAMED
        if not mark.is_symlink() or mark.readlink().name == directory.name:
            return directory
        return directory.rename(self.root / mark.readlink().name)

    async def create(self, name: str) -> None:
        """Create the directory of a volume."""
        with attempt(f"create {name}"):
            await in_thread(self._make_directory, name)

    async def make_aside(self) -> Path:
        """Create a volume's directory under a temporary name, for `put_in_place` or `drop_aside`; removed at the next
        start."""
        aside = self.root / f"{_GONE}{secrets.token_hex(8)}"
        with attempt("create a volume"):
            await in_thread(_make_data, aside)
        return aside

    def put_in_place(self, aside: Path, name: str) -> None:
        """Rename the directory to the volume's.

        Runs on the event loop, so that no other task can take the name meanwhile.
        """
        with attempt(f"create {name}"):
            aside.rename(self.root / name)

    def put_aside(self, name: str, aside: Path) -> None:
        """Undo `put_in_place`."""
        with attempt(f"create {name}"):
            (self.root / name).rename(aside)

    def sync(self) -> None:
        """fsync the directory of volumes. Blocking."""
        with attempt("writing the names of volumes"):
            trees.sync_directory(self.root)

    def take_back(self, name: str) -> None:
        """Remove the empty directories of a volume that `create` has not completed. Blocking."""
        for directory in (self.data(name), self.root / name):
            with suppress(OSError):  # a directory with files is not one of these
                directory.rmdir()

    async def drop_aside(self, aside: Path) -> None:
        """Remove the directory of `make_aside`, if it still exists."""
        await in_thread(trees.remove_tree, aside)

    def rename(self, name: str, new: str) -> None:
        """Rename a directory atomically, and mark it until `renamed` for a start that finds the old name in the
        database."""
        mark = Path(name) / _RENAMED
        with attempt(f"rename {name}"):
            self.renamed(name)
            (self.root / mark).symlink_to(Path(name) / new)
            failpoint("volume.marked")
            try:
                (self.root / name).rename(self.root / new)
                failpoint("volume.renamed")
            except OSError:
                self.renamed(name)
                raise

    def renamed(self, name: str) -> None:
        """Remove the mark of `rename`: the database has the new name."""
        (self.root / name / _RENAMED).unlink(missing_ok=True)

    async def remove(self, name: str) -> int:
        """Unmount and remove a volume's files. Returns the bytes freed."""
        with attempt(f"remove {name}"):
            return await in_thread(self._remove_directory, name)

    async def size(self, name: str) -> int:
        """Disk usage in bytes."""
        return await in_thread(self._size, name)

    async def mount(self, volume: Volume) -> Path:
        """Mount the volume if its options say so. Returns the directory of its files. Idempotent."""
        if volume.options:
            async with self._mounting:
                await in_thread(self._mount, volume)
        return self.data(volume.name)

    async def unmount(self, volume: Volume, still_used: Callable[[], bool]) -> None:
        """Unmount what the options mounted, unless the volume is `still_used` once the lock is held."""
        if not volume.options:
            return
        async with self._mounting:
            if not still_used():
                with attempt(f"unmounting volume {volume.name}"):
                    await in_thread(mounts.unmount_all, self.data(volume.name))

    async def fill(self, volume: Volume, rootfs: Path, path: str, ids: IdRange | None, *, shared: bool) -> None:
        """Copy the directory `path` of the image mounted at `rootfs` into the volume, if the volume is empty.

        The copy is made in a temporary directory and renamed, unless the directory is `shared` or a mount point.
        """
        data, aside = self.data(volume.name), self.root / volume.name / "_data.new"
        if volume.options:
            await fill_directory(rootfs, path, data)
            return
        if not await in_thread(_is_empty, data):
            return
        try:
            if not await in_thread(_copy_from_image, rootfs, path, aside, ids):
                return
            if shared:
                await in_thread(_copy_from_image, aside, "/", data)
            else:
                failpoint("volume.copied")
                aside.rename(data)  # on the event loop: no other task can start using the old directory meanwhile
        finally:
            await in_thread(trees.remove_tree, aside)

    def _make_directory(self, name: str) -> None:
        _make_data(self.root / name)
        failpoint("volume.made")
        trees.sync_directory(self.root / name)
        trees.sync_directory(self.root)

    def _remove_directory(self, name: str) -> int:
        """Unmount, measure, remove. A busy mount raises before any file is touched."""
        mounts.unmount_all(self.data(name))
        size = self._size(name)
        gone = self.root / f"{_GONE}{name}"
        with suppress(FileNotFoundError):
            (self.root / name).rename(gone)
        failpoint("volume.aside")
        trees.remove_tree(gone)
        return size

    def _size(self, name: str) -> int:
        try:
            return trees.tree_size(self.data(name))
        except FileNotFoundError:
            return 0

    def _mount(self, volume: Volume) -> None:
        """Mount the volume as its options say, unless mounted."""
        target = self.data(volume.name)
        if any(entry.target == target for entry in mounts.mounts_below(target)):
            return
        given = volume.options or {}
        fstype, device, options = given.get("type", ""), given.get("device", ""), given.get("o", "")
        if not device:
            return
        problem = f"error while mounting volume '{target}'"
        if fstype.startswith(("nfs", "cifs")):
            options = _resolve_address(options, problem)
        try:
            mounts.mount_by_options(device, target, fstype, options)
        except OSError as error:
            parsed = mounts.parse_options(options)
            data = f", data: {parsed.data}" if parsed.data else ""
            what = f"mount {device}:{target}, flags: {parsed.flags:#x}{data}"
            reason = os.strerror(error.errno or 0).lower()
            raise Failed(f"{problem}: failed to mount local volume: {what}: {reason}") from error


async def fill_directory(rootfs: Path, path: str, target: Path) -> None:
    """Copy the directory `path` of the image mounted at `rootfs` into `target`, if that is empty."""
    if await in_thread(_is_empty, target):
        await in_thread(_copy_from_image, rootfs, path, target)


async def fill_part(rootfs: Path, path: str, part: Path, ids: IdRange | None) -> None:
    """As `fill_directory`, for a subpath of a volume mounted for `ids`. A file there is not changed."""

    def fill() -> None:
        with as_root_of(ids):
            _copy_from_image(rootfs, path, part)

    if await in_thread(part.is_dir) and await in_thread(_is_empty, part):
        await in_thread(fill)


def _resolve_address(options: str, problem: str) -> str:
    """Resolve a host name in `addr=`, as the kernel accepts only IP addresses there (nfs(5))."""
    resolved = []
    for option in options.split(","):
        key, given, host = option.partition("=")
        if key == "addr" and given:
            try:
                host = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
            except OSError as error:
                what = f"lookup {host}: {error.strerror}"
                raise Failed(f"{problem}: error resolving passed in network volume address: {what}") from error
        resolved.append(key + given + host)
    return ",".join(resolved)


def _make_data(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    data = directory / "_data"
    data.mkdir(exist_ok=True)
    data.chmod(0o755)


def _is_empty(directory: Path) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _copy_from_image(rootfs: Path, path: str, target: Path, ids: IdRange | None = None) -> bool:
    """Copy the directory `path` of the image, mounted for `ids`, to `target`. Returns whether it exists."""
    try:
        pinned = open_in_root(rootfs, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    try:
        if not stat.S_ISDIR(os.fstat(pinned).st_mode):
            raise Failed(f"source {rootfs / path.lstrip('/')} is not directory", "mount the volume at a directory")
        source = trees.open_directory(".", pinned)
    finally:
        os.close(pinned)
    try:
        target.mkdir(mode=0o700, exist_ok=True)
        destination = trees.open_directory(target)
        try:
            trees.copy_tree(source, destination, ids=ids)
        finally:
            os.close(destination)
    finally:
        os.close(source)
    return True
