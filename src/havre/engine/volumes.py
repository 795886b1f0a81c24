"""Volumes: directories that outlive containers, and file systems mounted into such a directory on demand.

    data_root/volumes/NAME/_data         what containers see; a volume with options has its file system mounted here
                      NAME/_data.new     being filled from an image
                      .gone-NAME         being removed, or not whole yet

A container *uses* a volume from its creation to its removal, which keeps the volume from being removed, and has it
*mounted* from start to stop, which matters to volumes with options alone:

    create --> mount_for --> unmounted --> mount_for --> unmounted --> release
               (mounted)     (used)        (mounted)     (used)        (free)

Driver `local` is the only one. Its options are those of mount(8): `type`, `device`, `o` (bind, tmpfs, nfs, cifs, any
block device); texts of errors are Docker's. Source: Docker Engine API, "Volumes"; mount(8).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import secrets
import socket
import stat
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from havre.aio import in_thread
from havre.engine.events import Events
from havre.engine.filters import Filters, boolean, check_keys, matches_exactly, matches_labels, matches_pattern
from havre.engine.model import Value
from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound
from havre.linux import mounts, trees
from havre.linux.openat2 import open_in_root
from havre.storage import Table

ANONYMOUS = "com.docker.volume.anonymous"
"""The label of a volume that nobody gave a name."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NAME_MAX = 255
_OPTIONS = ("type", "device", "o", "size")
_GONE = ".gone-"

log = logging.getLogger(__name__)


class UsageData(Value):
    """How much a volume holds, in bytes, and how many containers use it."""

    size: int
    ref_count: int


class Volume(Value):
    """A volume as `inspect` shows it and as it is persisted; `usage_data` only where it was asked for."""

    name: str
    created_at: str
    mountpoint: str
    driver: str = "local"
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    scope: str = "local"
    usage_data: UsageData | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Pruned:
    """The names of the volumes that went, and the bytes freed."""

    deleted: tuple[str, ...]
    reclaimed: int


