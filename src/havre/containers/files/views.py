"""Opens a container's file system from outside, as its own processes see it; used by `copying`.

    running    /proc/PID/root          the container's own mounts: root file system, volumes, tmpfs, as they are now
    stopped    run_root/views/ID-N     a second mount of its root file system, with its volumes and binds

In both cases all paths are resolved by openat2(2) below one directory descriptor; the daemon enters no namespace and
runs no program of the container. A view of a stopped container holds no lock: if the container starts meanwhile, its
mounts stay until both have released them. Removal of the container aborts the work in its views.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from havre.aio import finish, in_thread
from havre.containers.container import Container
from havre.containers.live import FileUse, Live
from havre.containers.surroundings.assembly import FILES, Assembly
from havre.errors import Conflict, Failed
from havre.linux import mounts
from havre.linux.idmap import IdRange, as_root_of
from havre.linux.openat2 import openat_in_root
from havre.storage import Snapshots

_KERNEL_TYPES = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"}


@dataclass(frozen=True, slots=True)
class View:
    """`root` is a descriptor of the root directory; `closed` are the devices (st_dev) of kernel file systems below it.

    Kernel file systems (/proc, /sys, /dev and mounts in them) are not the container's files: they can be read by name,
    but are left out of trees that contain them. `ids` is the range that the files appear to belong to.
    """

    root: int
    closed: frozenset[int] = frozenset()
    ids: IdRange | None = None


@dataclass(frozen=True, slots=True)
class _Upon:
    """A file or directory of the host that is mounted at `destination` in the container."""

    source: Path
    destination: str
    read_only: bool


class Views:
    """Opens views; mounts those of stopped containers below `root`, which havre owns."""

    def __init__(self, assembly: Assembly, snapshots: Snapshots, root: Path) -> None:
        self._assembly = assembly
        self._snapshots = snapshots
        self._root = root
        self._numbers = count(1)
        self._open: Counter[str] = Counter()

    async def sweep(self) -> None:
        """At the daemon's start: unmount what an earlier daemon left."""
        await in_thread(_sweep, self._root)

    @asynccontextmanager
    async def open(self, live: Live) -> AsyncIterator[View]:
        """The container's files, for the duration of the block. Counts as a mount of its volumes, as in Docker."""
        async with live.lock:
            view, target = await self._enter(live)
        self._assembly.tell_mounts(live.container)
        async with _until_removed(live, lambda: self._close(live, view, target)):
            yield view

    @asynccontextmanager
    async def bare(self, live: Live) -> AsyncIterator[View]:
        """As `open`, but the root file system without mounts, for running containers, too."""
        async with live.lock:
            _refuse_removal(live)
            view, target = await self._mount(live, bare=True)
        async with _until_removed(live, lambda: self._leave(live, view, target)):
            yield view

    async def _enter(self, live: Live) -> tuple[View, Path | None]:
        _refuse_removal(live)
        if live.process is not None:
            with suppress(Conflict):  # it has just ended: open it as a stopped one
                root = await live.process.open_root()
                return View(root, await in_thread(_closed_devices, live.process.pid), live.container.run.ids), None
        return await self._mount(live)

    async def _mount(self, live: Live, *, bare: bool = False) -> tuple[View, Path]:
        container = live.container
        target = self._root / f"{container.id}-{next(self._numbers)}"
        self._open[container.id] += 1
        try:
            upon = [] if bare else await self._find_mounts(container)
            rootfs = await self._snapshots.mount(container.id, container.run.ids)
            read_only = container.spec.host_config.readonly_rootfs
            root = await in_thread(_put_up, rootfs, target, upon, read_only, container.run.ids)
            return View(root, ids=container.run.ids), target
        except BaseException as error:
            await self._release(live)
            if isinstance(error, OSError):
                raise Failed(f"opening the files of container {container.id}: {error}") from error
            raise

    async def _find_mounts(self, container: Container) -> list[_Upon]:
        sources = await self._assembly.open_mounts(container)
        writable = {point.destination for point in container.spec.mounts if point.rw}
        upon = [_Upon(source, inside, inside not in writable) for inside, source in sorted(sources.items())]
        directory = self._assembly.network_files(container)
        return upon + [_Upon(directory / name, inside, True) for name, inside in FILES.items() if inside not in sources]

    async def _close(self, live: Live, view: View, target: Path | None) -> None:
        await self._leave(live, view, target)
        self._assembly.tell_unmounts(live.container)

    async def _leave(self, live: Live, view: View, target: Path | None) -> None:
        os.close(view.root)
        if target is not None:
            await in_thread(_take_down, target)
            async with live.lock:
                await self._release(live)

    async def _release(self, live: Live) -> None:
        """Under the lock: release a view; the last view of a stopped container releases its mounts."""
        id = live.container.id
        self._open[id] -= 1
        if self._open[id]:
            return
        del self._open[id]
        if live.process is None:
            await self._assembly.close_mounts(live.container)


