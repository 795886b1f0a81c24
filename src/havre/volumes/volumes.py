"""Volumes: data that outlives containers, stored by the driver `local` or by a plugin.

A container *uses* a volume from its creation to its removal, which prevents removal of the volume, and has it
*mounted* from start to stop, which matters only to volumes with options and to plugins:

    create --> use --> mount_for --> unmounted --> mount_for --> unmounted --> release
              (used)   (mounted)     (used)        (mounted)     (used)        (free)

As with dockerd, a volume that exists only at a plugin is found by name and listed; it gets a row once a container
uses it, or `create` names it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from havre.aio import in_thread
from havre.errors import Conflict, HavreError, InvalidInput, NotFound
from havre.events import Events
from havre.linux.idmap import IdRange
from havre.storage import Table
from havre.storage.salvage import readable_fields
from havre.volumes.local import LocalVolumes, fill_directory, fill_part
from havre.volumes.plugged import PluginVolumes
from havre.volumes.spec import (
    ANONYMOUS,
    LOCAL,
    Pruned,
    UsageData,
    Volume,
    attempt,
    check_driver,
    check_name,
    check_options,
    rfc3339,
)
from havre.wire.filters import Filters, boolean, check_keys, matches_exactly, matches_labels, matches_pattern

log = logging.getLogger(__name__)


class Volumes:
    """All volumes: rows, containers using them, and their drivers."""

    def __init__(self, local: LocalVolumes, plugged: PluginVolumes, rows: Table[Volume], events: Events) -> None:
        self._local = local
        self._plugged = plugged
        self._table = rows
        self._events = events
        self._volumes: dict[str, Volume] = {}
        self._users: defaultdict[str, set[str]] = defaultdict(set)  # volume -> containers
        self._mounted: defaultdict[str, set[str]] = defaultdict(set)  # volume -> running containers with it
        self._places: dict[str, Path] = {}  # plugin's volume -> its last mount point
        self._to_fill: Counter[str] = Counter()  # volume -> number of new containers, each of which may fill it once
        # serializes creation and removal by name
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Read the rows and compare those of the driver `local` with the directories. Called first, at start."""
        self._volumes = await self._table.all()
        for name, value in self._table.damaged.items():
            fields = {"created_at": rfc3339(), "mountpoint": "", **readable_fields(value, Volume), "name": name}
            self._volumes[name] = Volume(**fields)
            readable = ", ".join(sorted(fields))
            log.warning("the row of volume %s is damaged; these fields could be read: %s", name, readable)
        await self._plugged.load()
        found, renames = await in_thread(self._local.sweep)
        for new, old in renames.items():
            if old not in found:  # otherwise another volume has that name by now
                await self._follow_rename(old, new)
            self._local.renamed(new)
        for name in {name for name, volume in self._volumes.items() if volume.driver == LOCAL} - found.keys():
            log.warning("volume %s is missing in %s", name, self._local.root)
            del self._volumes[name]
            await self._table.delete(name)
        for name in found.keys() - self._volumes.keys():
            log.warning("volume %s had no row; it is added", name)
            self._volumes[name] = Volume(name=name, created_at=rfc3339(found[name]), mountpoint="")
            try:
                await self._table.put(name, self._volumes[name])
            except HavreError as error:
                log.error("volume %s is not recorded: %s", name, error)
        for name, volume in self._volumes.items():
            volume.mountpoint = str(self._local.data(name)) if volume.driver == LOCAL else ""

    async def _follow_rename(self, old: str, new: str) -> None:
        """Rename the row of a volume whose directory was renamed before a crash."""
        if (before := self._volumes.pop(old, None)) is not None:
            self._volumes[new] = msgspec.structs.replace(before, name=new)
            await self._table.put(new, self._volumes[new])
            await self._table.delete(old)

    def adopt(self, container_id: str, names: Collection[str], *, running: bool) -> None:
        """At a start: the container uses these volumes, and has them mounted if it is `running`."""
        for name in names:
            self._users[name].add(container_id)
            if running:
                self._mounted[name].add(container_id)
            else:
                self._to_fill[name] += 1  # it may never have been started

    def adopted(self) -> None:
        """At a start, after all containers were adopted: unmount plugins' volumes without a running container."""
        self._plugged.settle(lambda user, name: user in self._mounted.get(name, ()))

    def drivers(self) -> list[str]:
        """The drivers of all volumes, past and present."""
        others = {volume.driver for volume in self._volumes.values()} | set(self._plugged.drivers())
        return [LOCAL, *sorted(others - {LOCAL})]

    def get(self, name: str) -> Volume:
        """The volume as its row says. Raises `NotFound`."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    async def inspect(self, name: str) -> Volume:
        """The volume, with the current data of its plugin. `NotFound`, `Unavailable`."""
        volume = self._volumes.get(name)
        if volume is not None and volume.driver == LOCAL:
            return volume
        found = await (self._plugged.find(name) if volume is None else self._plugged.look(volume))
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    async def usage(self) -> list[Volume]:
        """All volumes of the driver `local` with their `usage_data`; plugins' volumes take no space here."""
        names = sorted(name for name, volume in self._volumes.items() if volume.driver == LOCAL)
        sizes = {name: await self._local.size(name) for name in names}
        return [
            msgspec.structs.replace(
                self._volumes[name], usage_data=UsageData(size=size, ref_count=len(self._users.get(name, ())))
            )
            for name, size in sizes.items()
            if name in self._volumes
        ]

    async def list(self, filters: Filters) -> tuple[list[Volume], list[str]]:
        """The volumes that match `name`, `driver`, `label`, `dangling`, by name; and warnings for plugins that do not
        respond."""
        check_keys(filters, ("dangling", "driver", "label", "name"))
        dangling = boolean(filters, "dangling")
        plugged, warnings = await self._plugged.all(self._volumes)
        seen = self._volumes | {volume.name: volume for volume in plugged}
        return [
            volume
            for name, volume in sorted(seen.items())
            if matches_pattern(filters, "name", name)
            and matches_exactly(filters, "driver", volume.driver)
            and matches_labels(filters, volume.labels)
            and dangling in (None, not self._users.get(name))
        ], warnings

    async def create(
        self,
        name: str | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        anonymous: bool = False,
    ) -> tuple[Volume, bool]:
        """Return a volume, and whether it was created or existed. Without a name it is anonymous.

        Conflict if another driver has the name; NotFound for an unknown driver; Unavailable if its plugin does not
        respond.
        """
        anonymous = anonymous or not name
        name = name or secrets.token_hex(32)
        async with self._turn(name):
            if (known := await self._known(name, driver, anonymous)) is not None:
                return known, False
            return await self._make(name, driver or LOCAL, options or {}, labels or {}, anonymous)

    async def _make(
        self, name: str, driver: str, options: Mapping[str, str], labels: Mapping[str, str], anonymous: bool
    ) -> tuple[Volume, bool]:
        if driver == LOCAL:
            check_name(name)
            check_options(name, options)
        volume = self._volumes[name] = Volume(
            name=name,
            created_at=rfc3339(),
            mountpoint=str(self._local.data(name)) if driver == LOCAL else "",
            driver=driver,
            labels=({ANONYMOUS: ""} if anonymous else {}) | dict(labels) or None,
            options=dict(options) or None,
        )
        made = False
        try:
            if driver == LOCAL:
                await self._local.create(name)
                made = True
            else:
                made = await self._plugged.create(volume)
            await self._table.put(name, volume)
        except BaseException:
            del self._volumes[name]
            await self._unmake(volume, made)
            raise
        if made:
            self._events.publish("volume", "create", name, {"driver": volume.driver})
        return volume, made

    async def _unmake(self, volume: Volume, made: bool) -> None:
        """Undo the creation of a volume that failed or could not be recorded."""
        if volume.driver == LOCAL:
            await in_thread(self._local.take_back, volume.name)
        elif made:
            with suppress(HavreError):  # the plugin may not have created it
                await self._plugged.remove(volume)

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    async def _known(self, name: str, driver: str, anonymous: bool) -> Volume | None:
        """The existing volume of that name, here or at a plugin.

        A row whose volume is missing at its plugin is deleted.
        """
        volume = self._volumes.get(name)
        if volume is None:
            volume = None if driver or anonymous else await self._plugged.find(name)
            if volume is not None:
                self._volumes[name] = msgspec.structs.replace(volume, mountpoint="", status=msgspec.UNSET)
                await self._table.put(name, self._volumes[name])
            return volume
        if volume.driver != LOCAL and not self._users.get(name) and await self._plugged.look(volume) is None:
            del self._volumes[name]
            await self._table.delete(name)
            return None
        check_driver(volume, driver)
        return volume

    async def remove(self, name: str, force: bool = False) -> int:
        """Remove a volume and return the bytes freed; `Conflict` while a container uses it.

        With `force`, a missing volume is no error, and the row is deleted even if the plugin fails.
        """
        async with self._turn(name):
            return await self._remove(name, force)

    async def _remove(self, name: str, force: bool) -> int:
        volume = self._volumes.get(name) or await self._plugged.find(name)
        if volume is None:
            if force:
                return 0
            raise NotFound(f"get {name}: no such volume")
        if users := self._users.get(name):
            raise Conflict(
                f"remove {name}: volume is in use - [{' '.join(sorted(users))}]", "remove its containers first"
            )
        self._volumes.pop(name, None)
        try:
            size = await self._remove_files(volume, force)
            await self._table.delete(name)
        except BaseException:
            self._volumes[name] = volume
            raise
        self._places.pop(name, None)
        self._events.publish("volume", "destroy", name, {"driver": volume.driver})
        return size

    async def _remove_files(self, volume: Volume, force: bool) -> int:
        if volume.driver == LOCAL:
            return await self._local.remove(volume.name)
        try:
            await self._plugged.remove(volume)
        except HavreError as error:
            if not force:
                raise
            log.warning("removed the row of volume %s although its plugin failed: %s", volume.name, error)
        return 0

    def prunable(self, filters: Filters, gone: Collection[str] = ()) -> tuple[Volume, ...]:
        """The volumes that match `label` and that no container, except those of `gone`, uses; anonymous ones unless
        `all`.

        Never volumes of plugins, which other hosts may use.
        """
        check_keys(filters, ("all", "label", "label!"))
        everything = boolean(filters, "all") or False
        return tuple(
            volume
            for volume in self._volumes.values()
            if volume.driver == LOCAL
            and (everything or ANONYMOUS in (volume.labels or {}))
            and not self._users.get(volume.name, set()).difference(gone)
            and matches_labels(filters, volume.labels)
        )

    async def prune(self, filters: Filters) -> Pruned:
        """Remove the `prunable` volumes."""
        deleted, reclaimed = [], 0
        for volume in self.prunable(filters):
            with suppress(Conflict, NotFound):  # used or removed meanwhile
                reclaimed += await self.remove(volume.name)
                deleted.append(volume.name)
        self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(tuple(deleted), reclaimed)

    def use(self, container_id: str, name: str) -> str:
        """Record that the container uses the volume. Returns its mount point, "" if a plugin decides. Idempotent."""
        volume = self.get(name)
        if container_id not in self._users[name]:
            self._to_fill[name] += 1
        self._users[name].add(container_id)
        return volume.mountpoint

    async def mount_for(self, container_id: str, name: str) -> Path:
        """Mount the volume for the container, which uses it from now on. Returns the directory. Idempotent."""
        self.use(container_id, name)
        volume = self.get(name)
        self._mounted[name].add(container_id)
        if volume.driver == LOCAL:
            return await self._local.mount(volume)
        place = self._places[name] = await self._plugged.mount(volume, container_id)
        return place

    @asynccontextmanager
    async def reading(self, name: str) -> AsyncIterator[Path]:
        """The directory of a volume's files, mounted and protected from removal during a block."""
        reader = f"reader-{secrets.token_hex(8)}"
        try:
            path = await self.mount_for(reader, name)
            self._to_fill[name] -= 1  # a reader does not fill the volume
            yield path
        finally:
            await self.release(reader)

    @asynccontextmanager
    async def making(self, name: str, labels: Mapping[str, str] | None) -> AsyncIterator[Path]:
        """Yield a directory to fill; it becomes the volume `name` at the end of the block, or is removed on failure."""
        check_name(name)
        self._refuse_taken(name)
        aside = await self._local.make_aside()
        try:
            yield aside / "_data"
            self._refuse_taken(name)
            self._local.put_in_place(aside, name)
            volume = self._volumes[name] = Volume(
                name=name,
                created_at=rfc3339(),
                mountpoint=str(self._local.data(name)),
                labels=dict(labels or {}) or None,
            )
            try:
                await in_thread(self._local.sync)
                await self._table.put(name, volume)
            except BaseException:
                del self._volumes[name]
                self._local.put_aside(name, aside)
                raise
        finally:
            await self._local.drop_aside(aside)
        self._events.publish("volume", "create", name, {"driver": volume.driver})

    def _refuse_taken(self, name: str) -> None:
        if name in self._volumes:
            raise Conflict(f"create {name}: a volume of that name exists", "remove it first, or choose another name")

    async def rename(self, name: str, new: str) -> Volume:
        """Rename a volume. NotFound; Conflict while a container uses it, or if the name is taken.

        The directory is renamed first, with a mark from which the next start updates the rows after a crash.
        """
        check_name(new)
        async with AsyncExitStack() as turns:
            for each in sorted({name, new}):  # in a fixed order, against deadlocks
                await turns.enter_async_context(self._turn(each))
            return await self._rename(name, new)

    async def _rename(self, name: str, new: str) -> Volume:
        volume = self._free_volume(name, new)
        renamed = msgspec.structs.replace(volume, name=new, mountpoint=str(self._local.data(new)))
        self._local.rename(name, new)
        self._volumes[new] = renamed
        del self._volumes[name]
        try:
            await in_thread(self._local.sync)
            await self._table.put(new, renamed)
        except HavreError:
            self._local.rename(new, name)
            self._local.renamed(name)
            self._volumes[name] = volume
            del self._volumes[new]
            raise
        await self._table.delete(name)
        self._local.renamed(new)
        self._events.publish("volume", "rename", new, {"driver": volume.driver, "oldName": name})
        return renamed

    def _free_volume(self, name: str, new: str) -> Volume:
        volume = self.get(name)
        if volume.driver != LOCAL:
            raise InvalidInput(f"rename {name}: volumes of driver {volume.driver} cannot be renamed", "clone it")
        if users := self._users.get(name):
            raise Conflict(
                f"rename {name}: volume is in use - [{' '.join(sorted(users))}]", "remove its containers first"
            )
        self._refuse_taken(new)
        return volume

    async def unmounted(self, container_id: str) -> None:
        """The container has stopped: unmount its volumes, which it still uses. Idempotent."""
        for name in [name for name, users in self._users.items() if container_id in users]:
            self._mounted[name].discard(container_id)
            volume = self._volumes.get(name)
            if volume is not None and volume.driver == LOCAL:
                await self._local.unmount(volume, partial(self._is_mounted, name))
            else:
                await self._plugged.unmount(name, container_id)

    def _is_mounted(self, name: str) -> bool:
        return bool(self._mounted.get(name))

    async def release(self, container_id: str) -> None:
        """The container was removed and uses no volumes. Idempotent."""
        await self.unmounted(container_id)
        for name in [name for name, users in self._users.items() if container_id in users]:
            self._users[name].discard(container_id)
            if not self._users[name]:
                del self._users[name]
                self._mounted.pop(name, None)
                self._to_fill.pop(name, None)

    async def fill(
        self, name: str, rootfs: Path, path: str, part: Path | None = None, ids: IdRange | None = None
    ) -> None:
        """Copy the directory `path` of the image mounted at `rootfs` into the volume, or its `part`, if that is empty.

        Done once for each container that uses the volume, so a volume emptied later stays empty. Owner, mode, times
        and extended attributes are copied, those of the directory itself included. `path` is resolved inside
        `rootfs`; it and the part are mounted for `ids`. Does nothing if the image has no such path; `Failed` if it
        is not a directory.
        """
        if self._to_fill[name] <= 0:
            return
        self._to_fill[name] -= 1
        volume = self.get(name)
        with attempt(f"failed to populate volume {name}"):
            if part is not None:
                await fill_part(rootfs, path, part, ids if volume.is_closed else None)
            elif volume.driver != LOCAL:
                await fill_directory(rootfs, path, self._places[name])
            else:
                shared = len(self._mounted.get(name, ())) > 1
                await self._local.fill(volume, rootfs, path, ids if volume.is_closed else None, shared=shared)
