"""The classic build endpoint, and the build cache.

    POST /build: query, X-Registry-Config, body = a tar of the context, or a list and the files wanted (`contextlists`)
        --> {"stream": "Step 1/3 : FROM busybox\\n"} ... {"aux": {"ID": "sha256:..."}}
            {"stream": "Successfully built ..."}

Stages are built in parallel but reported in order, as the classic client expects: output of later steps is buffered.
An error before the first line is a response with its own status.

Source: Docker Engine API, "ImageBuild"; moby builder/dockerfile for the messages.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from havre.api.agents import Agents
from havre.api.buildlog import RawTeller
from havre.api.call import Call
from havre.api.contextlists import CONTENT_TYPE, ListedContext, receive
from havre.api.grpc import Doors
from havre.api.progress_stream import stream_progress
from havre.api.router import Router
from havre.builds.cache import CacheRecord
from havre.builds.entitlements import NETWORK_HOST
from havre.builds.gcpolicy import SpaceLimits
from havre.builds.progress import BuildEvent, Finished, Log, Started, Warned
from havre.builds.request import DEFAULT_NAME, BuildRequest, BuildResult, CacheSource, CacheTarget, parse_attestations
from havre.builds.running import RunFailed
from havre.builds.uploads import SshAgents, UploadedContext
from havre.errors import HavreError, InvalidInput, NotFound
from havre.golang import gojson
from havre.images.layout import LaidOut, layout_form
from havre.images.progress import Progress, ProgressLine
from havre.oci.attestation import Predicate
from havre.oci.reference import parse_reference
from havre.registry import Auth
from havre.wire import times
from havre.wire.config import Ulimit
from havre.wire.decode import decode_header
from havre.wire.frames import STDERR
from havre.wire.system import BuildCacheEntry


async def _build(agents: Agents, doors: Doors, call: Call) -> web.StreamResponse:
    request = decode_request(call)
    if (version := call.text("version")) == "2":
        return await doors.posted(call, request)
    if version not in ("", "1"):
        raise InvalidInput(f'invalid version "{version}"')
    quiet, ids, contexts = call.flag("q"), call.query.getall("ssh", []), call.services.contexts

    async def work(progress: Progress) -> None:
        async with (
            agents.forwarded(request.id, ids, contexts) as forwarded,
            _context_of(call, request, progress, forwarded) as context,
        ):
            asked = replace(request, local_contexts=context.names) if isinstance(context, ListedContext) else request
            teller = ClassicTeller(progress, quiet=quiet)
            raw = RawTeller(progress) if call.text("progress") == "rawjson" else None
            try:
                result = await call.services.builder.build(asked, context, raw or teller)
            except HavreError as error:
                teller.failed()
                raise error if raw else in_classic_words(error) from error
            if raw:
                progress(ProgressLine(aux=_present_result(result)))
            else:
                teller.succeeded(result, request)

    return await stream_progress(call, work)


def _present_result(result: BuildResult) -> dict[str, Any]:
    """The result for havre's own client; bytes are base64, for `POST /build/export`."""
    caches = {mode: base64.b64encode(document).decode() for mode, document in result.caches.items()}
    platforms = {text: _present_result(each) for text, each in result.platforms.items()}
    predicates = msgspec.to_builtins(result.predicates)
    return {"ID": result.image or "", "Caches": caches, "Predicates": predicates, "Platforms": platforms}


async def _check(call: Call) -> web.StreamResponse:
    """Havre's own: run the build checks of a `POST /build`, or answer its query's `call`, and stream the report."""
    request, asked, builder = decode_request(call), call.text("call"), call.services.builder
    if asked not in ("", "check", "outline", "targets"):
        raise InvalidInput(f"invalid call: {asked}", "expected check, outline or targets")

    async def work(progress: Progress) -> None:
        async with _context_of(call, request, progress) as context:
            if asked in ("outline", "targets"):
                answer = await (builder.outline if asked == "outline" else builder.targets)(request, context)
                progress(ProgressLine(stream=answer.text))
                progress(ProgressLine(aux={"Report": msgspec.json.decode(answer.document)}))
                return
            report = await builder.check(request, context)
            progress(ProgressLine(stream=report.text()))
            progress(ProgressLine(aux={"Warnings": len(report.findings), "Error": report.error}))

    return await stream_progress(call, work)


@asynccontextmanager
async def _context_of(
    call: Call, request: BuildRequest, progress: Progress, agents: SshAgents | None = None
) -> AsyncIterator[UploadedContext | ListedContext]:
    """The context of a request, during a block."""
    credentials, contexts = decode_credentials(call), call.services.contexts
    if call.request.content_type == CONTENT_TYPE:
        wanted = partial(call.services.builder.wanted, request)
        async with receive(call, contexts, credentials, progress, wanted) as listed, contexts.borrow() as directory:
            listed.agents = agents
            if remote := call.text("remote"):
                listed.main = UploadedContext(directory, credentials)
                listed.main.agents = agents
                with closing(listed.main):
                    await listed.main.fetch(remote)
                    yield listed
            else:
                yield listed
        return
    async with contexts.borrow() as directory:
        with closing(UploadedContext(directory, credentials)) as context:
            context.agents = agents
            if remote := call.text("remote"):
                await context.fetch(remote)
            else:
                await context.receive(call.upload())
            yield context


