"""The builder: executes a Dockerfile's graph and creates an image.

    dockerfile --> graph --> Stages.run --> Images.create

All mounts, files and locks of a build are released when it ends, in any way; results of its steps remain in the cache.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import platform as host
import secrets
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from havre.aio import finish, in_thread, spawn
from havre.builds.cache import Cache, CacheRecord, plan_prune
from havre.builds.cachedocument import ARGUMENT, StepRecord, cache_document, with_records
from havre.builds.cacheexchange import ForeignCache, ForeignCaches
from havre.builds.cachemounts import CacheMounts
from havre.builds.checking import Base, Checks
from havre.builds.contexts import Contexts
from havre.builds.emulation import check_runs, find_interpreters
from havre.builds.entitlements import DEFAULT, NETWORK_HOST, check_grants, require
from havre.builds.gcpolicy import GcPolicy, GcRule, SpaceLimits
from havre.builds.history import History, HistoryLimits, Record, StoredDocument
from havre.builds.platforms import PlatformsProgress, SharedClient, side_by_side, split_platforms
from havre.builds.progress import BuildProgress, shown, unreported
from havre.builds.provenance import Facts, render_provenance
from havre.builds.request import MAIN_CONTEXT, BuildRequest, BuildResult, ContextSource, Provenance
from havre.builds.running import Remapping, Runner, Sandboxes
from havre.builds.stages import Job, Stages
from havre.builds.steps import Fresh, Steps
from havre.builds.uploads import dockerfile_places
from havre.builds.wanted import EVERYTHING, triggers_here, wanted_of
from havre.dockerfile.checks import CheckReport, LintViolation, policy_of
from havre.dockerfile.graph import SCRATCH, plan_graph
from havre.dockerfile.ignore import has_wildcards
from havre.dockerfile.outline import Report, list_targets, render_outline
from havre.dockerfile.syntax import DockerfileError, parse_dockerfile
from havre.errors import Conflict, HavreError
from havre.images.deletion import Prunable
from havre.images.documents import read_config
from havre.images.images import Images
from havre.linux import trees
from havre.oci.attestation import SPDX, Predicate
from havre.oci.digest import Digest
from havre.oci.image import decode_image
from havre.oci.platform import Platform, parse_platform, platform_of_machine
from havre.oci.reference import parse_reference
from havre.runtime import Runtime
from havre.runtime.plan import Profile
from havre.storage import Storage
from havre.wire.config import Ulimit
from havre.wire.filters import Filters

log = logging.getLogger(__name__)

_SBOM = "sbom"  # name in BuildKit's documents, because an image gets its names only later


@dataclasses.dataclass(frozen=True)
class _Built:
    """The result of a build for one platform, and the cache records of its steps by mode of the cache."""

    result: BuildResult
    steps: Mapping[str, Sequence[StepRecord]]


class Builder:
    """All builds of the daemon, and their cache."""

    def __init__(
        self,
        images: Images,
        storage: Storage,
        cache: Cache,
        steps: Steps,
        mounts: CacheMounts,
        contexts: Contexts,
        scratch: Path,
        agreed: frozenset[str],
        history: History,
    ) -> None:
        self.history = history
        self._agreed = agreed
        self._images = images
        self._storage = storage
        self._cache = cache
        self._steps = steps
        self._mounts = mounts
        self._contexts = contexts
        self._scratch = scratch
        self._foreign = ForeignCaches(images, storage)
        self._rules: Sequence[GcRule] = ()
        self._running: dict[str, asyncio.Task[BuildResult]] = {}

    @classmethod
    async def open(
        cls,
        directory: Path,
        memory: Path,
        images: Images,
        storage: Storage,
        runtime: Runtime,
        networks: Sandboxes,
        cache: Cache,
        contexts: Contexts,
        remapping: Remapping,
        *,
        ulimits: tuple[Ulimit, ...] = (),
        seccomp: Profile = None,
        cgroup_parent: str = "",
        cgroupns: str = "",
        gc: GcPolicy | None = None,
        agreed: frozenset[str] = DEFAULT,
        history: HistoryLimits = HistoryLimits(),  # noqa: B008 - frozen
        cdi_directories: Sequence[Path] = (),
    ) -> Builder:
        """Create the builder and remove what interrupted builds left behind.

        `directory` is data_root/build; `memory`, run_root/build, holds secrets while a command uses them; `contexts`
        are clients' build contexts, which count as cache; `remapping` is the ID range of commands; `gc` limits the
        cache, `history` the records of builds; `agreed` are the entitlements that a client may grant;
        `cdi_directories` describe CDI devices.
        """
        mounts, scratch = directory / "mounts", directory / "tmp"
        await in_thread(_prepare, scratch, memory)
        cache_mounts = CacheMounts(mounts)
        await in_thread(cache_mounts.sweep)
        runner = Runner(
            runtime,
            networks,
            cache_mounts,
            memory,
            ulimits,
            seccomp,
            cgroup_parent,
            cgroupns,
            remapping,
            cdi_directories,
        )
        steps = Steps(storage, cache, runner)
        table = storage.db.table
        past = History(table("build_history", Record), table("build_documents", StoredDocument), history)
        builder = cls(images, storage, cache, steps, cache_mounts, contexts, scratch, agreed, past)
        if gc is not None:
            builder._rules = gc.for_disk((await in_thread(shutil.disk_usage, directory)).total)
        return builder

    async def build(self, request: BuildRequest, context: ContextSource, progress: BuildProgress) -> BuildResult:
        """Build an image. Raises `HavreError`, with the Dockerfile's line if any. Cancel the task to abort it."""
        for tag in request.tags:
            parse_reference(tag)
        check_grants(request.entitlements, self._agreed)
        if request.network == "host":
            require(NETWORK_HOST, request.entitlements)
        id = request.id or secrets.token_hex(16)
        if id in self._running:
            raise Conflict(f"a build with the ID {id} is running")
        request = dataclasses.replace(request, id=id)
        undo = AsyncExitStack()
        work = self._running[id] = asyncio.ensure_future(self._build_all(request, context, progress, undo))
        try:
            await asyncio.wait([work])
            if work.cancelled():
                raise Conflict("the build was cancelled")
            return work.result()
        finally:
            del self._running[id]
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await finish(undo.aclose())
            spawn(self._limit_cache(), "limit the build cache")

    def cancel(self, build_id: str) -> None:
        """Cancel the build with this ID, if there is one."""
        if (running := self._running.get(build_id)) is not None:
            running.cancel()

    async def usage(self) -> list[tuple[CacheRecord, bool]]:
        """Records, oldest first, then cache mounts and contexts; each with whether an image uses its layer."""
        used = self._images.live_layers()
        return [(record, Digest(record.layer) in used) for record in await self._records()]

    async def _records(self) -> list[CacheRecord]:
        return [*self._cache.all(), *await self._mounts.records(), *self._contexts.records()]

    async def prunable(
        self, filters: Filters, *, all: bool = False, keep_bytes: int = 0, gone: Collection[str] = ()
    ) -> list[Prunable]:
        """What `prune` would remove after the images `gone`, with the bytes freed."""
        used = self._images.live_layers(gone)
        records = await self._records()
        chosen = plan_prune(records, filters, all=all, keep_bytes=keep_bytes, used=used)
        ids = {record.id for record in chosen}
        kept = used | {Digest(record.layer) for record in records if record.id not in ids}
        kept |= self._storage.held() | (self._storage.snapshots.layers_in_use() - self._images.live_layers())
        found = []
        for record in chosen:
            size = 0 if record.layer and record.layer in kept else record.size
            kept |= {Digest(record.layer)} if record.layer else set()
            found.append(Prunable(record.id, (record.description,), size))
        return found

    async def keep_bytes(self, limits: SpaceLimits, records: Sequence[CacheRecord] | None = None) -> int:
        """How much of the cache, or of these records, the limits keep now; 0 for nothing."""
        used = sum(record.size for record in (await self._records() if records is None else records))
        free = (await in_thread(shutil.disk_usage, self._scratch)).free
        return limits.keep_bytes(used, free)

    async def prune(self, filters: Filters, all: bool = False, keep_bytes: int = 0) -> tuple[list[str], int]:
        """Delete records, with `all` also cache mounts. Returns the IDs of the records, and the bytes freed."""
        ids = [each.id for each in await self.prunable(filters, all=all, keep_bytes=keep_bytes)]
        return ids, await self.remove(ids)

    async def remove(self, ids: Sequence[str]) -> int:
        """Delete these records, and what then is unreferenced in the store. Returns the bytes freed."""
        await self._cache.forget(ids)
        self._steps.forget()
        freed = await self._images.collect_garbage()
        for id in ids:
            freed += await self._mounts.remove(id)
            freed += await self._contexts.remove(id)
        return freed

    async def _limit_cache(self) -> None:
        """Apply the rules of garbage collection in order."""
        used = self._images.live_layers()
        records = await self._records()
        gone: list[str] = []
        for rule in self._rules:
            keep_bytes = await self.keep_bytes(rule.limits, records)
            chosen = plan_prune(records, rule.filters, all=rule.all, keep_bytes=keep_bytes, used=used)
            gone += [record.id for record in chosen]
            records = [record for record in records if record not in chosen]
        if gone:
            freed = await self.remove(gone)
            log.info("garbage collection of the build cache: deleted %d records, freed %d bytes", len(gone), freed)

    async def _build_all(
        self, request: BuildRequest, context: ContextSource, progress: BuildProgress, undo: AsyncExitStack
    ) -> BuildResult:
        """Build for all requested platforms, and combine the results under the requested names."""
        platforms = split_platforms(request.platform) or [""]
        several = len(platforms) > 1
        client, told = SharedClient(context) if several else context, PlatformsProgress(progress, len(platforms))
        fresh: Fresh = {}
        jobs = []
        for number, platform in enumerate(platforms):
            asked = dataclasses.replace(request, platform=platform)
            tell = told.of(platform, number) if several else progress
            jobs.append(await self._plan(asked, client, tell, undo, fresh))
        built = await side_by_side([partial(self._carry_out, job) for job in jobs])
        caches = await self._export_caches(request, built, client, progress)
        results = await self._store(request, [each.result for each in built])
        mine = (number for number, job in enumerate(jobs) if job.platform.same_as(_own_platform()))
        own = dataclasses.replace(results[next(mine, 0)], caches=caches)
        return dataclasses.replace(own, platforms=dict(zip(platforms, results, strict=True))) if several else own

    async def _plan(
        self,
        request: BuildRequest,
        context: ContextSource,
        progress: BuildProgress,
        undo: AsyncExitStack,
        fresh: Fresh,
    ) -> Job:
        """Plan the build for one platform. Raises `HavreError` for what cannot be built at all."""
        directory = self._scratch / secrets.token_hex(16)
        undo.push_async_callback(in_thread, trees.remove_tree, directory)
        await in_thread(directory.mkdir, 0o700)
        started_at = time.time()
        source = await context.dockerfile(request.dockerfile)
        dockerfile = await in_thread(parse_dockerfile, source.data, source.name)
        wanted = _platform(request)
        graph = await in_thread(plan_graph, dockerfile, request.build_args, request.target, wanted, _own_platform())
        with dockerfile.located():
            interpreters = await in_thread(find_interpreters, _own_platform().architecture)
            check_runs(graph, wanted, interpreters)
        caches = await self._open_caches(request, context, progress)
        if request.cache_from and request.only_cache_from and not caches:
            request = dataclasses.replace(request, no_cache=True)
        checks = Checks(dockerfile, graph, policy_of(dockerfile, request.build_args), source, progress, wanted)
        await self._check(checks, request, context)
        return Job(
            request=request,
            client=context,
            tell=progress,
            source=source,
            dockerfile=dockerfile,
            graph=graph,
            checks=checks,
            platform=wanted,
            interpreters=interpreters,
            caches=caches,
            directory=directory,
            undo=undo,
            fresh=fresh,
            started_at=started_at,
        )

    async def _carry_out(self, job: Job) -> _Built:
        """Build for one platform. Stores layers only, no image."""
        request = job.request
        stages = Stages(self._images, self._storage, self._steps, job)
        result = await stages.run()
        steps = {"min": result.steps, "max": stages.all_steps()}
        if request.squash:
            result = await stages.squash(result)
        document = result.document()
        if result.steps and (request.inline_cache or request.build_args.get(ARGUMENT) in ("1", "true")):
            document = with_records(document, result.steps)
        predicates = []
        if (sbom := request.attestations.sbom) is not None and sbom.generator:
            predicates += await stages.generate(sbom, result, str(_own_platform()))
        elif sbom is not None:
            with shown("generating sbom", job.tell):
                predicates.append(Predicate(SPDX, await self._images.describe_packages(document, _SBOM)))
        facts = _facts(job, stages)
        if (asked := request.attestations.provenance) is not None:
            predicates.append(render_provenance(facts, asked))
        built = BuildResult(
            config=document,
            layers=result.layers,
            predicates=tuple(predicates),
            provenance=render_provenance(facts, Provenance(full=True, builder_id=asked.builder_id if asked else "")),
            unconsumed=tuple(stages.unconsumed()),
        )
        return _Built(built, steps)

    async def _store(self, request: BuildRequest, results: Sequence[BuildResult]) -> list[BuildResult]:
        """Store the results as images with the requested names, unless the request has `store=False`."""
        if not request.store:
            return list(results)
        if len(results) == 1:
            own = results[0]
            ids = [await self._images.create(own.config, names=request.tags, predicates=own.predicates)]
        else:
            configs, predicates = zip(*((each.config, each.predicates) for each in results), strict=True)
            ids = await self._images.create_platforms(configs, request.tags, predicates)
        return [dataclasses.replace(each, image=id) for each, id in zip(results, ids, strict=True)]

    async def _open_caches(
        self, request: BuildRequest, context: ContextSource, progress: BuildProgress
    ) -> list[ForeignCache]:
        """The caches of `--cache-from`. Best effort: failures are reported and logged."""
        found = []
        for source in request.cache_from:
            try:
                with shown(f"importing cache manifest from {source.ref or source.store}", progress):
                    found.append(await self._foreign.open(source, request, context))
            except HavreError as error:
                log.info("cannot import a build cache: %s", error)
        return found

    async def _export_caches(
        self, request: BuildRequest, built: Sequence[_Built], client: ContextSource, progress: BuildProgress
    ) -> dict[str, bytes]:
        """Export the steps of all platforms for `--cache-to`. Returns the documents for the client by mode."""
        documents = {}
        for target in request.cache_to:
            records = [record for each in built for record in each.steps[target.mode]]
            if not target.ref:
                documents[target.mode] = cache_document(records, _platform(request))
                continue
            try:
                with shown("exporting cache to registry", progress):
                    await self._foreign.push(target, records, _platform(request), client)
            except HavreError:
                if not target.ignore_error:
                    raise
        return documents

    # -- checks

    async def check(self, request: BuildRequest, context: ContextSource) -> CheckReport:
        """The build checks of a Dockerfile; nothing is pulled or run, and only the Dockerfile is requested."""
        source = await context.dockerfile(request.dockerfile)
        lines = source.data.decode(errors="replace").splitlines()
        try:
            dockerfile = await in_thread(parse_dockerfile, source.data, source.name)
            own = _own_platform()
            graph = await in_thread(plan_graph, dockerfile, request.build_args, request.target, _platform(request), own)
            policy = policy_of(dockerfile, request.build_args)
            checks = Checks(dockerfile, graph, policy, source, unreported, _platform(request))
            found = await checks.of_all(request, partial(self._look_up, request, context))
        except DockerfileError as error:
            return CheckReport(source.name, source.data, (), error.problem, error.line, lines)
        return CheckReport(source.name, source.data, tuple(found), lines=lines)

    async def outline(self, request: BuildRequest, context: ContextSource) -> Report:
        """The parameters of the requested target; nothing is pulled or run."""
        source = await context.dockerfile(request.dockerfile)
        dockerfile = await in_thread(parse_dockerfile, source.data, source.name)
        wanted = _platform(request)
        graph = await in_thread(plan_graph, dockerfile, request.build_args, request.target, wanted, _own_platform())
        bases = {}
        for stage in (graph.stages[index] for index in graph.needed):
            if stage.base not in ("", SCRATCH):
                found = await self._look_up(request, context, stage.base, stage.platform or request.platform)
                env = found[0].env if found else None
                bases[stage.index] = dict(each.partition("=")[::2] for each in env or ())
        return await in_thread(render_outline, dockerfile, graph, source.data, request.build_args, bases)

    async def targets(self, request: BuildRequest, context: ContextSource) -> Report:
        """The stages of a Dockerfile."""
        source = await context.dockerfile(request.dockerfile)
        dockerfile = await in_thread(parse_dockerfile, source.data, source.name)
        return await in_thread(list_targets, dockerfile, source.data)

    async def wanted(self, request: BuildRequest, text: bytes, names: Collection[str]) -> dict[str, list[str]]:
        """Paths of the contexts `names` that a build of this Dockerfile may read; a missing context is needed whole."""
        if len(split_platforms(request.platform)) > 1 or has_wildcards(request.dockerfile):
            return {}
        own, triggers = _own_platform(), partial(triggers_here, self._images, request)
        local = frozenset(names) - {MAIN_CONTEXT}
        try:
            dockerfile = await in_thread(parse_dockerfile, text, request.dockerfile)
            graph = await in_thread(plan_graph, dockerfile, request.build_args, request.target, _platform(request), own)
            found = {name: await wanted_of(name, graph, local, triggers) for name in names}
        except HavreError:
            return {}  # the build will report the error
        if MAIN_CONTEXT in found:
            found[MAIN_CONTEXT] = [*dockerfile_places(request.dockerfile), *found[MAIN_CONTEXT]]
        return {name: sources for name, sources in found.items() if EVERYTHING[0] not in sources}

    async def _check(self, checks: Checks, request: BuildRequest, context: ContextSource) -> None:
        """Report the findings for the file. Raises `LintViolation` if the policy makes findings errors."""
        if not checks.policy.fails:
            checks.warn(await in_thread(checks.of_file))
        elif found := await checks.of_all(request, partial(self._look_up, request, context)):
            checks.warn(found)
            raise LintViolation(found)

    async def _look_up(self, request: BuildRequest, context: ContextSource, name: str, platform: str) -> Base | None:
        """The configuration and platform of a base, from the store or else its registry."""
        if name in request.local_contexts:
            return None
        name = request.contexts.get(name, name).removeprefix("docker-image://")
        try:
            image = await self._images.acquire(name, platform or None)
            return image.config, decode_image(await self._images.document(image.id)).platform
        except HavreError:
            pass  # try its registry
        try:
            auth = await context.credentials(parse_reference(name).registry)
            document, _ = await self._images.remote_document(name, auth=auth, platform=platform or None)
            return read_config(decode_image(document), name), decode_image(document).platform
        except HavreError:
            return None


def _facts(job: Job, stages: Stages) -> Facts:
    """The facts for provenance; options have the names of BuildKit's frontend."""
    request, origins = job.request, job.client.origins()
    return Facts(
        id=request.id,
        dockerfile=job.source,
        platform=str(_own_platform()),
        options={
            **{f"build-arg:{name}": value for name, value in request.build_args.items() if value is not None},
            **{f"label:{name}": value for name, value in request.labels.items()},
            **{f"context:{name}": value for name, value in request.contexts.items()},
            **{f"context:{name}": f"local:{name}" for name in request.local_contexts - origins.keys()},
            **({"target": request.target} if request.target else {}),
        },
        contexts={MAIN_CONTEXT, *request.local_contexts} - origins.keys(),
        origins=origins,
        vcs=request.vcs,
        inputs=stages.inputs,
        started_at=job.started_at,
        finished_at=time.time(),
    )


def _own_platform() -> Platform:
    return platform_of_machine(host.machine())


def _platform(request: BuildRequest) -> Platform:
    """The requested platform, of several the first."""
    return next(map(parse_platform, split_platforms(request.platform)), _own_platform())


def _prepare(scratch: Path, memory: Path) -> None:
    for directory in (scratch, memory):
        trees.remove_tree(directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
