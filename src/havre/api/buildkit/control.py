"""BuildKit's Control and LLBBridge services: the calls of buildx on the connection of POST /grpc.

`jobs` describes how the calls of one build relate. Only Dockerfiles are built; of low-level build graphs (LLB),
those that are the files of one source can be read (`llb`, `sources`), all others are refused.

Source: moby/buildkit api/services/control/control.proto, frontend/gateway/pb/gateway.proto, control/control.go;
docker/buildx build/build.go.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial

import msgspec
from grpclib.const import Status as Code
from grpclib.exceptions import GRPCError

from havre import __version__
from havre.aio import finish
from havre.api.buildkit import messages as m
from havre.api.buildkit.exporters import Export, parse_exporter
from havre.api.buildkit.exporting import export_cache, export_files, export_image, export_layout
from havre.api.buildkit.history import timestamp
from havre.api.buildkit.historyservice import HistoryService, Recording
from havre.api.buildkit.http2 import Metadata, Routes, refusal, streaming, unary
from havre.api.buildkit.jobs import Job, Jobs
from havre.api.buildkit.llb import CAPABILITIES as SOURCE_CAPABILITIES
from havre.api.buildkit.llb import Source, read_source
from havre.api.buildkit.options import CacheExports, Options, parse_cache, parse_options
from havre.api.buildkit.sessionauth import session_credentials
from havre.api.buildkit.sessions import Sessions
from havre.api.buildkit.source import SessionSource
from havre.api.buildkit.sources import SourceFiles
from havre.api.buildkit.subrequests import answer
from havre.builds.cache import CacheRecord
from havre.builds.contexts import Contexts
from havre.builds.gcpolicy import SpaceLimits
from havre.builds.outputs import Outputs
from havre.builds.request import BuildRequest, BuildResult, DockerfileBytes
from havre.builds.solve import Builder
from havre.errors import HavreError, InvalidInput, Unsupported
from havre.images.images import Images
from havre.oci.platform import platform_of_machine
from havre.registry import Auth

_CONTROL, _BRIDGE = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
_BUILD_ID = "buildkit-controlapi-buildid"
_SOURCE_DETAIL = "github.com/moby/buildkit/errdefs.Source+json"
_SPOKEN = "v0.12.5"  # the version of BuildKit whose protocol this is
# Capabilities of the bridge: results by reference, returned with metadata, evaluated at once.
_BRIDGE_CAPABILITIES = (
    "solve.base", "return", "returnmap", "proto.refarray", "importcaches", "frontend.inputs", "frontend.caps",
    "readfile", "statfile", "gateway.solve.metadata", "gateway.solve.evaluate", "gateway.evaluate", "gateway.warnings",
)  # fmt: skip
_LLB_CAPABILITIES = (
    "constraints", "platform", "meta.description", "exporter.image.attestations", "exporter.image.annotations",
    "gc.freespacefilter", "history.filter", *SOURCE_CAPABILITIES,
)  # fmt: skip


class Control:
    """The services, on a builder. `routes()` is the table for `http2.server_protocol`.

    `bodies` are contexts received by HTTP, by the names that builds use for them (`posted`).
    """

    def __init__(
        self, builder: Builder, images: Images, contexts: Contexts, outputs: Outputs, sessions: Sessions
    ) -> None:
        self._builder = builder
        self._images = images
        self._contexts = contexts
        self._outputs = outputs
        self._sessions = sessions
        self._jobs = Jobs()
        self._history = HistoryService(builder.history)
        self.bodies: dict[str, AsyncIterator[bytes]] = {}

    def routes(self) -> Routes:
        """All methods by path."""
        return {
            _CONTROL + "Solve": unary(self.solve, m.SolveRequest, m.SolveResponse),
            _CONTROL + "Status": streaming(self.status, m.StatusRequest, m.StatusResponse, stamped=True),
            _CONTROL + "ListWorkers": unary(self.list_workers, m.ListWorkersRequest, m.ListWorkersResponse),
            _CONTROL + "Info": unary(self.info, m.InfoRequest, m.InfoResponse),
            _CONTROL + "DiskUsage": unary(self.disk_usage, m.DiskUsageRequest, m.DiskUsageResponse),
            _CONTROL + "Prune": streaming(self.prune, m.PruneRequest, m.UsageRecord),
            _BRIDGE + "Ping": unary(self.ping, m.PingRequest, m.PongResponse),
            _BRIDGE + "Solve": unary(self.bridge_solve, m.BridgeSolveRequest, m.BridgeSolveResponse),
            _BRIDGE + "Evaluate": unary(self.evaluate, m.EvaluateRequest, m.EvaluateResponse),
            _BRIDGE + "StatFile": unary(self.stat_file, m.StatFileRequest, m.StatFileResponse),
            _BRIDGE + "ReadFile": unary(self.read_file, m.ReadFileRequest, m.ReadFileResponse),
            _BRIDGE + "Warn": unary(self.warn, m.WarnRequest, m.WarnResponse),
            _BRIDGE + "Return": unary(self.return_, m.ReturnRequest, m.ReturnResponse),
            **self._history.routes(),
        }

    # -- Control: a build

    async def solve(self, request: m.SolveRequest, metadata: Metadata) -> m.SolveResponse:
        """Run one build. Cancelling the call cancels the build."""
        with self._jobs.using(request.ref) as job, ExitStack() as solving:
            solving.enter_context(job.solving(request))  # first: on failure, another call's job must not be closed
            recording = None if request.internal else Recording(self._builder.history, request, job)
            failure: BaseException | None = None
            async with job.resources:
                try:
                    response = await self._solve(request, job)
                    if recording is not None:
                        recording.response = response.exporter_response
                    return response
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    solving.close()
                    try:
                        await job.idle()
                    finally:  # a client that leaves cancels this call more than once
                        if recording is not None:
                            await finish(recording.end(failure))
                        job.status.forget()  # jobs outlive their builds, for late calls

    async def _solve(self, request: m.SolveRequest, job: Job) -> m.SolveResponse:
        _refuse_policies(request)
        exports, caches = _exports_of(request), _caches_of(request)
        if request.definition is not None:
            raise _no_definitions()
        if request.frontend_attrs.get("requestid"):
            raise Unsupported("subrequests by Control.Solve are not supported", "ask by LLBBridge.Solve")
        if request.frontend:
            result: BuildResult | None = await self._build(job, request.frontend, request.frontend_attrs)
        else:
            result = await job.returned()
        job.result = result
        if result is None:
            return m.SolveResponse()
        told = await self._export(job, exports, result, request.session)
        for mode, store in caches.stores:
            session = await self._sessions.find(request.session)
            told |= await export_cache(result.caches[mode], store, session, self._images, job.status.progress)
        return m.SolveResponse(told)

    async def _export(
        self, job: Job, exports: Sequence[Export], result: BuildResult, session_id: str
    ) -> dict[str, str]:
        told: dict[str, str] = {}
        for export in exports:
            if export.kind == "image":
                ask = partial(self._credentials, session_id)
                told |= await export_image(result, export, ask, self._images, job.status.progress)
                continue
            session = await self._sessions.find(session_id)
            if export.kind in ("oci", "docker"):
                told |= await export_layout(result, export, session, self._images, job.status.progress)
            else:
                await export_files(export, result, session, self._outputs, job.status.progress)
        return told

    async def _credentials(self, session_id: str, registry: str) -> Auth | None:
        if not session_id:
            return None
        return await session_credentials(await self._sessions.find(session_id), registry)

    async def _answer(self, job: Job, frontend: str, attrs: Mapping[str, str]) -> m.Result:
        """The answer to a question about the Dockerfile, instead of a build."""
        request = await job.request()
        options = parse_options(frontend, attrs, ref=request.ref, tags=(), store=False, entitlements=())
        async with AsyncExitStack() as stack:
            source = SessionSource(self._sessions, request.session, options, self._contexts, stack, job.status.progress)
            try:
                return m.Result(metadata=await answer(attrs["requestid"], self._builder, options.request, source))
            except HavreError as error:
                raise _located(error, source.text) from error

    async def _build(self, job: Job, frontend: str, attrs: Mapping[str, str]) -> BuildResult:
        request = await job.request()
        images = [export for export in _exports_of(request) if export.kind == "image"]
        options = parse_options(
            frontend,
            attrs,
            ref=request.ref,
            tags=[name for export in images if export.kept for name in export.tags],
            store=any(export.kept for export in images),
            entitlements=request.entitlements,
        )
        async with AsyncExitStack() as stack:
            progress = job.status.progress
            source = SessionSource(
                self._sessions, request.session, options, self._contexts, stack, progress, self.bodies
            )
            try:
                caches = _caches_of(request)
                wanted = replace(options.request, inline_cache=caches.inline, cache_to=caches.targets)
                return await self._builder.build(wanted, source, job.status.progress)
            except HavreError as error:
                raise _located(error, source.text) from error

    async def status(self, request: m.StatusRequest, metadata: Metadata) -> AsyncIterator[m.StatusResponse]:
        """Stream a build's progress until it ends, or as it was if it has ended."""
        if (kept := await self._history.log_of(request.ref)) is not None:
            for message in kept:
                yield message
            return
        with self._jobs.using(request.ref) as job:
            async for message in job.status.messages():
                yield message

    # -- Control: the daemon

    async def list_workers(self, request: m.ListWorkersRequest, metadata: Metadata) -> m.ListWorkersResponse:
        """The only worker."""
        return m.ListWorkersResponse([_worker()])

    async def info(self, request: m.InfoRequest, metadata: Metadata) -> m.InfoResponse:
        """The version."""
        return m.InfoResponse(_version())

    async def disk_usage(self, request: m.DiskUsageRequest, metadata: Metadata) -> m.DiskUsageResponse:
        """The records of the build cache."""
        if any(request.filter):
            raise Unsupported("the build cache's usage cannot be filtered", "leave out --filter")
        usage = await self._builder.usage()
        return m.DiskUsageResponse([_render_record(record, shared) for record, shared in usage])

    async def prune(self, request: m.PruneRequest, metadata: Metadata) -> AsyncIterator[m.UsageRecord]:
        """Delete records of the build cache, and stream them."""
        filters = _parse_filters(request.filter)
        if request.keep_duration > 0:
            filters["until"] = [f"{request.keep_duration // 10**9}s"]
        records = {record.id: _render_record(record, shared) for record, shared in await self._builder.usage()}
        limits = SpaceLimits(request.reserved_bytes, request.max_used_bytes, request.min_free_bytes)
        keep_bytes = await self._builder.keep_bytes(limits)
        gone, _ = await self._builder.prune(filters, all=request.all, keep_bytes=keep_bytes)
        for id in gone:
            if id in records:
                yield records[id]

    # -- LLBBridge: buildx as frontend

    async def ping(self, request: m.PingRequest, metadata: Metadata) -> m.PongResponse:
        """The capabilities of the bridge."""
        return m.PongResponse(
            [m.APICap(name, enabled=True) for name in _BRIDGE_CAPABILITIES],
            [m.APICap(name, enabled=True) for name in _LLB_CAPABILITIES],
            [_worker()],
        )

    async def bridge_solve(self, request: m.BridgeSolveRequest, metadata: Metadata) -> m.BridgeSolveResponse:
        """Build a Dockerfile for the job with the call's build ID."""
        if request.definition is not None and request.definition.operations:
            source = read_source(request.definition.operations)
            with self._jobs.using(_build_id(metadata)) as job:
                return m.BridgeSolveResponse(m.Result(m.Ref(job.add_source(await self._source(job, source)))))
        if not request.frontend:
            return m.BridgeSolveResponse(m.Result())
        with self._jobs.using(_build_id(metadata)) as job, job.building():
            job.attributes = dict(request.frontend_opt)
            if request.frontend_opt.get("requestid"):
                return m.BridgeSolveResponse(await self._answer(job, request.frontend, request.frontend_opt))
            result = await self._build(job, request.frontend, request.frontend_opt)
            return m.BridgeSolveResponse(m.Result(m.Ref(job.add_result(result))))

    async def _source(self, job: Job, source: Source) -> SourceFiles:
        """The files of a source, fetched with the help of the job's client."""
        request, progress = await job.request(), job.status.progress
        options = Options(BuildRequest())
        lender = SessionSource(self._sessions, request.session, options, self._contexts, job.resources, progress)
        return SourceFiles(source, lender, self._contexts, job.resources, progress)

    async def stat_file(self, request: m.StatFileRequest, metadata: Metadata) -> m.StatFileResponse:
        """The attributes of a source's file."""
        with self._jobs.using(_build_id(metadata)) as job, job.building():
            return m.StatFileResponse(await job.source(request.ref).stat(request.path))

    async def read_file(self, request: m.ReadFileRequest, metadata: Metadata) -> m.ReadFileResponse:
        """The content of a source's file, or a range of it."""
        part = request.range or m.FileRange()
        with self._jobs.using(_build_id(metadata)) as job, job.building():
            return m.ReadFileResponse(await job.source(request.ref).read(request.path, part.offset, part.length))

    async def evaluate(self, request: m.EvaluateRequest, metadata: Metadata) -> m.EvaluateResponse:
        """Nothing to do: results are evaluated when built."""
        return m.EvaluateResponse()

    async def warn(self, request: m.WarnRequest, metadata: Metadata) -> m.WarnResponse:
        """Ignored: the frontend is the client, which has shown its warning."""
        return m.WarnResponse()

    async def return_(self, request: m.ReturnRequest, metadata: Metadata) -> m.ReturnResponse:
        """The frontend has ended; Control.Solve continues with its result, or fails with its error."""
        with self._jobs.using(_build_id(metadata)) as job:
            if request.error is not None:
                await job.fail(_returned_error(request.error))
            else:
                job.finish(request.result.ref.id if request.result and request.result.ref else "")
        return m.ReturnResponse()


