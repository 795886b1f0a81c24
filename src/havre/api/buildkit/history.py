"""The history of builds in BuildKit's messages: logs, records, events and their filters. Pure.

    log of a record: length (4 bytes, little-endian), StatusResponse, length, StatusResponse ...
    filters:         "ref~=x,status==completed", "startedAt>24h": one of them must match, in all of its parts

Source: moby/buildkit solver/llbsolver/history (buildhistory.go, filter.go), api/services/control/control.proto.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from havre.api.buildkit import historymessages as h
from havre.api.buildkit import messages as m
from havre.api.buildkit.protobuf import decode, encode
from havre.builds.gitsource import parse_git_address
from havre.builds.history import Document, Record
from havre.errors import InvalidInput
from havre.golang.csvtext import split_csv
from havre.golang.times import parse_time
from havre.golang.units import parse_duration

LOG_TYPE, PROVENANCE_TYPE = "application/vnd.buildkit.status.v0", "application/vnd.in-toto+json"
ERROR_TYPE = "application/vnd.googeapis.google.rpc.status+proto"  # spelt as BuildKit spells it
CLIPPED = b"[output clipped]\n"
MAX_LOG = 1 << 20  # bytes of output in a record
_PREDICATE_TYPE = "in-toto.io/predicate-type"
_CANCELLED = 1  # gRPC's code
_LENGTH = struct.Struct("<I")
_FILTER = re.compile(r"(\w+)(~=|==|!=|>=|<=|>|<|=)(.*)", re.DOTALL)

_Test = Callable[[Record], bool]


def timestamp(seconds: float) -> m.Timestamp:
    """A time in seconds since the epoch as BuildKit's Timestamp."""
    whole = int(seconds)
    return m.Timestamp(whole, int((seconds - whole) * 1e9))


class StatusLog:
    """A build's status messages as a document; of the output of commands at most `MAX_LOG` bytes are kept."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._room = MAX_LOG
        self._steps: dict[str, set[str]] = {}
        self.warnings = 0

    def add(self, message: m.StatusResponse) -> None:
        """Append a message with one entry."""
        for log in message.logs:
            if self._room <= 0:
                return
            self._room -= len(log.msg)
            if self._room <= 0:
                message = m.StatusResponse(logs=[m.VertexLog(log.vertex, log.timestamp, log.stream, log.msg + CLIPPED)])
        for vertex in message.vertexes:
            known = self._steps.setdefault(vertex.digest, set())
            known |= {"cached"} if vertex.cached else set()
            known |= {"completed"} if vertex.completed is not None else set()
        self.warnings += len(message.warnings)
        self._messages.append(encode(message))

    def document(self) -> bytes:
        """All messages."""
        return b"".join(_LENGTH.pack(len(each)) + each for each in self._messages)

    def since(self, known: int) -> list[m.StatusResponse]:
        """The messages from the number `known` on."""
        return [decode(m.StatusResponse, each) for each in self._messages[known:]]

    def count(self, what: str = "") -> int:
        """The number of steps, of `cached` or of `completed` ones."""
        return sum(not what or what in known for known in self._steps.values())


def read_log(document: bytes) -> Iterator[m.StatusResponse]:
    """The messages of a log."""
    at = 0
    while at < len(document):
        (length,) = _LENGTH.unpack_from(document, at)
        at += _LENGTH.size + length
        yield decode(m.StatusResponse, document[at - length : at])


def render_record(record: Record) -> h.BuildHistoryRecord:
    """A record as BuildKit's clients read it."""
    results = {platform: h.BuildResultInfo(list(map(_render, each))) for platform, each in record.attestations.items()}
    only = results.pop("", None)
    return h.BuildHistoryRecord(
        ref=record.ref,
        frontend=record.frontend,
        frontend_attrs=record.attributes,
        exporters=[m.Exporter(type, attrs) for type, attrs in record.exporters],
        error=m.RpcStatus(record.error_code, record.error) if record.error_code else None,
        created_at=timestamp(record.created_at),
        completed_at=timestamp(record.completed_at) if record.completed_at else None,
        logs=_render(record.logs) if record.logs else None,
        exporter_response=record.response,
        result=only,
        results=results,
        generation=record.generation,
        pinned=record.pinned,
        num_cached_steps=record.cached_steps,
        num_total_steps=record.steps,
        num_completed_steps=record.completed_steps,
        external_error=_render(record.error_details) if record.error_details else None,
        num_warnings=record.warnings,
    )


def _render(document: Document) -> h.HistoryDescriptor:
    notes = {_PREDICATE_TYPE: document.kind} if document.kind else {}
    return h.HistoryDescriptor(document.media_type, document.digest, document.size, notes)


def select(records: Sequence[Record], filters: Sequence[str], limit: int) -> list[Record]:
    """The records that match one of the filters; with a limit the newest ones, newest first. Raises `InvalidInput`."""
    tests = [_parse_filter(text) for text in filters if text]
    found = [each for each in records if not tests or any(all(part(each) for part in parts) for parts in tests)]
    if limit < 0:
        raise InvalidInput(f"invalid limit {limit}")
    return sorted(found, key=lambda each: -each.created_at)[:limit] if limit else found


def _parse_filter(text: str) -> list[_Test]:
    try:
        return [_parse_part(part) for part in split_csv(text)]
    except ValueError as error:
        raise InvalidInput(f"failed to parse history filters {text!r}: {error}") from None


def _parse_part(text: str) -> _Test:
    if (found := _FILTER.fullmatch(text)) is None:
        raise ValueError(f"expected KEY, an operator and a value, not {text!r}")
    key, operator, value = found[1], found[2], found[3]
    if key in ("startedAt", "completedAt", "duration"):
        return _compared(key, operator, value)
    if key not in ("ref", "repository", "status"):
        raise ValueError(f"unknown key {key!r}")
    if operator == "~=":
        pattern = re.compile(re.escape(value))
        return lambda record: pattern.search(_texts(record)[key]) is not None
    if operator in ("==", "=", "!="):
        return lambda record: (_texts(record)[key] == value) is (operator != "!=")
    raise ValueError(f"{key} cannot be compared by {operator}")


def _compared(key: str, operator: str, value: str) -> _Test:
    """A comparison with a duration, or of a time with a moment or an age."""
    try:
        age = parse_duration(value) / 1e9
        bound = age if key == "duration" else time.time() - age
    except ValueError:
        if key == "duration":
            raise
        bound = parse_time(value)[0]
    comparisons: dict[str, Callable[[float, float], bool]] = {
        ">=": lambda one, other: one >= other,
        "<=": lambda one, other: one <= other,
        ">": lambda one, other: one > other,
        "<": lambda one, other: one < other,
    }
    if (compare := comparisons.get(operator)) is None:
        raise ValueError(f"{key} cannot be compared by {operator}")
    return lambda record: compare(_times(record)[key], bound)


def _texts(record: Record) -> dict[str, str]:
    context = record.attributes.get("context", "")
    address = parse_git_address(context)
    return {
        "ref": record.ref,
        "repository": record.attributes.get("vcs:source") or (context.partition("#")[0] if address else ""),
        "status": _status(record),
    }


def _status(record: Record) -> str:
    if not record.completed_at:
        return "running"
    if record.error_code:
        return "canceled" if record.error_code == _CANCELLED else "error"
    return "completed"


def _times(record: Record) -> dict[str, float]:
    took = record.completed_at - record.created_at if record.completed_at else 0
    return {"startedAt": record.created_at, "completedAt": record.completed_at, "duration": took}