class _ExportedPlatform(msgspec.Struct, rename="pascal"):
    """A stored image and its attestations."""

    image: str
    predicates: list[Predicate] = []


class _ExportRequest(msgspec.Struct, rename="pascal"):
    """What to export: a stored image, or the configuration of one whose layers are present. Bytes are base64.

    `others` are the images for other platforms of the same names.
    """

    image: str = ""
    others: list[_ExportedPlatform] = []
    document: bytes = b""
    predicates: list[Predicate] = []
    names: list[str] = []
    type: str = "oci"
    attributes: dict[str, str] = {}


async def _export(call: Call) -> web.StreamResponse:
    """Havre's own: stream an image as an OCI layout (`oci`), or one that is a docker-archive as well (`docker`)."""
    asked, images = await call.body(_ExportRequest), call.services.images
    config = asked.document or await images.document(asked.image)
    names = [parse_reference(name).with_default_tag() for name in asked.names]
    form = layout_form(asked.attributes, for_docker=asked.type == "docker")
    others = [LaidOut(await images.document(each.image), predicates=each.predicates) for each in asked.others]
    async with images.laid_out(LaidOut(config, names, asked.predicates, others), form) as layout:
        response = await call.stream("application/x-tar", headers={"Docker-Content-Digest": layout.tops[0].digest})
        async with aclosing(layout.tar()) as tar:
            async for chunk in tar:
                await response.write(chunk)
    return response


async def kept_bytes(call: Call) -> int:
    """How much of the build cache a prune keeps, by the limits in the query."""
    reserved = call.integer("reserved-space") or call.integer("keep-storage") or 0
    limits = SpaceLimits(reserved, call.integer("max-used-space") or 0, call.integer("min-free-space") or 0)
    return await call.services.builder.keep_bytes(limits)


async def _prune(call: Call) -> web.StreamResponse:
    filters = call.filters()
    keep_bytes = await kept_bytes(call)
    work = call.services.builder.prune(filters, all=call.flag("all"), keep_bytes=keep_bytes)
    deleted, reclaimed = await call.settle(work)
    call.services.events.publish("builder", "prune", "", {"reclaimed": str(reclaimed)})
    return call.json({"CachesDeleted": deleted or None, "SpaceReclaimed": reclaimed})


async def _cancel(call: Call) -> web.StreamResponse:
    if not call.text("id"):
        raise InvalidInput("build ID not provided")
    call.services.builder.cancel(call.text("id"))
    return call.nothing(200)


# -- the request


def _network(call: Call) -> str:
    """The network's canonical name, on which entitlements depend. A missing network is reported by the build."""
    wanted = call.text("networkmode").removeprefix("default")  # equivalent, and omitted by other clients
    with suppress(NotFound, InvalidInput):
        return call.services.networks.name_of(wanted) if wanted else ""
    return wanted


def decode_request(call: Call) -> BuildRequest:
    """The request in the query of POST /build. Asking for the host's network grants it; `allow` is havre's own."""
    network = _network(call)
    tags = tuple(tag for tag in call.query.getall("t", []) if tag)
    return BuildRequest(
        id=call.text("buildid"),
        dockerfile=call.text("dockerfile") or DEFAULT_NAME,
        target=call.text("target"),
        build_args=_json(call, "buildargs", dict[str, str | None], {}),
        labels=_json(call, "labels", dict[str, str], {}),
        tags=tuple(parse_reference(tag).with_default_tag().familiar() for tag in tags),
        contexts=_json(call, "contexts", dict[str, str], {}),
        no_cache=call.flag("nocache"),
        no_cache_stages=tuple(_json(call, "nocachefilter", list[str], [])),
        pull=call.flag("pull"),
        platform=call.text("platform"),
        network=network,
        entitlements=frozenset((*call.query.getall("allow", []), *([NETWORK_HOST] if network == "host" else []))),
        extra_hosts=tuple(host for host in call.query.getall("extrahosts", []) if host),
        ulimits=tuple(_json(call, "ulimits", list[Ulimit], [])),
        shm_size=call.integer("shmsize") or 0,
        memory=_or_zero(call, "memory"),
        memory_swap=_or_zero(call, "memswap"),
        cpu_shares=_or_zero(call, "cpushares"),
        cpu_quota_us=_or_zero(call, "cpuquota"),
        cpu_period_us=_or_zero(call, "cpuperiod"),
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
        cgroup_parent=call.text("cgroupparent"),
        squash=call.flag("squash"),
        cache_from=tuple(map(_cache_source, _json(call, "cachefrom", list[str | CacheSource], []))),
        # as the classic builder; havre's own clients can do more
        only_cache_from=call.request.content_type != CONTENT_TYPE,
        attestations=parse_attestations(_json(call, "attestations", dict[str, str], {})),
        inline_cache=call.flag("inlinecache"),
        cache_to=tuple(_json(call, "cacheto", list[CacheTarget], [])),
    )


