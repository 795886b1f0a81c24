"""Volumes of plugins, by Docker's volume plugin protocol.

    Create(Name, Opts) -> Mount(Name, ID) -> Unmount(Name, ID) -> Remove(Name)          Get, List

ID is the container's, so that a restarted daemon unmounts with the same one. A mount is recorded before Mount is
called and deleted after Unmount. If a container ends while the daemon or the plugin is down, Unmount is called at
the next start, or retried with growing pauses until the plugin responds. A plugin's failure never fails the end of a
container.

Source: Docker's volume plugin protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import msgspec

from havre.aio import spawn
from havre.errors import Failed, HavreError, InvalidInput, NotFound
from havre.golang import gojson
from havre.plugins import Plugin, Plugins
from havre.volumes.spec import Volume

KIND = "VolumeDriver"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0

T = TypeVar("T")
log = logging.getLogger(__name__)


class PluginMount(msgspec.Struct, frozen=True):
    """A mount requested from a plugin for `user` and not yet unmounted."""

    volume: str
    driver: str
    user: str

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"{self.user}/{self.volume}"


class _Shown(msgspec.Struct, rename="pascal"):
    """A volume as described by its plugin."""

    name: str = ""
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] = {}


class _Capabilities(msgspec.Struct, rename="pascal"):
    scope: str = ""


class _Answer(msgspec.Struct, rename="pascal"):
    """The response to any call; absent fields have Go's zero values."""

    mountpoint: str = ""
    volume: _Shown | None = None
    volumes: list[_Shown] = []
    capabilities: _Capabilities = msgspec.field(default_factory=_Capabilities)


class MountRows(Protocol):
    """A table of `PluginMount` by key (storage's `Table`)."""

    async def all(self) -> dict[str, PluginMount]: ...
    async def put(self, key: str, value: PluginMount) -> None: ...
    async def delete(self, key: str) -> None: ...