def _exports_of(request: m.SolveRequest) -> list[Export]:
    named = request.exporters or ([m.Exporter(request.exporter, request.exporter_attrs)] if request.exporter else [])
    return [parse_exporter(each.type, each.attrs) for each in named]


def _caches_of(request: m.SolveRequest) -> CacheExports:
    return parse_cache([(each.type, each.attrs) for each in request.cache.exports] if request.cache else ())


def _refuse_policies(request: m.SolveRequest) -> None:
    """Refuse a build that is to be checked by a policy, instead of ignoring what the policy would deny."""
    if request.source_policy_session:
        raise Unsupported(
            "source policies are not supported: the client has a policy for this build, such as a Dockerfile.rego",
            "build without it by --policy disabled=true, or with a builder of the driver docker-container",
        )
    if request.source_policy is not None and request.source_policy.rules:
        raise Unsupported("source policies are not supported", "unset EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")
    if request.proxy_network:
        raise Unsupported("the network proxy that a policy asks for is not supported", "leave out caps of the policy")


def _build_id(metadata: Metadata) -> str:
    id = metadata.get(_BUILD_ID)
    if not isinstance(id, str):
        raise InvalidInput(f"the call has no {_BUILD_ID}")
    return id


def _no_definitions() -> HavreError:
    return Unsupported("low-level build definitions are not supported", "build a Dockerfile from a local directory")