def _or_zero(call: Call, name: str) -> int:
    """A number; invalid ones count as absent, as with dockerd."""
    try:
        return call.integer(name) or 0
    except InvalidInput:
        return 0


def _cache_source(given: str | CacheSource) -> CacheSource:
    """Docker's clients name images; havre's may also name directories sent as contexts."""
    return CacheSource(ref=given) if isinstance(given, str) else given


_CALLED = {"ulimits": "ulimit settings", "buildargs": "build args", "cachefrom": "cache-from"}


def _json(call: Call, name: str, type: Any, default: Any) -> Any:
    text = call.text(name)
    if not text or text == "null":
        return default
    return gojson.decode(text, type, f"error reading {_CALLED.get(name, name)}")


def decode_credentials(call: Call) -> Mapping[str, Auth]:
    """The credentials in `X-Registry-Config`, by registry."""
    return decode_header(call.request.headers.get("X-Registry-Config", ""), dict[str, Auth]) or {}


def present_cache(record: CacheRecord, used: bool) -> BuildCacheEntry:
    """A record as `system df` lists it; `used`: an image has the same layer."""
    return BuildCacheEntry(
        id=record.id,
        type=record.type,
        description=record.description,
        in_use=False,
        shared=used,
        size=record.size,
        created_at=times.from_seconds(record.created_at),
        last_used_at=times.from_seconds(record.last_used_at),
        usage_count=record.uses,
    )


# -- the stream


class ClassicTeller:
    """Renders a build's events as the classic builder's lines, step by step in the order of the file."""

    def __init__(self, progress: Progress, *, quiet: bool) -> None:
        self._progress = progress
        self._quiet = quiet
        self._current = 1
        self._waiting: dict[int, list[str]] = {}
        self._over: set[int] = set()
        self._warnings: list[str] = []

    def __call__(self, event: BuildEvent) -> None:
        """Take one event; findings of build checks are printed at the end."""
        if isinstance(event, Warned):
            self._warnings.append(event.short)
        if not isinstance(event, Started | Log | Finished) or not event.vertex.step:
            return
        step = event.vertex.step
        text = _tell(event)
        if step == self._current:
            self._say(text)
        else:
            self._waiting.setdefault(step, []).append(text)
        if isinstance(event, Finished) and not event.vertex.trigger:
            self._over.add(step)
            self._go_on()

    def _go_on(self) -> None:
        while self._current in self._over:
            self._current += 1
            self._say("".join(self._waiting.pop(self._current, [])))

    def _say(self, text: str) -> None:
        if text and not self._quiet:
            self._progress(ProgressLine(stream=text))

    def _warn(self) -> None:
        self._say("".join(f"[Warning] {each}\n" for each in self._warnings))

    def failed(self) -> None:
        """Print buffered output, so that the cause of a failure is visible."""
        self._warn()
        for step in sorted(self._waiting):
            self._say("".join(self._waiting.pop(step)))

    def succeeded(self, result: BuildResult, request: BuildRequest) -> None:
        """Print the final lines."""
        id = result.image or ""
        if self._quiet:
            self._progress(ProgressLine(stream=f"{id}\n"))
            return
        self._warn()
        self._progress(ProgressLine(aux={"ID": id}))
        if result.unconsumed:
            self._say(f"[Warning] One or more build-args [{' '.join(result.unconsumed)}] were not consumed\n")
        self._say(f"Successfully built {_short(id)}\n")
        for tag in request.tags:
            self._say(f"Successfully tagged {tag}\n")


def _tell(event: Started | Log | Finished) -> str:
    if isinstance(event, Started) and event.vertex.trigger:
        return f"# Executing build trigger: {event.vertex.text}\n"
    if isinstance(event, Started):
        return f"Step {event.vertex.step}/{event.vertex.steps} : {event.vertex.text}\n"
    if isinstance(event, Log):
        text = event.data.decode(errors="replace")
        return f"\x1b[91m{text}\x1b[0m" if event.stream == STDERR else text
    if event.error:
        return ""
    cached = " ---> Using cache\n" if event.cached and not event.vertex.text.upper().startswith("FROM") else ""
    return f"{cached} ---> {_short(event.image)}\n"


def _short(id: str) -> str:
    return id.removeprefix("sha256:")[:12]


def in_classic_words(error: HavreError) -> HavreError:
    """A failed RUN with the classic builder's message; other failures unchanged."""
    if isinstance(error, RunFailed):
        error.message = f"The command '{error.command}' returned a non-zero code: {error.code}"
    return error


def register(router: Router, doors: Doors) -> None:
    """Add the routes of builds."""
    agents = Agents()
    router.add("POST", "/build", partial(_build, agents, doors))
    router.add("POST", "/build/agent", agents.offer)
    router.add("POST", "/build/check", _check)
    router.add("POST", "/build/export", _export)
    router.add("POST", "/build/prune", _prune)
    router.add("POST", "/build/cancel", _cancel)
