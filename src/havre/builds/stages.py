"""Executes the stages of one build: each is a task that begins when its base is done and runs its steps in order.

    base (image | stage | scratch) --plan_steps--> steps --Steps.apply--> layers      \\
                                                         --replace-----> configuration +--> the stage's result
                                                         --append------> history      /

Times in the result are the creation times of the cached steps, so a build that is completely cached gives the same
image again; with SOURCE_DATE_EPOCH all times are that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from havre.aio import in_thread
from havre.builds.cachedocument import StepRecord
from havre.builds.cacheexchange import ForeignCache
from havre.builds.checking import Checks
from havre.builds.entitlements import require, rights_of
from havre.builds.generator import DESTINATION, OneTree, plan_generator, read_statements
from havre.builds.progress import BuildProgress, Declared, Finished, Log, Started, Transfer, Vertex, shown
from havre.builds.provenance import Inputs
from havre.builds.request import BuildRequest, ContextSource, DockerfileBytes, Sbom
from havre.builds.steps import Fresh, Made, Scope, Steps
from havre.builds.trees import Tree
from havre.builds.views import BuildViews
from havre.builds.wanted import triggers_here
from havre.dockerfile.graph import PROXY_ARGS, SCRATCH, Graph, Stage, sources_of
from havre.dockerfile.instructions import Arg, Command
from havre.dockerfile.plan import CopyAction, Step, Surroundings, WorkdirAction, begin, plan_steps, read_triggers
from havre.dockerfile.syntax import Dockerfile, DockerfileError
from havre.errors import Failed, HavreError, InvalidInput, NotFound, Unsupported
from havre.images.images import Images
from havre.images.progress import ProgressLine
from havre.linux.idmap import IdRange
from havre.oci.attestation import Predicate, package_url
from havre.oci.digest import Digest, digest_of
from havre.oci.image import History, ImageConfig, decode_image, encode_image
from havre.oci.platform import Platform, parse_platform
from havre.oci.reference import parse_reference
from havre.storage import Storage
from havre.wire import times
from havre.wire.config import Config

_COMMENT = "buildkit.dockerfile.v0"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One build for one platform: the request, the client, and the parsed Dockerfile.

    `undo` is closed when the build ends. `interpreters` are by architecture (`emulation`), `fresh` is shared by all
    platforms (`steps`). `started_at` is in seconds since the epoch.
    """

    request: BuildRequest
    client: ContextSource
    tell: BuildProgress
    source: DockerfileBytes
    dockerfile: Dockerfile
    graph: Graph
    checks: Checks
    platform: Platform
    interpreters: Mapping[str, str]
    caches: Sequence[ForeignCache]
    directory: Path
    undo: AsyncExitStack
    fresh: Fresh
    started_at: float


@dataclass(frozen=True)
class Result:
    """The state of a stage: an image configuration, and its `config` as a value; `body` is a base's own document.

    `steps` are the cache records of its steps so far.
    """

    image: ImageConfig
    config: Config
    body: bytes = b""
    steps: tuple[StepRecord, ...] = ()

    @property
    def layers(self) -> tuple[Digest, ...]:
        """The layers, base first."""
        return self.image.rootfs.diff_ids

    @property
    def id(self) -> str:
        """The ID of this image, stored or not."""
        return digest_of(self.document())

    def document(self) -> bytes:
        """The image configuration; a base without changes keeps its own, byte for byte."""
        return self.body or encode_image(self.image)