def _returned_error(error: m.RpcStatus) -> GRPCError:
    known = {each.value for each in Code if each is not Code.OK}
    return GRPCError(Code(error.code) if error.code in known else Code.UNKNOWN, error.message, error.details or None)


def _located(error: HavreError, text: DockerfileBytes | None) -> GRPCError:
    """A build's error with the failed lines of the Dockerfile as details, which the client shows."""
    problem, found, rest = error.message.partition(f"\n{text.name}:" if text is not None else "\0")
    number = rest.partition("\n")[0]
    if text is None or not found or not number.isdecimal():
        return refusal(error)
    position = {"line": int(number)}
    source = {
        "info": {"filename": text.name, "data": base64.b64encode(text.data).decode(), "language": "Dockerfile"},
        "ranges": [{"start": position, "end": position}],
    }
    return refusal(error, problem, [m.Any(_SOURCE_DETAIL, msgspec.json.encode(source))])


def _parse_filters(filters: Sequence[str]) -> dict[str, list[str]]:
    """containerd's filters (`type==regular`, `id~=x`, `shared`) as Docker's."""
    parsed: dict[str, list[str]] = {}
    for each in filter(None, filters):
        name, _, value = each.replace("~=", "==").partition("==")
        parsed.setdefault(name, []).append(value or "true")
    return parsed


def _render_record(record: CacheRecord, shared: bool) -> m.UsageRecord:
    return m.UsageRecord(
        id=record.id,
        size=record.size,
        created_at=timestamp(record.created_at),
        last_used_at=timestamp(record.last_used_at),
        usage_count=record.uses,
        description=record.description,
        record_type=record.type,
        shared=shared,
    )


def _worker() -> m.WorkerRecord:
    here = platform_of_machine(platform.machine())
    # By the second label buildx recognizes an engine that supports OCI archives, cache exports and attestations.
    labels = {
        "org.mobyproject.buildkit.worker.executor": "havre",
        "org.mobyproject.buildkit.worker.snapshotter": "havre",
    }
    return m.WorkerRecord("havre", labels, [m.Platform(here.architecture, here.os, here.variant)], _version())


def _version() -> m.BuildkitVersion:
    return m.BuildkitVersion("havre", _SPOKEN, __version__)
