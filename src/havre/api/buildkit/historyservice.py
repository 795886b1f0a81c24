"""BuildKit's calls for the history of builds, and containerd's content service for its documents.

    Control.Solve           --> Recording: the record of a build, written when the call ends in any way
    ListenBuildHistory      --> running builds, past ones, then changes until the client leaves (or none: early_exit)
    UpdateBuildHistory      --> pin, delete; records need no finalizing, as they have no traces
    Content.Info, .Read     --> logs, provenance, errors

Builds that the client calls internal (`--call`, files of contexts) are not recorded.

Source: moby/buildkit control/control.go, solver/llbsolver/history.go; containerd api/services/content.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import msgspec
from grpclib.const import Status as Code
from grpclib.exceptions import GRPCError

from havre.api.buildkit import historymessages as h
from havre.api.buildkit import messages as m
from havre.api.buildkit.history import ERROR_TYPE, LOG_TYPE, PROVENANCE_TYPE, read_log, render_record, select
from havre.api.buildkit.http2 import Metadata, Routes, refusal, streaming, unary
from havre.api.buildkit.jobs import Job
from havre.api.buildkit.protobuf import encode
from havre.builds.history import COMPLETED, GONE, RUNNING, Document, Documents, History, Record
from havre.builds.request import BuildResult
from havre.dockerfile.graph import PROXY_ARGS
from havre.errors import HavreError, NotFound

_CONTROL, _CONTENT = "/moby.buildkit.v1.Control/", "/containerd.services.content.v1.Content/"
_CHUNK = 1 << 20


class Recording:
    """The record of one build in the making."""

    def __init__(self, history: History, request: m.SolveRequest, job: Job) -> None:
        self._history = history
        self._job = job
        self.response: dict[str, str] = {}
        older = [m.Exporter(request.exporter, request.exporter_attrs)] if request.exporter else []
        self._record = Record(
            ref=request.ref,
            created_at=time.time(),
            frontend=request.frontend,
            attributes=_without_proxies(request.frontend_attrs),
            exporters=[(each.type, dict(each.attrs)) for each in request.exporters or older],
        )
        history.started(self._record)

    async def end(self, error: BaseException | None) -> None:
        """Write the record."""
        log, documents = self._job.status.kept, Documents()
        failure = None if error is None else _status_of(error)
        record = msgspec.structs.replace(
            self._record,
            completed_at=time.time(),
            attributes=self._record.attributes or _without_proxies(self._job.attributes),
            response=self.response,
            logs=documents.add(LOG_TYPE, log.document()),
            attestations=_attestations(self._job.result, documents),
            steps=log.count(),
            cached_steps=log.count("cached"),
            completed_steps=log.count("completed"),
            warnings=log.warnings,
        )
        if failure is not None:
            record = msgspec.structs.replace(
                record,
                error_code=failure.code,
                error=failure.message,
                error_details=documents.add(ERROR_TYPE, encode(failure)),
            )
        await self._history.completed(record, documents)


def _without_proxies(attributes: Mapping[str, str]) -> dict[str, str]:
    """What a record keeps of the frontend's options: addresses of proxies may hold passwords."""
    hidden = {f"build-arg:{name}" for name in PROXY_ARGS}
    return {name: value for name, value in attributes.items() if name not in hidden}


def _attestations(result: BuildResult | None, documents: Documents) -> dict[str, list[Document]]:
    results = {} if result is None else result.platforms or {"": result}
    return {
        platform: [documents.add(PROVENANCE_TYPE, each.provenance.document, each.provenance.type)]
        for platform, each in results.items()
        if each.provenance is not None
    }


def _status_of(error: BaseException) -> m.RpcStatus:
    if isinstance(error, asyncio.CancelledError):
        return m.RpcStatus(Code.CANCELLED.value, "context canceled")
    if isinstance(error, HavreError):
        error = refusal(error)
    if isinstance(error, GRPCError):
        return m.RpcStatus(error.status.value, error.message or error.status.name, list(error.details or ()))
    return m.RpcStatus(Code.INTERNAL.value, str(error))


class HistoryService:
    """The calls, on a history."""

    def __init__(self, history: History) -> None:
        self._history = history

    def routes(self) -> Routes:
        """All methods by path."""
        listen = streaming(self.listen, h.BuildHistoryRequest, h.BuildHistoryEvent, stamped=True)
        return {
            f"{_CONTROL}ListenBuildHistory": listen,
            f"{_CONTROL}UpdateBuildHistory": unary(
                self.update, h.UpdateBuildHistoryRequest, h.UpdateBuildHistoryResponse
            ),
            f"{_CONTENT}Info": unary(self.content_info, h.ContentInfoRequest, h.ContentInfoResponse),
            f"{_CONTENT}Read": streaming(self.read_content, h.ReadContentRequest, h.ReadContentResponse),
        }

    async def listen(self, request: h.BuildHistoryRequest, metadata: Metadata) -> AsyncIterator[h.BuildHistoryEvent]:
        """Running builds and past ones; then, unless the client wants no more, what changes."""
        with self._history.listening() as changes:
            for record in self._history.running(request.ref):
                yield h.BuildHistoryEvent(RUNNING, render_record(record))
            if not request.active_only:
                for record in select(await self._history.records(request.ref), request.filter, request.limit):
                    yield h.BuildHistoryEvent(COMPLETED, render_record(record))
            if request.early_exit:
                return
            async for change in changes:
                if request.ref in ("", change.record.ref):
                    is_gone = change.type == GONE
                    shown = h.BuildHistoryRecord(change.record.ref) if is_gone else render_record(change.record)
                    yield h.BuildHistoryEvent(change.type, shown)

    async def update(self, request: h.UpdateBuildHistoryRequest, metadata: Metadata) -> h.UpdateBuildHistoryResponse:
        """Delete a record, or pin it."""
        if request.delete:
            await self._history.remove(request.ref)
        elif not request.finalize:
            await self._history.pin(request.ref, request.pinned)
        return h.UpdateBuildHistoryResponse()

    async def log_of(self, ref: str) -> list[m.StatusResponse] | None:
        """The kept progress of a build that has ended; None if there is no such record."""
        for record in await self._history.records(ref):
            if record.logs is not None:
                return list(read_log(await self._history.read(record.logs)))
        return None

    async def content_info(self, request: h.ContentInfoRequest, metadata: Metadata) -> h.ContentInfoResponse:
        """The size of a document."""
        try:
            document = await self._history.describe(request.digest)
        except NotFound as error:
            raise GRPCError(Code.NOT_FOUND, error.message) from error
        return h.ContentInfoResponse(h.ContentInfo(document.digest, document.size))

    async def read_content(
        self, request: h.ReadContentRequest, metadata: Metadata
    ) -> AsyncIterator[h.ReadContentResponse]:
        """A document from an offset on, or `size` bytes of it."""
        try:
            data = await self._history.read(await self._history.describe(request.digest))
        except NotFound as error:
            raise GRPCError(Code.NOT_FOUND, error.message) from error
        end = min(len(data), request.offset + request.size) if request.size > 0 else len(data)
        if not 0 <= request.offset <= len(data):
            raise GRPCError(Code.OUT_OF_RANGE, f"offset {request.offset} is past the end of {request.digest}")
        for at in range(request.offset, end, _CHUNK):
            yield h.ReadContentResponse(at, data[at : min(at + _CHUNK, end)])
