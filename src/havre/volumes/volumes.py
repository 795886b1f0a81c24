"""Volumes: what outlives containers, kept by driver `local` or by a plugin.

A container *uses* a volume from its creation to its removal, which keeps the volume from being removed, and has it
*mounted* from start to stop, which matters to volumes with options and to plugins alone:

    create --> use --> mount_for --> unmounted --> mount_for --> unmounted --> release
              (used)   (mounted)     (used)        (mounted)     (used)        (free)

A volume that a plugin has and the engine did not make is found by its name and listed, as with Docker; it gets a row
once a container uses it, or `create` names it.
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
    """All volumes: rows, users, and the drivers that keep the files."""

    def __init__(self, local: LocalVolumes, plugged: PluginVolumes, rows: Table[Volume], events: Events) -> None:
        self._local = local
        self._plugged = plugged
        self._table = rows
        self._events = events
        self._volumes: dict[str, Volume] = {}
        self._users: defaultdict[str, set[str]] = defaultdict(set)  # volume -> containers
        self._mounted: defaultdict[str, set[str]] = defaultdict(set)  # volume -> containers that run with it
        self._places: dict[str, Path] = {}  # plugin's volume -> where it was mounted last
        self._to_fill: Counter[str] = Counter()  # volume -> containers new to it, each of which may fill it once
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # a name is made or removed by one

    async def load(self) -> None:
        """Read the rows, and compare those of driver `local` with the directories: at start, before anything else."""
        self._volumes = await self._table.all()
        for name, value in self._table.damaged.items():
            fields = {"created_at": rfc3339(), "mountpoint": "", **readable_fields(value, Volume), "name": name}
            self._volumes[name] = Volume(**fields)
            log.warning("volume %s has what could be read of its row: %s", name, ", ".join(sorted(fields)))
        await self._plugged.load()
        found, renames = await in_thread(self._local.sweep)
        for new, old in renames.items():
            if old not in found:  # else that name is another volume's by now
                await self._follow_rename(old, new)
            self._local.renamed(new)
        for name in {name for name, volume in self._volumes.items() if volume.driver == LOCAL} - found.keys():
            log.warning("volume %s is gone from %s", name, self._local.root)
            del self._volumes[name]
            await self._table.delete(name)
        for name in found.keys() - self._volumes.keys():
            log.warning("volume %s had no row; taken in as it is", name)
            self._volumes[name] = Volume(name=name, created_at=rfc3339(found[name]), mountpoint="")
            try:
                await self._table.put(name, self._volumes[name])
            except HavreError as error:
                log.error("volume %s is not recorded: %s", name, error)
        for name, volume in self._volumes.items():
            volume.mountpoint = str(self._local.data(name)) if volume.driver == LOCAL else ""

    async def _follow_rename(self, old: str, new: str) -> None:
        """The row of a volume whose directory has its new name already."""
        if (before := self._volumes.pop(old, None)) is not None:
            self._volumes[new] = msgspec.structs.replace(before, name=new)
            await self._table.put(new, self._volumes[new])
            await self._table.delete(old)

    def adopt(self, container_id: str, names: Collection[str], *, running: bool) -> None:
        """After a restart: `container_id` uses the volumes `names`, and has them mounted if it is `running`."""
        for name in names:
            self._users[name].add(container_id)
            if running:
                self._mounted[name].add(container_id)
            else:
                self._to_fill[name] += 1  # it may never have been started

    def adopted(self) -> None:
        """After a restart, when every container was adopted: what plugins have mounted for nobody is unmounted."""
        self._plugged.settle(lambda user, name: user in self._mounted.get(name, ()))

    def drivers(self) -> list[str]:
        """Those that are, or were, in use."""
        others = {volume.driver for volume in self._volumes.values()} | set(self._plugged.drivers())
        return [LOCAL, *sorted(others - {LOCAL})]

    def get(self, name: str) -> Volume:
        """The volume as its row says; `NotFound`."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    async def inspect(self, name: str) -> Volume:
        """The volume, one of a plugin's with what that says of it now; `NotFound`, `Unavailable`."""
        volume = self._volumes.get(name)
        if volume is not None and volume.driver == LOCAL:
            return volume
        found = await (self._plugged.find(name) if volume is None else self._plugged.look(volume))
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    async def usage(self) -> list[Volume]:
        """Every volume of driver `local` with its `usage_data`: what plugins keep is not on this disk."""
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
        """Those that match `name`, `driver`, `label`, `dangling`, by name; and warnings of plugins that are silent."""
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
        """A volume, and whether it was made; the one of that name if there is one. Without a name it is anonymous.

        Conflict where another driver has the name; NotFound for an unknown driver; Unavailable for a silent one.
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
        """Nothing stays of a volume that could not be made, or not be recorded."""
        if volume.driver == LOCAL:
            await in_thread(self._local.take_back, volume.name)
        elif made:
            with suppress(HavreError):  # the plugin may not even have it
                await self._plugged.remove(volume)

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    async def _known(self, name: str, driver: str, anonymous: bool) -> Volume | None:
        """The volume of that name, here or at a plugin; a row whose plugin has lost the volume is dropped."""
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

        With `force`, one that does not exist is no error, and one whose plugin fails is forgotten.
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
            log.warning("volume %s is forgotten, whatever its plugin still has: %s", volume.name, error)
        return 0

    def prunable(self, filters: Filters, gone: Collection[str] = ()) -> tuple[Volume, ...]:
        """The anonymous volumes (with `all`, any) that no container but those of `gone` uses and that match `label`.

        Those of plugins never are: they may be another host's, too.
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
        """Remove what is `prunable`."""
        deleted, reclaimed = [], 0
        for volume in self.prunable(filters):
            with suppress(Conflict, NotFound):  # taken into use, or removed, meanwhile
                reclaimed += await self.remove(volume.name)
                deleted.append(volume.name)
        self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(tuple(deleted), reclaimed)

    def use(self, container_id: str, name: str) -> str:
        """The container uses the volume from now on; where that will be mounted, "" if a plugin decides. Idempotent."""
        volume = self.get(name)
        if container_id not in self._users[name]:
            self._to_fill[name] += 1
        self._users[name].add(container_id)
        return volume.mountpoint

    async def mount_for(self, container_id: str, name: str) -> Path:
        """The directory to mount into the container, which uses the volume from now on. Idempotent."""
        self.use(container_id, name)
        volume = self.get(name)
        self._mounted[name].add(container_id)
        if volume.driver == LOCAL:
            return await self._local.mount(volume)
        place = self._places[name] = await self._plugged.mount(volume, container_id)
        return place

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
        """Give a volume another name. NotFound; Conflict while a container uses it, or where the name is taken.

        Its directory is renamed first, and marked: a start that finds it so brings the rows to it.
        """
        check_name(new)
        async with AsyncExitStack() as turns:
            for each in sorted({name, new}):  # always in one order
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
        """The container has stopped: it still uses its volumes, but has none mounted. Idempotent."""
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
        """The container is gone: it uses no volume any more. Idempotent."""
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
        """Copy what the image mounted at `rootfs` has at `path` into the volume, or its `part`, if that is empty.

        Once for each container that uses it: a volume that was emptied later stays so, however often they start.
        Owner, mode, times and attributes come along, those of the directory itself too. `path` is resolved inside
        `rootfs`, whatever links the image holds; it, and the part, are mounted for `ids`. Nothing happens where the
        image has nothing there; `Failed` where it has no directory.
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
