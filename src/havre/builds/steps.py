"""Executes one step: finds it in the cache, or runs it on a snapshot and makes a layer of the difference.

    action + layers below --> key --> Cache.find --> its layer
                               |                        RUN, ADD of archives --> what it changed ---.
                               +--> snapshot of the     COPY, ADD, WORKDIR ----> LayerPlan ---------+--> Layers.make
                                    layers                                                               Cache.keep

A step that fails or is cancelled leaves nothing behind: the snapshot is removed in all cases, and a layer is added
completely or not at all (`Layers.ingest`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import msgspec

from havre.aio import finish, in_thread, to_its_end
from havre.builds import copying, fetching
from havre.builds.cache import Cache, CacheRecord, key_of
from havre.builds.cacheexchange import ForeignCache
from havre.builds.copying import Chosen, Placement
from havre.builds.emulation import require_interpreter
from havre.builds.gitsource import GitAddress, clone, git_access, parse_git_address, shown_address
from havre.builds.layering import LayerPlan, plan_layer, resolve_target
from havre.builds.modes import parse_mode
from havre.builds.request import BuildRequest, ContextSource
from havre.builds.running import Output, Runner, RunPlace, Views
from havre.builds.trees import DirectoryTree
from havre.dockerfile.plan import Action, CopyAction, RunAction, WorkdirAction
from havre.errors import HavreError, InvalidInput, NotFound
from havre.linux import trees
from havre.linux.idmap import IdRange
from havre.linux.openat2 import resolve_in_root
from havre.oci.digest import Digest
from havre.runtime import resolve_user
from havre.storage import Storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """The result of a step. `layer` is None if no file changed; `created_at` is the time of its first execution."""

    layer: Digest | None
    created_at: float
    cached: bool
    key: str


Fresh: TypeAlias = dict[tuple[tuple[int, int], str], asyncio.Future[Made]]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The build that a step belongs to. `directory` is the build's own; `epoch` caps the times of all files.

    `hold` protects a layer from garbage collection until the build ends. `materials` collects the digests of what is
    fetched by address. `interpreter` is the one that programs of the platform need in the image. `at` is the step's
    position in the Dockerfile; `fresh` has steps done in this build without a cache, to share them between platforms.
    """

    request: BuildRequest
    client: ContextSource
    views: Views
    directory: Path
    hold: Callable[[Digest], None]
    materials: MutableMapping[str, str]
    caches: Sequence[ForeignCache] = ()
    use_cache: bool = True
    epoch: int | None = None
    interpreter: str = ""
    at: tuple[int, int] = (0, 0)
    fresh: Fresh = field(default_factory=dict)


