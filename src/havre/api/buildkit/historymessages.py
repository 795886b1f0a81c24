"""The messages of the history of builds, and of containerd's content service by which its documents are read.

Source: moby/buildkit api/services/control/control.proto; containerd api/services/content/v1/content.proto.
"""

from __future__ import annotations

from dataclasses import dataclass

from havre.api.buildkit import protobuf as pb
from havre.api.buildkit.messages import Exporter, RpcStatus, Timestamp
from havre.api.buildkit.protobuf import Message


@dataclass
class BuildHistoryRequest(Message):
    active_only: bool = pb.flag(1)
    ref: str = pb.text(2)
    early_exit: bool = pb.flag(3)
    filter: list[str] = pb.repeated(4, str)
    limit: int = pb.number(5)


@dataclass
class HistoryDescriptor(Message):
    media_type: str = pb.text(1)
    digest: str = pb.text(2)
    size: int = pb.number(3)
    annotations: dict[str, str] = pb.mapping(5, str)


@dataclass
class BuildResultInfo(Message):
    attestations: list[HistoryDescriptor] = pb.repeated(2, HistoryDescriptor)


@dataclass
class BuildHistoryRecord(Message):
    ref: str = pb.text(1)
    frontend: str = pb.text(2)
    frontend_attrs: dict[str, str] = pb.mapping(3, str)
    exporters: list[Exporter] = pb.repeated(4, Exporter)
    error: RpcStatus | None = pb.embedded(5, RpcStatus)
    created_at: Timestamp | None = pb.embedded(6, Timestamp)
    completed_at: Timestamp | None = pb.embedded(7, Timestamp)
    logs: HistoryDescriptor | None = pb.embedded(8, HistoryDescriptor)
    exporter_response: dict[str, str] = pb.mapping(9, str)
    result: BuildResultInfo | None = pb.embedded(10, BuildResultInfo)
    results: dict[str, BuildResultInfo] = pb.mapping(11, BuildResultInfo)
    generation: int = pb.number(12)
    pinned: bool = pb.flag(14)
    num_cached_steps: int = pb.number(15)
    num_total_steps: int = pb.number(16)
    num_completed_steps: int = pb.number(17)
    external_error: HistoryDescriptor | None = pb.embedded(18, HistoryDescriptor)
    num_warnings: int = pb.number(19)


@dataclass
class BuildHistoryEvent(Message):
    type: int = pb.number(1)
    record: BuildHistoryRecord | None = pb.embedded(2, BuildHistoryRecord)


@dataclass
class UpdateBuildHistoryRequest(Message):
    ref: str = pb.text(1)
    pinned: bool = pb.flag(2)
    delete: bool = pb.flag(3)
    finalize: bool = pb.flag(4)


@dataclass
class UpdateBuildHistoryResponse(Message):
    pass


# -- containerd's content service: the documents of the history


@dataclass
class ContentInfoRequest(Message):
    digest: str = pb.text(1)


@dataclass
class ContentInfo(Message):
    digest: str = pb.text(1)
    size: int = pb.number(2)
    created_at: Timestamp | None = pb.embedded(3, Timestamp)
    updated_at: Timestamp | None = pb.embedded(4, Timestamp)


@dataclass
class ContentInfoResponse(Message):
    info: ContentInfo | None = pb.embedded(1, ContentInfo)


@dataclass
class ReadContentRequest(Message):
    digest: str = pb.text(1)
    offset: int = pb.number(2)
    size: int = pb.number(3)


@dataclass
class ReadContentResponse(Message):
    offset: int = pb.number(1)
    data: bytes = pb.data(2)