class Volumes:
    """The volumes under `root` (data_root/volumes)."""

    def __init__(self, root: Path, rows: Table[Volume], events: Events) -> None:
        self._root = root.resolve()  # as the mount table knows it
        self._table = rows
        self._events = events
        self._volumes: dict[str, Volume] = {}
        self._mounting = asyncio.Lock()
        self._users: defaultdict[str, set[str]] = defaultdict(set)  # volume -> containers
        self._mounted: defaultdict[str, set[str]] = defaultdict(set)  # volume -> containers that run with it
        self._to_fill: Counter[str] = Counter()  # volume -> containers new to it, each of which may fill it once

    async def load(self) -> None:
        """Read the rows, and compare them with the directories: at start, before anything else."""
        self._volumes = await self._table.all()
        found = await in_thread(self._sweep)
        for name in self._volumes.keys() - found.keys():
            log.warning("volume %s is gone from %s", name, self._root)
            del self._volumes[name]
            await self._table.delete(name)
        for name in found.keys() - self._volumes.keys():
            log.warning("volume %s had no row; taken in as it is", name)
            self._volumes[name] = Volume(name=name, created_at=_rfc3339(found[name]), mountpoint="")
            await self._table.put(name, self._volumes[name])
        for name, volume in self._volumes.items():
            volume.mountpoint = str(self._data(name))

    def adopt(self, container_id: str, names: Collection[str], *, running: bool) -> None:
        """After a restart: `container_id` uses the volumes `names`, and has them mounted if it is `running`."""
        for name in names:
            self._users[name].add(container_id)
            if running:
                self._mounted[name].add(container_id)
            else:
                self._to_fill[name] += 1  # it may never have been started

    def exists(self, name: str) -> bool:
        """Whether there is a volume of that name."""
        return name in self._volumes

    def get(self, name: str) -> Volume:
        """The volume; `NotFound`."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    async def usage(self) -> list[Volume]:
        """Every volume with its `usage_data`."""
        sizes = {name: await in_thread(self._size, name) for name in sorted(self._volumes)}
        return [
            msgspec.structs.replace(
                self._volumes[name], usage_data=UsageData(size=size, ref_count=len(self._users.get(name, ())))
            )
            for name, size in sizes.items()
            if name in self._volumes
        ]

    def list(self, filters: Filters) -> list[Volume]:
        """Those that match `name`, `driver`, `label`, `dangling`; by name."""
        check_keys(filters, ("dangling", "driver", "label", "name"))
        dangling = boolean(filters, "dangling")
        return [
            volume
            for name, volume in sorted(self._volumes.items())
            if matches_pattern(filters, "name", name)
            and matches_exactly(filters, "driver", volume.driver)
            and matches_labels(filters, volume.labels)
            and dangling in (None, not self._users.get(name))
        ]

    async def create(
        self,
        name: str | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        anonymous: bool = False,
    ) -> Volume:
        """Make a volume; the one of that name if there is one. Without a name it is anonymous and gets one."""
        anonymous = anonymous or not name
        name = name or secrets.token_hex(32)
        check_name(name)
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        if (known := self._volumes.get(name)) is not None:
            return known
        check_options(name, options or {})
        volume = self._volumes[name] = Volume(
            name=name,
            created_at=_rfc3339(time.time()),
            mountpoint=str(self._data(name)),
            labels=({ANONYMOUS: ""} if anonymous else {}) | dict(labels or {}) or None,
            options=dict(options or {}) or None,
        )
        try:
            with _attempt(f"create {name}"):
                await in_thread(self._make_directory, name)
            await self._table.put(name, volume)
        except BaseException:
            del self._volumes[name]
            raise
        self._events.publish("volume", "create", name, {"driver": volume.driver})
        return volume

    async def remove(self, name: str, force: bool = False) -> int:
        """Remove a volume and return the bytes freed; `Conflict` while a container uses it.

        With `force`, one that does not exist is no error.
        """
        if force and name not in self._volumes:
            return 0
        volume = self.get(name)
        if users := self._users.get(name):
            raise Conflict(
                f"remove {name}: volume is in use - [{' '.join(sorted(users))}]", "remove its containers first"
            )
        del self._volumes[name]
        try:
            with _attempt(f"remove {name}"):
                size = await in_thread(self._remove_directory, name)
            await self._table.delete(name)
        except BaseException:
            self._volumes[name] = volume
            raise
        self._events.publish("volume", "destroy", name, {"driver": volume.driver})
        return size

    def prunable(self, filters: Filters, gone: Collection[str] = ()) -> tuple[Volume, ...]:
        """The anonymous volumes (with `all`, any) that no container but those of `gone` uses and that match `label`."""
        check_keys(filters, ("all", "label", "label!"))
        everything = boolean(filters, "all") or False
        return tuple(
            volume
            for volume in self._volumes.values()
            if (everything or ANONYMOUS in (volume.labels or {}))
            and not self._users.get(volume.name, set()).difference(gone)
            and matches_labels(filters, volume.labels)
        )

    async def prune(self, filters: Filters) -> Pruned:
        """Remove what is `prunable`."""
        deleted, reclaimed = [], 0
        for volume in self.prunable(filters):
            with suppress(Conflict, NotFound):  # taken into use, or removed, meanwhile
                reclaimed += await self.remove(volume.name)
                deleted.append(volume.name)
        self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(tuple(deleted), reclaimed)

    async def mount_for(self, container_id: str, name: str) -> Path:
        """The directory to mount into the container, which uses the volume from now on. Idempotent."""
        volume = self.get(name)
        if container_id not in self._users[name]:
            self._to_fill[name] += 1
        self._users[name].add(container_id)
        self._mounted[name].add(container_id)
        if volume.options:
            async with self._mounting:
                await in_thread(self._mount, volume)
        return self._data(name)

    @asynccontextmanager
    async def reading(self, name: str) -> AsyncIterator[Path]:
        """Where a volume's files are, mounted and kept from being removed for the length of a block."""
        reader = f"reader-{secrets.token_hex(8)}"
        try:
            path = await self.mount_for(reader, name)
            self._to_fill[name] -= 1  # whoever only reads fills nothing
            yield path
        finally:
            await self.release(reader)

    @asynccontextmanager
    async def making(self, name: str, labels: Mapping[str, str] | None) -> AsyncIterator[Path]:
        """A directory to fill in a block: when that ends well it becomes the volume `name`, and else it goes."""
        check_name(name)
        self._refuse_taken(name)
        aside = self._root / f"{_GONE}{secrets.token_hex(8)}"
        try:
            with _attempt(f"create {name}"):
                data = await in_thread(_make_aside, aside)
            yield data
            self._refuse_taken(name)
            with _attempt(f"create {name}"):
                aside.rename(self._root / name)  # on the loop: nobody can take the name meanwhile
            volume = self._volumes[name] = Volume(
                name=name,
                created_at=_rfc3339(time.time()),
                mountpoint=str(self._data(name)),
                labels=dict(labels or {}) or None,
            )
            await self._table.put(name, volume)
        finally:
            await in_thread(trees.remove_tree, aside)
        self._events.publish("volume", "create", name, {"driver": volume.driver})

    def _refuse_taken(self, name: str) -> None:
        if name in self._volumes:
            raise Conflict(f"create {name}: a volume of that name exists", "remove it first, or choose another name")

    async def rename(self, name: str, new: str) -> Volume:
        """Give a volume another name. NotFound; Conflict while a container uses it, or where the name is taken.

        The new row is written first: of the two, the one without a directory goes at the next start.
        """
        check_name(new)
        volume = self._free_volume(name, new)
        renamed = msgspec.structs.replace(volume, name=new, mountpoint=str(self._data(new)))
        await self._table.put(new, renamed)
        try:
            self._free_volume(name, new)
            with _attempt(f"rename {name}"):
                (self._root / name).rename(self._root / new)  # on the loop, as above
        except HavreError:
            if new not in self._volumes:
                await self._table.delete(new)
            raise
        del self._volumes[name]
        self._volumes[new] = renamed
        await self._table.delete(name)
        self._events.publish("volume", "rename", new, {"driver": volume.driver, "oldName": name})
        return renamed

    def _free_volume(self, name: str, new: str) -> Volume:
        volume = self.get(name)
        if users := self._users.get(name):
            raise Conflict(
                f"rename {name}: volume is in use - [{' '.join(sorted(users))}]", "remove its containers first"
            )
        self._refuse_taken(new)
        return volume

    async def unmounted(self, container_id: str) -> None:
        """The container has stopped: it still uses its volumes, but has none mounted. Idempotent."""
        for name in [name for name, users in self._users.items() if container_id in users]:
            self._mounted[name].discard(container_id)
            if (volume := self._volumes.get(name)) is None or not volume.options:
                continue
            async with self._mounting:
                if not self._mounted[name]:
                    with _attempt(f"unmounting volume {name}"):
                        await in_thread(mounts.unmount_all, self._data(name))

    async def release(self, container_id: str) -> None:
        """The container is gone: it uses no volume any more. Idempotent."""
        await self.unmounted(container_id)
        for name in [name for name, users in self._users.items() if container_id in users]:
            self._users[name].discard(container_id)
            if not self._users[name]:
                del self._users[name]
                self._mounted.pop(name, None)
                self._to_fill.pop(name, None)

    async def fill(self, name: str, rootfs: Path, path: str) -> None:
        """Copy what the image mounted at `rootfs` has at `path` into the volume, if that is empty.

        Once for each container that uses it: a volume that was emptied later stays so, however often they start.
        Owner, mode, times and attributes come along, those of the directory itself too. `path` is resolved inside
        `rootfs`, whatever links the image holds. Nothing happens where the image has nothing there; `Failed` where it
        has no directory. The copy is made aside and put in place at once, unless another container is looking already.
        """
        if self._to_fill[name] <= 0:
            return
        self._to_fill[name] -= 1
        data, aside = self._data(name), self._root / name / "_data.new"
        with _attempt(f"failed to populate volume {name}"):
            if not await in_thread(_is_empty, data):
                return
            if self._volumes[name].options:
                await in_thread(_copy_from_image, rootfs, path, data)
                return
            try:
                if not await in_thread(_copy_from_image, rootfs, path, aside):
                    return
                if len(self._mounted.get(name, ())) <= 1:
                    aside.rename(data)  # on the loop: nobody can begin to use the old directory meanwhile
                else:
                    await in_thread(_copy_from_image, aside, "/", data)
            finally:
                await in_thread(trees.remove_tree, aside)

    def _data(self, name: str) -> Path:
        return self._root / name / "_data"

    def _sweep(self) -> dict[str, float]:
        """Finish removals, undo what was half made; the names of what is there, and when it was made."""
        self._root.mkdir(mode=0o700, exist_ok=True)
        found = {}
        for directory in self._root.iterdir():
            if directory.name.startswith(_GONE):
                trees.remove_tree(directory)
            elif (directory / "_data").is_dir():
                trees.remove_tree(directory / "_data.new")
                found[directory.name] = directory.stat().st_mtime
            elif directory.is_dir() and {entry.name for entry in directory.iterdir()} <= {"_data.new"}:
                trees.remove_tree(directory)  # the daemon was killed while it made this one
        return found

    def _make_directory(self, name: str) -> None:
        (self._root / name).mkdir(mode=0o700, exist_ok=True)
        data = self._data(name)
        data.mkdir(exist_ok=True)
        data.chmod(0o755)

    def _remove_directory(self, name: str) -> int:
        """Unmount, measure, remove. A mount that something holds on to stops it before any file is touched."""
        mounts.unmount_all(self._data(name))
        size = self._size(name)
        gone = self._root / f"{_GONE}{name}"
        with suppress(FileNotFoundError):
            (self._root / name).rename(gone)
        trees.remove_tree(gone)
        return size

    def _size(self, name: str) -> int:
        try:
            return trees.tree_size(self._data(name))
        except FileNotFoundError:
            return 0

    def _mount(self, volume: Volume) -> None:
        """Mount what the volume's options say, unless it is."""
        target = self._data(volume.name)
        if any(entry.target == target for entry in mounts.mounts_below(target)):
            return
        given = volume.options or {}
        fstype, device, options = given.get("type", ""), given.get("device", ""), given.get("o", "")
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