class Steps:
    """Executes steps for all builds."""

    SEEN = 4096

    def __init__(self, storage: Storage, cache: Cache, runner: Runner) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._storage = storage
        self._cache = cache
        self._runner = runner
        self._downloads = fetching.Downloads()
        self._digests = copying.Digests()
        self._making: dict[str, asyncio.Future[None]] = {}

    async def apply(
        self, action: Action, below: Sequence[Digest], description: str, scope: Scope, output: Output
    ) -> Made:
        """The result of `action` on the layers `below`; the layer is held until the build ends."""
        if isinstance(action, CopyAction):
            return await self.copy(action, below, description, scope)
        if isinstance(action, RunAction):
            return await self._run(action, below, description, scope, output)
        return await self._workdir(action, below, description, scope)

    async def _run(
        self, action: RunAction, below: Sequence[Digest], description: str, scope: Scope, output: Output
    ) -> Made:
        request = scope.request
        shown = [mount for mount in action.mounts if mount.type == "bind"]
        seen = [await self._digest_of_bind(mount.from_, mount.source, scope) for mount in shown]
        devices = await self._runner.devices_of(action, request)
        public = msgspec.to_builtins(replace(action, proxies=()))
        extra = [devices] if public.pop("devices") else []  # steps without devices have the keys of older versions
        key = key_of("run", below, public, seen, request.network, request.extra_hosts, scope.epoch, *extra)

        ids = self._runner.ids

        async def work(place: RunPlace) -> None:
            if scope.interpreter:
                await in_thread(require_interpreter, place.rootfs, scope.interpreter)
            await self._runner.run(action, replace(place, devices=devices), request, scope.client, scope.views, output)

        return await self._once(key, description, scope, partial(self._make, key, below, description, scope, work, ids))

    async def _digest_of_bind(self, name: str, source: str, scope: Scope) -> str:
        tree = await scope.views.tree(name, source or ".")
        chosen = await in_thread(copying.choose, tree, [source or "."])
        return await in_thread(self._digests.of, chosen, Placement("/", into=True))

    async def copy(self, action: CopyAction, below: Sequence[Digest], description: str, scope: Scope) -> Made:
        """COPY or ADD. If the server of a URL confirms that it has not changed, it is not fetched again."""
        url = action.sources[0] if len(action.sources) == 1 and action.remote else ""
        if not fetching.is_url(url):
            return (await self._copied(action, below, description, scope))[0]
        known = await self._downloads.unchanged(url) if scope.use_cache else None
        if known is not None:
            key = _key_of_url(action, below, known, scope)
            if (made := await self._find(key, description, scope)) is not None:
                scope.materials[shown_address(url)] = known.digest
                return made
        made, key = await self._copied(action, below, description, scope)
        if (fetched := self._downloads.known(url)) is not None:
            await self._cache.also(key, _key_of_url(action, below, fetched, scope))
        return made

    async def _copied(
        self, action: CopyAction, below: Sequence[Digest], description: str, scope: Scope
    ) -> tuple[Made, str]:
        """The result, and its cache key by content."""
        async with AsyncExitStack() as stack:
            downloads = scope.directory / f"add-{secrets.token_hex(8)}"
            await in_thread(downloads.mkdir, 0o700)
            stack.push_async_callback(in_thread, trees.remove_tree, downloads)
            sources = await self._sources(action, downloads, scope)
            archives = await in_thread(_archives, action, sources)
            placement = Placement(
                action.target,
                action.into,
                owner=None if action.from_ else (0, 0),
                mode=parse_mode(action.chmod),
                parents=action.parents,
                excludes=action.excludes,
            )
            fields = msgspec.to_builtins(replace(action, sources=(), from_=""))
            names = [(each.name, each.shown if action.parents else "", each in archives) for each in sources]
            key = key_of(
                "copy", below, fields, names, await in_thread(self._digests.of, sources, placement), scope.epoch
            )

            apply = partial(_plan, action, sources, archives, placement)
            make = partial(self._lay, key, below, description, scope, apply)
            return await self._once(key, description, scope, make), key

    async def _sources(self, action: CopyAction, downloads: Path, scope: Scope) -> list[Chosen]:
        sources: list[Chosen] = []
        for number, source in enumerate(action.sources):
            if action.remote and (address := parse_git_address(source)) is not None:
                directory = downloads / str(number)
                cloned, commit = await _cloned(address, directory, action, scope.client)
                sources.append(cloned)
                scope.materials[shown_address(source)] = commit
                continue
            if action.remote and fetching.is_url(source):
                name = fetching.name_of(source) if action.into else "download"
                directory = downloads / str(number)
                await in_thread(directory.mkdir, 0o700)
                download = await fetching.fetch(source, directory, name, action.checksum)
                self._downloads.remember(source, download)
                scope.materials[shown_address(source)] = download.digest
                sources.append(Chosen(DirectoryTree(directory), name, name, source, False))
                continue
            if action.checksum:
                raise InvalidInput("checksum can't be specified for local sources")
            tree = await scope.views.tree(action.from_, source)
            try:
                sources += await in_thread(copying.choose, tree, [source])
            except NotFound as error:
                where = f"in {action.from_}" if action.from_ else "in the build context, or left out by .dockerignore"
                kind = "ADD" if action.remote else "COPY"
                raise NotFound(f"{kind} failed: {error.message} {where}") from error
        return sources

    async def _workdir(self, action: WorkdirAction, below: Sequence[Digest], description: str, scope: Scope) -> Made:
        key = key_of("workdir", below, action.path, scope.epoch)
        apply = partial(_plan_directory, action.path)
        return await self._once(key, description, scope, partial(self._lay, key, below, description, scope, apply))

    async def squash(self, below: Sequence[Digest], above: Sequence[Digest], scope: Scope) -> Made:
        """Merge the changes of the layers `above` to those `below` into one layer."""

        async def work(place: RunPlace) -> None:
            await self._storage.snapshots.merge(place.id, above)

        key = key_of("squash", below, list(above), scope.epoch)
        return await self._find(key, "squash", scope) or await self._make(key, below, "squash", scope, work)

    def seen(self, image: str) -> bool:
        """Report whether a step has resulted in this image before, as far as remembered; remembers it.

        The same ID means the same layers and history, including times: the step was not executed again.
        """
        known = image in self._seen
        self._seen[image] = None
        self._seen.move_to_end(image)
        while len(self._seen) > self.SEEN:
            self._seen.popitem(last=False)
        return known

    def forget(self) -> None:
        """Clear the remembered images."""
        self._seen.clear()

    # -- cache and layers

    async def _once(self, key: str, description: str, scope: Scope, make: Callable[[], Awaitable[Made]]) -> Made:
        """The cached result, or that of another build that is executing the step now; otherwise that of `make()`."""
        if not scope.use_cache:
            return await _once_in_a_build(key, scope, make)
        while (found := await self._find(key, description, scope)) is None and key in self._making:
            await asyncio.wait([self._making[key]])  # it may fail or be cancelled, so look again
        if found is not None:
            return found
        mine = asyncio.get_running_loop().create_future()
        self._making.setdefault(key, mine)
        try:
            return await make()
        finally:
            mine.set_result(None)
            if self._making.get(key) is mine:
                del self._making[key]

    async def _find(self, key: str, description: str, scope: Scope) -> Made | None:
        if not scope.use_cache:
            return None
        record = await self._cache.find(key) or await self._find_elsewhere(key, description, scope)
        if record is None:
            return None
        layer = Digest(record.layer) if record.layer else None
        if layer is not None:
            scope.hold(layer)
        return Made(layer, record.created_at, cached=True, key=key)

    async def _find_elsewhere(self, key: str, description: str, scope: Scope) -> CacheRecord | None:
        """Import a step's record from a foreign cache. Records whose layer cannot be fetched are skipped and logged."""
        for cache in scope.caches:
            if (known := cache.records.get(key)) is None:
                continue
            layer = Digest(known.layer) if known.layer else None
            try:
                if layer is not None:
                    scope.hold(layer)
                    await cache.bring(layer)
            except HavreError as error:
                log.warning("cannot fetch a layer of a build cache, executing the step: %s", error)
                continue
            return await self._cache.keep([key], layer, description, known.created_at)
        return None

    async def _make(
        self,
        key: str,
        below: Sequence[Digest],
        description: str,
        scope: Scope,
        work: Callable[[RunPlace], Awaitable[None]],
        ids: IdRange | None = None,
    ) -> Made:
        """Run `work` on a new snapshot of the layers, mounted for `ids`, and store the difference."""
        async with self._snapshot(below, scope, ids) as place:
            await work(place)
            return await self._keep(key, description, await self._difference(place, scope))

    async def _lay(
        self,
        key: str,
        below: Sequence[Digest],
        description: str,
        scope: Scope,
        plan: Callable[[Path], LayerPlan | None],
    ) -> Made:
        """Store the layer that `plan` makes over the files of the layers; for None, the difference of the snapshot."""
        async with self._snapshot(below, scope) as place:
            planned = await to_its_end(plan, place.rootfs)
            if planned is None:
                layer = await self._difference(place, scope)
            else:
                with closing(planned):
                    write = partial(planned.write, newest_s=scope.epoch)
                    layer = await self._storage.layers.make(write, scope.hold)
            return await self._keep(key, description, layer)

    @asynccontextmanager
    async def _snapshot(
        self, below: Sequence[Digest], scope: Scope, ids: IdRange | None = None
    ) -> AsyncIterator[RunPlace]:
        """A snapshot of the layers for the duration of the block."""
        id = secrets.token_hex(32)
        snapshots, files = self._storage.snapshots, scope.directory / id
        undo = AsyncExitStack()
        try:
            undo.push_async_callback(in_thread, trees.remove_tree, files)
            await in_thread(files.mkdir, 0o700)
            undo.push_async_callback(snapshots.remove, id)
            await snapshots.create(id, below)
            yield RunPlace(id=id, rootfs=await snapshots.mount(id, ids), files=files)
        finally:
            await finish(undo.aclose())

    async def _difference(self, place: RunPlace, scope: Scope) -> Digest | None:
        """The layer of a snapshot's changes; None if there are none."""
        pieces = cast(AsyncGenerator[bytes, None], self._storage.snapshots.diff_tar(place.id, scope.epoch))
        async with aclosing(pieces), self._storage.layers.ingest() as sink:
            empty = True
            async for piece in pieces:
                empty = empty and not any(piece)
                await sink.write(piece)
            if empty:
                return None
            layer = (await sink.finish()).diff_id
            scope.hold(layer)
            return layer

    async def _keep(self, key: str, description: str, layer: Digest | None) -> Made:
        record = await self._cache.keep([key], layer, description)
        return Made(layer, record.created_at, cached=False, key=key)