@asynccontextmanager
async def _until_removed(live: Live, close: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run the block and then `close`. Raises `Conflict` if a removal has aborted the block."""
    use = FileUse()
    live.uses.add(use)
    try:
        async with use.block:
            yield
    except TimeoutError:
        if not use.block.expired():
            raise
        raise _removal(live) from None
    finally:
        await finish(_end(live, use, close))


async def _end(live: Live, use: FileUse, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await close()
    finally:
        live.uses.discard(use)
        use.over.set()


def _refuse_removal(live: Live) -> None:
    if live.removing:
        raise _removal(live)


def _removal(live: Live) -> Conflict:
    return Conflict(f"container {live.container.id} is marked for removal")


def _closed_devices(pid: int) -> frozenset[int]:
    """The devices of kernel file systems; empty if the process has just ended, as its mounts then are gone, too."""
    try:
        table = mounts.parse_mountinfo(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape"))
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    kernel = (entry for entry in table if entry.fstype in _KERNEL_TYPES or str(entry.target) == "/dev")
    return frozenset(os.makedev(*map(int, entry.device.split(":"))) for entry in kernel)


def _put_up(rootfs: Path, target: Path, upon: Sequence[_Upon], read_only: bool, ids: IdRange | None) -> int:
    target.mkdir(mode=0o700)
    root = -1
    try:
        mounts.bind_mount(rootfs, target, recursive=False)
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for each in upon:
            if each.source.exists():
                with as_root_of(ids):
                    _mount_upon(root, each)
        if read_only:
            mounts.restrict_mount(root, mounts.ATTR_RDONLY)
    except BaseException:
        if root >= 0:
            os.close(root)
        _take_down(target)
        raise
    return root


def _mount_upon(root: int, each: _Upon) -> None:
    clone = mounts.clone_mount(each.source, attributes=mounts.ATTR_RDONLY if each.read_only else 0)
    try:
        point = _mount_point(root, each.destination, each.source.is_dir())
        try:
            mounts.attach_mount_at(clone, point)
        finally:
            os.close(point)
    finally:
        os.close(clone)


def _mount_point(root: int, path: str, is_directory: bool) -> int:
    """Open `path`, creating it if missing, as a start of the container would."""
    try:
        return openat_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        above, _, name = path.rstrip("/").rpartition("/")
        parent = _mount_point(root, above, is_directory=True)
    try:
        if is_directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
    finally:
        os.close(parent)
    return openat_in_root(root, path, os.O_PATH)


def _take_down(target: Path) -> None:
    """Unmount lazily (MNT_DETACH), with all mounts on it."""
    if target.is_mount():
        mounts.unmount(target, mounts.UMOUNT_NOFOLLOW | mounts.MNT_DETACH)
    target.rmdir()


def _sweep(root: Path) -> None:
    root.mkdir(mode=0o700, exist_ok=True)
    for target in root.iterdir():
        _take_down(target)