def check_name(name: str) -> None:
    """Refuse what Docker refuses as the name of a volume."""
    if len(name) == 1:
        raise InvalidInput(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if _NAME.fullmatch(name) is None or len(name) > _NAME_MAX:
        raise InvalidInput(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Refuse options that driver `local` does not know or that lack their companions."""
    for key in options:
        if key not in _OPTIONS:
            raise InvalidInput(f'create {name}: invalid option: "{key}"', f"known: {', '.join(_OPTIONS)}")
    if "size" in options:
        raise InvalidInput(f"create {name}: quota size requested but no quota support")
    for key in ("device", "type"):
        if options and not options.get(key):
            raise InvalidInput(f'create {name}: missing required option: "{key}"')


def _resolve_address(options: str, problem: str) -> str:
    """The kernel wants an IP address in `addr=`; a name is looked up here."""
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


def _make_aside(directory: Path) -> Path:
    directory.mkdir(mode=0o700)
    data = directory / "_data"
    data.mkdir()
    data.chmod(0o755)
    return data


def _is_empty(directory: Path) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _copy_from_image(rootfs: Path, path: str, target: Path) -> bool:
    """Copy the directory `path` of the image to `target`; tells whether there was one."""
    try:
        source = open_in_root(rootfs, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return False
        raise
    try:
        if not stat.S_ISDIR(os.fstat(source).st_mode):
            raise Failed(f"source {rootfs / path.lstrip('/')} is not directory", "mount the volume at a directory")
        target.mkdir(mode=0o700, exist_ok=True)
        destination = trees.open_directory(target)
        try:
            trees.copy_tree(source, destination)
        finally:
            os.close(destination)
    finally:
        os.close(source)
    return True


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@contextmanager
def _attempt(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "free some space and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise Failed(f"{what}: {error}", hint) from error