async def _once_in_a_build(key: str, scope: Scope, make: Callable[[], Awaitable[Made]]) -> Made:
    """The result of the same step for another platform, waiting for it if needed; otherwise that of `make()`."""
    known = scope.fresh.get((scope.at, key))
    if known is not None:
        return replace(await asyncio.shield(known), cached=True)
    mine = scope.fresh[scope.at, key] = asyncio.ensure_future(make())
    return await mine


async def _cloned(
    address: GitAddress, directory: Path, action: CopyAction, client: ContextSource
) -> tuple[Chosen, str]:
    """ADD of a git repository: its files as a directory, and the commit's digest.

    The checksum is the ID of the commit or a prefix of it.
    """
    await in_thread(directory.mkdir, 0o700)
    address = replace(address, checksum=action.checksum or address.checksum)
    root, commit = await clone(address, directory, await git_access(address, client), keep_git=action.keep_git)
    return Chosen(DirectoryTree(root), "", "", address.shown, True), commit


def _key_of_url(action: CopyAction, below: Sequence[Digest], download: fetching.Download, scope: Scope) -> str:
    fields = msgspec.to_builtins(action)
    return key_of("add", below, fields, download.digest, download.modified, scope.epoch)


def _archives(action: CopyAction, sources: Sequence[Chosen]) -> list[Chosen]:
    """The sources that ADD unpacks: local archives by default, archives of URLs only with --unpack."""
    if action.unpack is False:
        return []
    local = [each for each in sources if action.unpack or not fetching.is_url(each.shown)]
    return [each for each in local if copying.is_archive(each)]


