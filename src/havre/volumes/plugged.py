"""Volumes of plugins, by Docker's volume plugin protocol: the plugin keeps them, the engine asks for each step.

    Create(Name, Opts) -> Mount(Name, ID) -> Unmount(Name, ID) -> Remove(Name)          Get, List: what is there?

ID is the container's, so that the daemon which is started next unmounts under the same one. What is mounted is written
down before the plugin is asked and struck out after it has unmounted: a container that ended while no daemon ran, or
while its plugin was dead, is unmounted at the next start, or when the plugin is back: what is owed is tried again, each
time after a longer pause. An end of a container never fails for its plugin's sake.

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
    """A volume that a plugin was told to mount for `user`, and not yet to unmount."""

    volume: str
    driver: str
    user: str

    @property
    def key(self) -> str:
        """Of its row."""
        return f"{self.user}/{self.volume}"


class _Shown(msgspec.Struct, rename="pascal"):
    """A volume in the words of its plugin."""

    name: str = ""
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] = {}


class _Capabilities(msgspec.Struct, rename="pascal"):
    scope: str = ""


class _Answer(msgspec.Struct, rename="pascal"):
    """The answer to any call; a plugin that leaves out what it should say has said nothing (Go's zero values)."""

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
        self._owed: dict[str, PluginMount] = {}  # mounts that are needed no more and that the plugin has not ended
        self._trying: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read what earlier daemons had mounted."""
        self._mounted = await self._rows.all()

    def drivers(self) -> list[str]:
        """The plugins that have been used."""
        return self._plugins.implementing(KIND)

    async def create(self, volume: Volume) -> bool:
        """Let the plugin make the volume, unless it has it; tells whether it was made. NotFound: no such plugin."""
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
        """Let the plugin remove the volume; one that it does not have is gone already."""
        plugin = await self._plugin(volume, f"remove {volume.name}")
        if await _get(plugin, volume.name) is not None:
            await _ask(plugin, f"remove {volume.name}", "Remove", {"Name": volume.name})

    async def look(self, volume: Volume) -> Volume | None:
        """The volume with what its plugin says of it now; None where it has none of that name."""
        plugin = await self._plugin(volume, f"get {volume.name}")
        shown = await _get(plugin, volume.name)
        return None if shown is None else _merged(volume, shown, await _scope(plugin))

    async def find(self, name: str) -> Volume | None:
        """A volume that some plugin has by this name, though the engine did not make it."""

        async def asked(driver: str) -> Volume | None:
            plugin = await self._plugins.get(driver, KIND, passing=True)
            shown = await _get(plugin, name, passing=True)
            return None if shown is None else _merged(_foreign(driver, name), shown, await _scope(plugin))

        found, _ = await self._of_every_plugin(asked)
        return next((volume for volume in found if volume is not None), None)

    async def all(self, known: Mapping[str, Volume]) -> tuple[list[Volume], list[str]]:
        """All volumes of all plugins, those `known` by name with their labels; and what could not be asked."""

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
        """Where the plugin has mounted the volume for `user`."""
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
            raise Failed(f"{problem}: {KIND}.Mount: the plugin names no mount point: '{path}'")
        return Path(path)

    async def unmount(self, name: str, user: str, unless: Callable[[str, str], bool] | None = None) -> None:
        """Let the plugin unmount what `user` had mounted, unless it is needed by the time that this can be done.

        A failure is logged, and made good as soon as the plugin can.
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
        """Try again what is owed; what has been mounted anew meanwhile is not."""
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
        """After a start: unmount, in the background, whatever is mounted for a user that is not `running` with it."""
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
        """The answers of all plugins that are volume drivers, asked at once; and what went wrong with the others."""
        names = await self._plugins.names()
        outcomes = await asyncio.gather(*(ask(name) for name in names), return_exceptions=True)
        answers: list[T] = []
        problems: list[str] = []
        for outcome in outcomes:
            if isinstance(outcome, NotFound):  # a plugin of another kind, or one that has just gone
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
    """What the plugin says of a volume; None where it says no. Its refusals have no code: any `Err` means absent."""
    try:
        return _read(await plugin.call(f"{KIND}.Get", {"Name": name}, passing=passing)).volume
    except (Failed, NotFound):
        return None


async def _scope(plugin: Plugin) -> str:
    """How far its volumes are seen: "local" (this host) or "global"; plugins need not say."""
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
