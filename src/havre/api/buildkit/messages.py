"""The messages of the calls that BuildKit answers, as far as used here, with the field numbers of its .proto files.

Unused fields are omitted; the decoder skips them. `sessionmessages` has those of the calls that it makes to the client,
`historymessages` those of the history of builds.

Source: moby/buildkit api/services/control/control.proto, api/types/worker.proto, frontend/gateway/pb/gateway.proto,
util/apicaps/pb/caps.proto; tonistiigi/fsutil types/stat.proto; google/rpc/status.proto.
"""

from __future__ import annotations

from dataclasses import dataclass

from havre.api.buildkit import protobuf as pb
from havre.api.buildkit.protobuf import Message

# -- google


@dataclass
class Timestamp(Message):
    seconds: int = pb.number(1)
    nanos: int = pb.number(2)


@dataclass
class Any(Message):
    type_url: str = pb.text(1)
    value: bytes = pb.data(2)


@dataclass
class RpcStatus(Message):
    code: int = pb.number(1)
    message: str = pb.text(2)
    details: list[Any] = pb.repeated(3, Any)


# -- workers


@dataclass
class Platform(Message):
    architecture: str = pb.text(1)
    os: str = pb.text(2)
    variant: str = pb.text(3)


@dataclass
class BuildkitVersion(Message):
    package: str = pb.text(1)
    version: str = pb.text(2)
    revision: str = pb.text(3)


@dataclass
class WorkerRecord(Message):
    id: str = pb.text(1)
    labels: dict[str, str] = pb.mapping(2, str)
    platforms: list[Platform] = pb.repeated(3, Platform)
    version: BuildkitVersion | None = pb.embedded(5, BuildkitVersion)


@dataclass
class ListWorkersRequest(Message):
    filter: list[str] = pb.repeated(1, str)


@dataclass
class ListWorkersResponse(Message):
    record: list[WorkerRecord] = pb.repeated(1, WorkerRecord)


@dataclass
class InfoRequest(Message):
    pass


@dataclass
class InfoResponse(Message):
    version: BuildkitVersion | None = pb.embedded(1, BuildkitVersion)


# -- the build cache


@dataclass
class DiskUsageRequest(Message):
    filter: list[str] = pb.repeated(1, str)


@dataclass
class UsageRecord(Message):
    id: str = pb.text(1)
    mutable: bool = pb.flag(2)
    in_use: bool = pb.flag(3)
    size: int = pb.number(4)
    created_at: Timestamp | None = pb.embedded(6, Timestamp)
    last_used_at: Timestamp | None = pb.embedded(7, Timestamp)
    usage_count: int = pb.number(8)
    description: str = pb.text(9)
    record_type: str = pb.text(10)
    shared: bool = pb.flag(11)
    parents: list[str] = pb.repeated(12, str)


@dataclass
class DiskUsageResponse(Message):
    record: list[UsageRecord] = pb.repeated(1, UsageRecord)


@dataclass
class PruneRequest(Message):
    filter: list[str] = pb.repeated(1, str)
    all: bool = pb.flag(2)
    keep_duration: int = pb.number(3)  # nanoseconds
    reserved_bytes: int = pb.number(4)
    max_used_bytes: int = pb.number(5)
    min_free_bytes: int = pb.number(6)


# -- Control: a build


@dataclass
class Exporter(Message):
    type: str = pb.text(1)
    attrs: dict[str, str] = pb.mapping(2, str)


@dataclass
class CacheOptionsEntry(Message):
    type: str = pb.text(1)
    attrs: dict[str, str] = pb.mapping(2, str)


@dataclass
class CacheOptions(Message):
    exports: list[CacheOptionsEntry] = pb.repeated(4, CacheOptionsEntry)
    imports: list[CacheOptionsEntry] = pb.repeated(5, CacheOptionsEntry)


@dataclass
class Definition(Message):
    """A low-level build graph: encoded operations, none for an empty build."""

    operations: list[bytes] = pb.repeated(1, bytes)


@dataclass
class OpInput(Message):
    digest: str = pb.text(1)


@dataclass
class SourceOp(Message):
    identifier: str = pb.text(1)
    attrs: dict[str, str] = pb.mapping(2, str)


@dataclass
class FileCopy(Message):
    src: str = pb.text(1)
    dest: str = pb.text(2)
    unpack: bool = pb.flag(7)


@dataclass
class FileAction(Message):
    copy: FileCopy | None = pb.embedded(4, FileCopy)


@dataclass
class FileOp(Message):
    actions: list[FileAction] = pb.repeated(2, FileAction)


@dataclass
class Op(Message):
    """One operation; fields of other kinds are not decoded."""

    inputs: list[OpInput] = pb.repeated(1, OpInput)
    source: SourceOp | None = pb.embedded(3, SourceOp)
    file: FileOp | None = pb.embedded(4, FileOp)


@dataclass
class SourcePolicy(Message):
    """A policy in BuildKit's own form; its rules are not decoded."""

    rules: list[bytes] = pb.repeated(2, bytes)


@dataclass
class SolveRequest(Message):
    """Control's request. Clients before v0.13 give their one exporter as `exporter` and `exporter_attrs`."""

    ref: str = pb.text(1)
    definition: Definition | None = pb.embedded(2, Definition)
    exporter: str = pb.text(3)
    exporter_attrs: dict[str, str] = pb.mapping(4, str)
    session: str = pb.text(5)
    frontend: str = pb.text(6)
    frontend_attrs: dict[str, str] = pb.mapping(7, str)
    cache: CacheOptions | None = pb.embedded(8, CacheOptions)
    entitlements: list[str] = pb.repeated(9, str)
    internal: bool = pb.flag(11)
    source_policy: SourcePolicy | None = pb.embedded(12, SourcePolicy)
    exporters: list[Exporter] = pb.repeated(13, Exporter)
    source_policy_session: str = pb.text(15)
    proxy_network: bool = pb.flag(17)