def _plan(
    action: CopyAction, sources: Sequence[Chosen], archives: Sequence[Chosen], placement: Placement, rootfs: Path
) -> LayerPlan | None:
    """The layer of COPY or ADD. None if archives were extracted into `rootfs`: the layer is then the difference."""
    owner = _owner(rootfs, action.chown) if action.chown else None
    placement = replace(placement, owner=owner or placement.owner)
    plain = [each for each in sources if each not in archives]
    inline = [(each.name, each.text.encode(errors="surrogateescape")) for each in action.inline]
    if not archives:
        return plan_layer(rootfs, plain, inline, placement)
    with closing(_plan_directory(action.target, rootfs, owner or (0, 0))) as made:
        made.write_into(rootfs)
    target = resolve_target(rootfs, placement, many=False)[0]
    for each in archives:
        copying.extract_archive(rootfs, each, target, owner)
    if plain or inline:
        with closing(plan_layer(rootfs, plain, inline, placement)) as rest:
            rest.write_into(rootfs)
    return None


def _plan_directory(path: str, rootfs: Path, owner: tuple[int, int] = (0, 0)) -> LayerPlan:
    plan = LayerPlan(rootfs, owner)
    plan.make_directory(resolve_in_root(rootfs, path))
    return plan


def _owner(rootfs: Path, chown: str) -> tuple[int, int]:
    """UID and GID of `--chown=user[:group]`; a bare number is used for both."""
    user = resolve_user(rootfs, chown)
    return user.uid, user.uid if chown.isdecimal() else user.gid