class PluginVolumes:
    """The volumes of all plugins."""

    def __init__(self, plugins: Plugins, rows: MountRows) -> None:
        self._plugins = plugins
        self._rows = rows
        self._mounted: dict[str, PluginMount] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by key: one call at a time
        self._owed: dict[str, PluginMount] = {}  # unneeded mounts that the plugin failed to unmount
        self._trying: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read the mounts recorded by earlier daemons."""
        self._mounted = await self._rows.all()

    def drivers(self) -> list[str]:
        """The plugins that have been used."""
        return self._plugins.implementing(KIND)

    async def create(self, volume: Volume) -> bool:
        """Create the volume at its plugin unless it exists there.

        Returns whether it was created. NotFound: no such plugin.
        """
        try:
            plugin = await self._plugins.get(volume.driver, KIND)
        except NotFound as error:
            what = f"create {volume.name}: error looking up volume plugin {volume.driver}: {error.message}"
            raise NotFound(what, error.hint) from error
        if await _get(plugin, volume.name) is not None:
            return False
        await _ask(plugin, f"create {volume.name}", "Create", {"Name": volume.name, "Opts": volume.options})
        return True

    async def remove(self, volume: Volume) -> None:
        """Remove the volume at its plugin, if it exists there."""
        plugin = await self._plugin(volume, f"remove {volume.name}")
        if await _get(plugin, volume.name) is not None:
            await _ask(plugin, f"remove {volume.name}", "Remove", {"Name": volume.name})

    async def look(self, volume: Volume) -> Volume | None:
        """The volume with the plugin's current data; None if the plugin has no such volume."""
        plugin = await self._plugin(volume, f"get {volume.name}")
        shown = await _get(plugin, volume.name)
        return None if shown is None else _merged(volume, shown, await _scope(plugin))

    async def find(self, name: str) -> Volume | None:
        """A volume that a plugin has under this name, though it was not created through the engine."""

        async def asked(driver: str) -> Volume | None:
            plugin = await self._plugins.get(driver, KIND, passing=True)
            shown = await _get(plugin, name, passing=True)
            return None if shown is None else _merged(_foreign(driver, name), shown, await _scope(plugin))

        found, _ = await self._of_every_plugin(asked)
        return next((volume for volume in found if volume is not None), None)

    async def all(self, known: Mapping[str, Volume]) -> tuple[list[Volume], list[str]]:
        """All volumes of all plugins, with the labels of those in `known`; and warnings for plugins that failed to
        respond."""

        async def asked(driver: str) -> list[Volume]:
            plugin = await self._plugins.get(driver, KIND, passing=True)
            answer = _read(await plugin.call(f"{KIND}.List", {}, passing=True))
            scope = await _scope(plugin)
            own = {name: volume for name, volume in known.items() if volume.driver == driver}
            return [
                _merged(own.get(name) or _foreign(driver, name), row, scope)
                for row in answer.volumes
                if (name := row.name) and (name in own or name not in known)
            ]

        found, problems = await self._of_every_plugin(asked)
        return [volume for volumes in found for volume in volumes], problems

    async def mount(self, volume: Volume, user: str) -> Path:
        """Mount the volume for `user`. Returns the plugin's mount point."""
        problem = f"error while mounting volume '{volume.name}'"
        mount = PluginMount(volume.name, volume.driver, user)
        async with self._turn(mount):
            plugin = await self._plugin(volume, problem)
            was_mounted = mount.key in self._mounted
            await self._rows.put(mount.key, mount)
            self._mounted[mount.key] = mount
            self._owed.pop(mount.key, None)
            try:
                answer = _read(await _ask(plugin, problem, "Mount", {"Name": volume.name, "ID": user}))
            except (Failed, NotFound):
                if not was_mounted:  # it said no; one that said nothing may have mounted it
                    await self._forget(mount)
                raise
        path = answer.mountpoint
        if not path.startswith("/"):
            raise Failed(f"{problem}: {KIND}.Mount: the plugin returned no mount point: '{path}'")
        return Path(path)

    async def unmount(self, name: str, user: str, unless: Callable[[str, str], bool] | None = None) -> None:
        """Unmount the volume of `user`, except if `unless` says that it is needed again once the lock is held.

        A failure is logged and retried until the plugin responds.
        """
        mount = self._mounted.get(f"{user}/{name}")
        if mount is None:
            return
        async with self._turn(mount):
            if mount.key not in self._mounted or (unless is not None and unless(user, name)):
                return
            try:
                await self._end(mount)
            except HavreError as error:
                log.warning("unmounting volume %s for %s: %s", name, user, error)
                self._owed[mount.key] = mount
                if self._trying is None or self._trying.done():
                    self._trying = spawn(self._make_good(), "unmount volumes of plugins")

    async def _end(self, mount: PluginMount) -> None:
        plugin = await self._plugins.get(mount.driver, KIND)
        await plugin.call(f"{KIND}.Unmount", {"Name": mount.volume, "ID": mount.user}, retry=False)
        await self._forget(mount)

    async def _forget(self, mount: PluginMount) -> None:
        await self._rows.delete(mount.key)
        self._mounted.pop(mount.key, None)
        self._owed.pop(mount.key, None)

    async def _make_good(self) -> None:
        """Retry failed unmounts, except of volumes that were mounted again."""
        pause_s = _FIRST_PAUSE_S
        while self._owed:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            for mount in list(self._owed.values()):
                async with self._turn(mount):
                    if mount.key in self._owed:
                        with suppress(HavreError):
                            await self._end(mount)

    def settle(self, running: Callable[[str, str], bool]) -> None:
        """At a start: unmount, in the background, the volumes of users that are not `running` with them."""
        for mount in list(self._mounted.values()):
            if not running(mount.user, mount.volume):
                spawn(self.unmount(mount.volume, mount.user, running), f"unmount volume {mount.volume}")

    def _turn(self, mount: PluginMount) -> asyncio.Lock:
        return self._turns.setdefault(mount.key, asyncio.Lock())

    async def _plugin(self, volume: Volume, attempted: str) -> Plugin:
        try:
            return await self._plugins.get(volume.driver, KIND)
        except HavreError as error:
            raise type(error)(f"{attempted}: {error.message}", error.hint) from error

    async def _of_every_plugin(self, ask: Callable[[str], Coroutine[Any, Any, T]]) -> tuple[Sequence[T], list[str]]:
        """The responses of all volume plugins, asked in parallel, and the errors of those that failed."""
        names = await self._plugins.names()
        outcomes = await asyncio.gather(*(ask(name) for name in names), return_exceptions=True)
        answers: list[T] = []
        problems: list[str] = []
        for outcome in outcomes:
            if isinstance(outcome, NotFound):  # a plugin of another kind, or one that has just been removed
                continue
            if isinstance(outcome, HavreError):
                problems.append(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                answers.append(outcome)
        return answers, problems


def _read(answer: Mapping[str, Any]) -> _Answer:
    try:
        return gojson.convert(answer, _Answer, "the plugin's answer")
    except InvalidInput as error:
        raise Failed(error.message) from error


async def _ask(plugin: Plugin, attempted: str, verb: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return await plugin.call(f"{KIND}.{verb}", asked)
    except HavreError as error:
        raise type(error)(f"{attempted}: {error.message}", error.hint) from error


async def _get(plugin: Plugin, name: str, *, passing: bool = False) -> _Shown | None:
    """The plugin's data on a volume; None if absent. The protocol has no error codes: any `Err` counts as absent."""
    try:
        return _read(await plugin.call(f"{KIND}.Get", {"Name": name}, passing=passing)).volume
    except (Failed, NotFound):
        return None


async def _scope(plugin: Plugin) -> str:
    """The scope of the plugin's volumes: "local" (this host, the default) or "global"."""
    try:
        scope = _read(await plugin.call(f"{KIND}.Capabilities", {}, passing=True)).capabilities.scope.lower()
    except HavreError:
        return "local"
    return scope if scope in ("local", "global") else "local"


def _foreign(driver: str, name: str) -> Volume:
    return Volume(name=name, created_at="", mountpoint="", driver=driver)


def _merged(volume: Volume, shown: _Shown, scope: str) -> Volume:
    return msgspec.structs.replace(
        volume,
        mountpoint=shown.mountpoint,
        created_at=shown.created_at or volume.created_at,
        scope=scope,
        status=shown.status or msgspec.UNSET,
    )