class Stages:
    """The stages of one job; also gives steps access to the files of stages, images and contexts."""

    def __init__(self, images: Images, storage: Storage, steps: Steps, job: Job) -> None:
        self._images = images
        self._storage = storage
        self._steps = steps
        self._job = job
        self._tasks: dict[int, asyncio.Task[Result]] = {}
        self._bases: dict[int, Result] = {}
        self._declared: set[str] = set()  # by ARG, in stages that have started
        self._numbers = _first_numbers(job.graph)
        self._total = sum(1 + len(job.graph.stages[index].commands) for index in job.graph.needed)
        self._epoch = _epoch(job.request)
        self.inputs = Inputs()
        triggers = partial(triggers_here, images, job.request)
        self._views = BuildViews(
            storage.snapshots, job.request, job.client, job.graph, triggers, job.source.ignore, job.tell, job.undo
        )

    async def squash(self, result: Result) -> Result:
        """The result with all layers above its stage's base merged into one, and a history entry as dockerd's."""
        stage = self._job.graph.stages[self._job.graph.target]
        base = self._bases[stage.index]
        below, above = base.layers, result.layers[len(base.layers) :]
        if len(above) < 2:
            return result
        made = await self._steps.squash(below, above, self._scope(stage))
        created = times.from_seconds(made.created_at if self._epoch is None else self._epoch)
        kept = base.image.history or ()
        own = (result.image.history or ())[len(kept) :]
        merged = f"merge {result.id} to {base.id}" if below else f"create new from {result.id}"
        history = (
            *kept,
            *(msgspec.structs.replace(each, empty_layer=True) for each in own),
            History(created=created, comment=merged, empty_layer=made.layer is None),
        )
        layers = below if made.layer is None else (*below, made.layer)
        rootfs = msgspec.structs.replace(result.image.rootfs, diff_ids=layers)
        image = msgspec.structs.replace(result.image, rootfs=rootfs, history=history, created=created)
        return replace(result, image=image)

    def all_steps(self) -> list[StepRecord]:
        """The cache records of all stages, once they are done."""
        return [record for task in self._tasks.values() for record in task.result().steps]

    def unconsumed(self) -> list[str]:
        """The build arguments given that nothing declares, once the stages are done."""
        graph = self._job.graph
        known = self._declared | {*graph.arguments, *graph.automatic, *PROXY_ARGS, "SOURCE_DATE_EPOCH"}
        given = self._job.request.build_args
        return sorted(name for name in given if name not in known and not name.startswith("BUILDKIT_"))

    async def run(self) -> Result:
        """The result of the target. When this returns or raises, no task of the build is running."""
        graph = self._job.graph
        for index in graph.needed:
            self._tasks[index] = asyncio.ensure_future(self._stage(graph.stages[index]))
        tasks = list(self._tasks.values())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in (each for each in tasks if each in done):
                task.result()
            return self._tasks[graph.target].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _hold(self, layer: Digest) -> None:
        self._job.undo.enter_context(self._storage.hold(layer))

    async def generate(self, asked: Sbom, result: Result, platform: str) -> list[Predicate]:
        """The SBOM of a result by a generator, an image for `platform`. Invalid output raises `HavreError`, too."""
        tell, title = self._job.tell, f"generating sbom using {asked.generator}"
        target = self._job.graph.stages[self._job.graph.target]
        with shown(title, tell) as vertex:
            base = await self._base(asked.generator, platform, vertex)
            views = OneTree(await self._views.layers(result.layers), partial(self._views.mounted, result.layers))
            scope = replace(self._scope(target), views=views, interpreter="")

            def output(stream: int, data: bytes) -> None:
                tell(Log(vertex, stream, data, time.time()))

            command = plan_generator(base.config, asked)
            place = await self._steps.apply(WorkdirAction(path=DESTINATION), base.layers, title, scope, output)
            below = base.layers if place.layer is None else (*base.layers, place.layer)
            written = (await self._steps.apply(command, below, title, scope, output)).layer
            async with self._storage.mounted((written,) if written else ()) as root:
                return await in_thread(read_statements, root, asked.generator)

    # -- files for steps (`running.Views`)

    async def tree(self, name: str, wanted: str) -> Tree:
        """The files of a context, stage or image."""
        if self._views.is_context(name):
            return await self._views.context(name)
        return await self._views.layers((await self._result(name)).layers)

    async def mounted(self, name: str, ids: IdRange) -> Path | None:
        """The mount of a stage or image for `ids`; None for a context, which is not a mount."""
        if self._views.is_context(name):
            return None
        return await self._views.mounted((await self._result(name)).layers, ids)

    async def _result(self, name: str) -> Result:
        index = self._job.graph.find(name) if name not in self._job.request.contexts else None
        return await self._result_of(index) if index is not None else await self._base(name, "", None)

    async def _result_of(self, index: int) -> Result:
        return await asyncio.shield(self._tasks[index])

    # -- bases

    async def _base(self, name: str, platform: str, vertex: Vertex | None) -> Result:
        """The image `name`, pulled if it is missing or the request says so."""
        job = self._job
        platform = platform or job.request.platform
        if name == SCRATCH:
            wanted = parse_platform(platform) if platform else job.platform
            document = ImageConfig(architecture=wanted.architecture, os=wanted.os, variant=wanted.variant, history=())
            return Result(document, Config())
        name = job.request.contexts.get(name, name).removeprefix("docker-image://")
        if "://" in name:
            raise Unsupported(f"the context {name} is of an unsupported kind")
        id = await self._find(name, platform, vertex)
        image = await self._images.acquire(id)
        for layer in image.layers:
            self._hold(layer)
        self._note_material(name, id)
        body = await self._storage.blobs.read(Digest(image.id))
        return Result(decode_image(body), image.config, body)

    async def _from_context(self, stage: Stage) -> Result:
        """A base made of the files of a context: the result of COPY onto scratch."""
        empty = await self._base(SCRATCH, stage.platform, None)
        action = CopyAction(sources=("/",), target="/", into=True, from_=stage.base)
        made = await self._steps.copy(action, (), stage.original, self._scope(stage))
        step = Step(line=stage.line, text=stage.original, created_by=stage.original, config=Config(), action=action)
        return self._advance(empty, step, made)

    def _note_material(self, name: str, id: str) -> None:
        details, reference = self._images.inspect(id), parse_reference(name).with_default_tag()
        known = [parse_reference(each) for each in details.repo_digests]
        digest = next((each.digest for each in known if each.name == reference.name and each.digest), Digest(id))
        platform = Platform(details.architecture, details.os, variant=details.variant or "")
        self.inputs.materials[package_url(reference, platform)] = digest

    async def _find(self, name: str, platform: str, vertex: Vertex | None) -> str:
        if not self._job.request.pull:
            try:
                return (await self._images.acquire(name, platform or None)).id
            except NotFound:
                pass  # pull it
        reference = parse_reference(name).with_default_tag()
        auth = await self._job.client.credentials(reference.registry)

        def progress(line: ProgressLine) -> None:
            if vertex is not None and line.id and not line.message:
                self._job.tell(Transfer(vertex, f"{line.id} {line.status}", line.current, line.total, time.time()))

        return await self._images.pull(reference.familiar(), auth=auth, platform=platform or None, progress=progress)

    # -- stages

    async def _stage(self, stage: Stage) -> Result:
        vertex = self._from_vertex(stage)
        result = self._bases[stage.index] = await self._begin(stage, vertex)
        commands = self._commands(stage, result)
        self._declared.update(name for each in commands if isinstance(each, Arg) for name, _ in each.pairs)
        job = self._job
        around = Surroundings(
            build_args=job.request.build_args,
            arguments=job.graph.arguments,
            automatic=job.graph.automatic,
            escape=job.dockerfile.escape,
        )
        config = begin(result.config)
        with job.dockerfile.located():
            steps = await in_thread(plan_steps, commands, config, around)
        own = steps[len(commands) - len(stage.commands) :]
        job.checks.warn(await in_thread(job.checks.of_stage, stage, own, result.config))
        if stage.index == job.graph.target and job.request.labels:
            steps.append(_label_step(job.request, steps[-1].config if steps else config))
        names = self._name_steps(stage, steps, len(commands) - len(stage.commands), vertex)
        for each in names:
            job.tell(Declared(each))
        scope = self._scope(stage)
        for number, (step, name) in enumerate(zip(steps, names, strict=True)):
            self.inputs.note(step.action, job.request.network)
            result = await self._step(step, name, result, replace(scope, at=(stage.index, number)))
        return result

    def _scope(self, stage: Stage) -> Scope:
        job, request = self._job, self._job.request
        platform = job.graph.platform_of(stage, job.platform)
        fresh = request.no_cache or stage.shown in request.no_cache_stages
        return Scope(
            request=request,
            client=job.client,
            views=self,
            directory=job.directory,
            hold=self._hold,
            materials=self.inputs.materials,
            caches=job.caches,
            use_cache=not fresh,
            epoch=self._epoch,
            interpreter=job.interpreters.get(platform.architecture, ""),
            fresh=job.fresh,
        )

    def _commands(self, stage: Stage, base: Result) -> Sequence[Command]:
        """The base's triggers, then the stage's own commands.

        Refuses triggers that read a stage which depends on this one, and commands that need entitlements not granted.
        """
        triggers = read_triggers(base.config.on_build or [])
        graph = self._job.graph
        for trigger in triggers:
            for name in sources_of(trigger):
                index = graph.find(name)
                if index is not None and (index not in graph.needed or graph.reaches(index, stage.index)):
                    raise InvalidInput(f"the base's trigger `ONBUILD {trigger.original}` cannot read the stage {name}")
        commands = [*triggers, *stage.commands]
        for command in commands:
            for right in rights_of(command):
                with self._at(command.line):
                    require(right, self._job.request.entitlements)
        return commands

    async def _begin(self, stage: Stage, vertex: Vertex) -> Result:
        tell = self._job.tell
        tell(Declared(vertex))
        tell(Started(vertex, time.time()))
        try:
            if stage.after is not None:
                result = await self._result_of(stage.after)
            elif stage.base in self._job.request.local_contexts:
                result = await self._from_context(stage)
            else:
                result = await self._base(stage.base, stage.platform, vertex)
                platform = stage.platform or self._job.request.platform
                wanted = parse_platform(platform) if platform else self._job.platform
                checks = self._job.checks
                checks.warn(await in_thread(checks.of_base, stage, result.image.platform, wanted))
        except HavreError as error:
            tell(Finished(vertex, time.time(), error=error.message))
            raise self._located(error, stage.line) from error
        tell(Finished(vertex, time.time(), cached=True, image="" if stage.base == SCRATCH else result.id))
        return result

    async def _step(self, step: Step, vertex: Vertex, result: Result, scope: Scope) -> Result:
        tell = self._job.tell

        def output(stream: int, data: bytes) -> None:
            tell(Log(vertex, stream, data, time.time()))

        tell(Started(vertex, time.time()))
        made = None
        try:
            if step.action is not None:
                made = await self._steps.apply(step.action, result.layers, step.created_by, scope, output)
        except HavreError as error:
            tell(Finished(vertex, time.time(), error=error.message))
            raise self._located(error, step.line) from error
        except OSError as error:
            tell(Finished(vertex, time.time(), error=str(error)))
            raise self._located(Failed(f"{step.text}: {error}"), step.line) from error
        result = self._advance(result, step, made)
        known = self._steps.seen(result.id) and scope.use_cache
        tell(Finished(vertex, time.time(), cached=known if made is None else made.cached, image=result.id))
        return result

    @contextmanager
    def _at(self, line: int) -> Iterator[None]:
        """Add this line of the Dockerfile to errors of the block."""
        try:
            yield
        except HavreError as error:
            raise self._located(error, line) from error

    def _located(self, error: HavreError, line: int) -> HavreError:
        """The same error with an excerpt of the Dockerfile, unless it has one."""
        excerpt = self._job.dockerfile.excerpt(line)
        if excerpt and not isinstance(error, DockerfileError) and excerpt not in error.message:
            error.message = f"{error.message}\n{excerpt}"
        return error

    def _advance(self, result: Result, step: Step, made: Made | None) -> Result:
        """The result after a step: configuration, layer, history."""
        image = result.image
        layer = made.layer if made is not None else None
        created = image.created
        if self._epoch is not None:
            created = times.from_seconds(self._epoch)
        elif made is not None:
            created = times.from_seconds(made.created_at)
        entry = History(
            created=created,
            created_by=step.created_by,
            author=step.author,
            comment=_COMMENT,
            empty_layer=layer is None,
        )
        layers = image.rootfs.diff_ids if layer is None else (*image.rootfs.diff_ids, layer)
        image = msgspec.structs.replace(
            image,
            created=created,
            author=step.author or image.author,
            comment="",
            docker_version="",
            config=msgspec.to_builtins(step.config, order="deterministic"),
            rootfs=msgspec.structs.replace(image.rootfs, diff_ids=layers),
            history=(*(image.history or ()), entry),
        )
        steps = result.steps
        if made is not None:
            steps = (*steps, StepRecord(made.key, layer or "", made.created_at))
        return Result(image, step.config, steps=steps)

    # -- names

    def _from_vertex(self, stage: Stage) -> Vertex:
        base = stage.base or self._job.graph.stages[stage.after or 0].shown
        name = f"{self._prefix(stage, 1)} FROM {base}"
        return Vertex(
            digest=digest_of(f"{stage.index} {name}".encode()),
            name=name,
            text=stage.original,
            step=self._numbers[stage.index],
            steps=self._total,
        )

    def _name_steps(self, stage: Stage, steps: Sequence[Step], triggers: int, base: Vertex) -> list[Vertex]:
        """The steps' vertices. Only steps that change files have a name with a number; triggers are not numbered."""
        of, at = 1 + sum(step.action is not None for step in steps), 1
        before, named = base, []
        for number, step in enumerate(steps):
            at += step.action is not None
            own = number - triggers
            before = Vertex(
                digest=digest_of(f"{stage.index} {number} {step.created_by}".encode()),
                name=f"{self._prefix(stage, at, of)} {step.text}" if step.action is not None else "",
                inputs=(before.digest,),
                text=step.text,
                step=self._numbers[stage.index] + max(own, 0) + 1 if own < len(stage.commands) else 0,
                steps=self._total,
                trigger=own < 0,
            )
            named.append(before)
        return named

    def _prefix(self, stage: Stage, at: int, of: int | None = None) -> str:
        shown = f"{stage.shown} " if stage.name or len(self._job.graph.stages) > 1 else ""
        of = of or 1 + sum(_changes_files(command) for command in stage.commands)
        return f"[{shown}{at}/{of}]"


def _changes_files(command: Command) -> bool:
    return command.original.split(None, 1)[0].upper() in ("RUN", "COPY", "ADD", "WORKDIR")


def _first_numbers(graph: Graph) -> dict[int, int]:
    """The number of each needed stage's FROM; all their instructions are numbered in the order of the file."""
    numbers, number = {}, 1
    for index in sorted(graph.needed):
        numbers[index] = number
        number += 1 + len(graph.stages[index].commands)
    return numbers


def _label_step(request: BuildRequest, config: Config) -> Step:
    labels = {**(config.labels or {}), **request.labels}
    text = "LABEL " + " ".join(f"{key}={value}" for key, value in request.labels.items())
    return Step(line=0, text=text, created_by=text, config=msgspec.structs.replace(config, labels=labels))


def _epoch(request: BuildRequest) -> int | None:
    """SOURCE_DATE_EPOCH in seconds since the epoch (reproducible-builds.org). Raises `InvalidInput`."""
    text = request.build_args.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isdecimal() or int(text) >= 1 << 34:
        raise InvalidInput(f"invalid SOURCE_DATE_EPOCH: {text}", "expected seconds since the epoch")
    return int(text)