@dataclass
class SolveResponse(Message):
    exporter_response: dict[str, str] = pb.mapping(1, str)


@dataclass
class StatusRequest(Message):
    ref: str = pb.text(1)


@dataclass
class Vertex(Message):
    digest: str = pb.text(1)
    inputs: list[str] = pb.repeated(2, str)
    name: str = pb.text(3)
    cached: bool = pb.flag(4)
    started: Timestamp | None = pb.embedded(5, Timestamp)
    completed: Timestamp | None = pb.embedded(6, Timestamp)
    error: str = pb.text(7)


@dataclass
class VertexStatus(Message):
    id: str = pb.text(1)
    vertex: str = pb.text(2)
    name: str = pb.text(3)
    current: int = pb.number(4)
    total: int = pb.number(5)
    timestamp: Timestamp | None = pb.embedded(6, Timestamp)
    started: Timestamp | None = pb.embedded(7, Timestamp)
    completed: Timestamp | None = pb.embedded(8, Timestamp)


@dataclass
class VertexLog(Message):
    vertex: str = pb.text(1)
    timestamp: Timestamp | None = pb.embedded(2, Timestamp)
    stream: int = pb.number(3)
    msg: bytes = pb.data(4)


@dataclass
class SourceInfo(Message):
    filename: str = pb.text(1)
    data: bytes = pb.data(2)
    language: str = pb.text(4)


@dataclass
class Position(Message):
    line: int = pb.number(1)


@dataclass
class Range(Message):
    start: Position | None = pb.embedded(1, Position)
    end: Position | None = pb.embedded(2, Position)


@dataclass
class VertexWarning(Message):
    vertex: str = pb.text(1)
    level: int = pb.number(2)
    short: bytes = pb.data(3)
    detail: list[bytes] = pb.repeated(4, bytes)
    url: str = pb.text(5)
    info: SourceInfo | None = pb.embedded(6, SourceInfo)
    ranges: list[Range] = pb.repeated(7, Range)


@dataclass
class StatusResponse(Message):
    vertexes: list[Vertex] = pb.repeated(1, Vertex)
    statuses: list[VertexStatus] = pb.repeated(2, VertexStatus)
    logs: list[VertexLog] = pb.repeated(3, VertexLog)
    warnings: list[VertexWarning] = pb.repeated(4, VertexWarning)


# -- LLBBridge: calls of a frontend, such as buildx


@dataclass
class APICap(Message):
    id: str = pb.text(1)
    enabled: bool = pb.flag(2)


@dataclass
class PingRequest(Message):
    pass


@dataclass
class PongResponse(Message):
    frontend_caps: list[APICap] = pb.repeated(1, APICap)
    llb_caps: list[APICap] = pb.repeated(2, APICap)
    workers: list[WorkerRecord] = pb.repeated(3, WorkerRecord)


@dataclass
class Ref(Message):
    id: str = pb.text(1)


@dataclass
class Result(Message):
    ref: Ref | None = pb.embedded(3, Ref)
    metadata: dict[str, bytes] = pb.mapping(10, bytes)


@dataclass
class BridgeSolveRequest(Message):
    definition: Definition | None = pb.embedded(1, Definition)
    frontend: str = pb.text(2)
    frontend_opt: dict[str, str] = pb.mapping(3, str)
    cache_imports: list[CacheOptionsEntry] = pb.repeated(12, CacheOptionsEntry)


@dataclass
class BridgeSolveResponse(Message):
    result: Result | None = pb.embedded(3, Result)


@dataclass
class ReturnRequest(Message):
    result: Result | None = pb.embedded(1, Result)
    error: RpcStatus | None = pb.embedded(2, RpcStatus)


@dataclass
class ReturnResponse(Message):
    pass


@dataclass
class EvaluateRequest(Message):
    ref: str = pb.text(1)


@dataclass
class EvaluateResponse(Message):
    pass


@dataclass
class Stat(Message):
    """`mode` has the bits of Go's FileMode; `mtime` is in nanoseconds."""

    path: str = pb.text(1)
    mode: int = pb.number(2)
    uid: int = pb.number(3)
    gid: int = pb.number(4)
    size: int = pb.number(5)
    mtime: int = pb.number(6)
    linkname: str = pb.text(7)
    major: int = pb.number(8)
    minor: int = pb.number(9)
    xattrs: dict[str, bytes] = pb.mapping(10, bytes)


@dataclass
class StatFileRequest(Message):
    ref: str = pb.text(1)
    path: str = pb.text(2)


@dataclass
class StatFileResponse(Message):
    stat: Stat | None = pb.embedded(1, Stat)


@dataclass
class FileRange(Message):
    offset: int = pb.number(1)
    length: int = pb.number(2)


@dataclass
class ReadFileRequest(Message):
    ref: str = pb.text(1)
    path: str = pb.text(2)
    range: FileRange | None = pb.embedded(3, FileRange)


@dataclass
class ReadFileResponse(Message):
    data: bytes = pb.data(1)


@dataclass
class WarnRequest(Message):
    digest: str = pb.text(1)
    level: int = pb.number(2)
    short: bytes = pb.data(3)
    detail: list[bytes] = pb.repeated(4, bytes)
    url: str = pb.text(5)


@dataclass
class WarnResponse(Message):
    pass
