"""Records of builds in BuildKit's messages, as values."""

from __future__ import annotations

import asyncio
import time

import pytest

from havre.api.buildkit import history
from havre.api.buildkit.history import StatusLog, read_log, render_record, select
from havre.api.buildkit.messages import StatusResponse, Timestamp, Vertex, VertexLog, VertexWarning
from havre.api.buildkit.status import Status
from havre.builds.history import Document, Record
from havre.builds.progress import Log, Started, Transfer
from havre.builds.progress import Vertex as Step
from havre.errors import InvalidInput
from havre.oci.digest import Digest

STEP = Step("sha256:1", "[1/1] RUN true")
NOW = time.time()
RECORDS = [
    Record(
        ref="old", created_at=NOW - 7200, completed_at=NOW - 7190, attributes={"vcs:source": "https://host/one.git"}
    ),
    Record(ref="failed", created_at=NOW - 3000, completed_at=NOW - 2999, error_code=2, error="no"),
    Record(ref="left", created_at=NOW - 2900, completed_at=NOW - 600, error_code=1, error="context canceled"),
    Record(
        ref="new", created_at=NOW - 2000, completed_at=NOW - 1990, attributes={"context": "https://host/two.git#main"}
    ),
]


def matching(*filters: str) -> str:
    """The references of the records that match."""
    return " ".join(each.ref for each in select(RECORDS, filters, 0))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ("", "old failed left new"),
        ("ref~=e", "failed left new"),
        ("ref==new", "new"),
        ("status==completed", "old new"),
        ("status==error", "failed"),
        ("status==canceled", "left"),
        ("status!=completed", "failed left"),
        ("startedAt<1h", "old"),
        ("startedAt>=1h,status==completed", "new"),
        ("startedAt>2006-01-02T15:04:05Z", "old failed left new"),
        ("duration>5s", "old left new"),
        ("completedAt>20m", "left"),
        ("repository~=one", "old"),
        ("repository==https://host/two.git", "new"),
    ],
)
def test_filters(filters: str, found: str) -> None:
    assert matching(filters) == found


def test_filters_are_alternatives_and_a_limit_takes_the_newest() -> None:
    assert matching("ref==old", "ref==new") == "old new"
    assert [each.ref for each in select(RECORDS, [], 2)] == ["new", "left"]


@pytest.mark.parametrize("text", ["ref", "name==x", "ref>1", "duration==1s", "startedAt>soon", '"ref==x'])
def test_filters_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="failed to parse history filters"):
        matching(text)


def test_a_log_is_read_as_it_was_written() -> None:
    kept = StatusLog()
    messages = [
        StatusResponse(vertexes=[Vertex("sha256:1", name="one")]),
        StatusResponse(logs=[VertexLog("sha256:1", Timestamp(1), 1, b"out")]),
        StatusResponse(vertexes=[Vertex("sha256:1", name="one", cached=True, completed=Timestamp(2))]),
        StatusResponse(vertexes=[Vertex("sha256:2", name="two", completed=Timestamp(2))]),
        StatusResponse(warnings=[VertexWarning("sha256:2")]),
    ]
    for each in messages:
        kept.add(each)
    assert list(read_log(kept.document())) == messages == kept.since(0)
    assert kept.since(4) == messages[4:]
    assert (kept.count(), kept.count("cached"), kept.count("completed"), kept.warnings) == (2, 1, 2, 1)


def test_a_log_is_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_LOG", 6)
    kept = StatusLog()
    for text in (b"four", b"four", b"never"):
        kept.add(StatusResponse(logs=[VertexLog("sha256:1", None, 1, text)]))
    assert [each.logs[0].msg for each in kept.since(0)] == [b"four", b"four[output clipped]\n"]


def test_of_transfers_the_first_and_the_last_are_kept() -> None:
    async def work() -> list[int]:
        status = Status()
        for current in range(5):
            status.progress(Transfer(STEP, "files", current, 4, 1.0, done=current == 4))
        return [each.statuses[0].current for each in status.kept.since(0)]

    assert asyncio.run(work()) == [0, 4]


def test_a_second_reader_follows_what_is_kept() -> None:
    async def work() -> None:
        status = Status()
        first = status.messages()
        status.progress(Started(STEP, 1.0))
        assert len((await anext(first)).vertexes) == 1
        second = status.messages()
        assert (await anext(second)).vertexes[0].name == STEP.name
        status.progress(Log(STEP, 1, b"more", 2.0))
        status.close()
        assert [each.logs[0].msg async for each in second] == [b"more"]
        assert [each.logs[0].msg async for each in first] == [b"more"]

    asyncio.run(work())


def test_what_is_kept_is_freed_but_for_readers_that_have_begun() -> None:
    async def work() -> None:
        status = Status()
        first, second = status.messages(), status.messages()
        status.progress(Started(STEP, 1.0))
        status.progress(Log(STEP, 1, b"more", 2.0))
        await anext(first)
        await anext(second)
        status.close()
        status.forget()
        assert status.kept.since(0) == []
        assert [each.logs[0].msg async for each in second] == [b"more"]

    asyncio.run(work())


def test_a_record_as_message() -> None:
    proof = Document("application/json", Digest("sha256:2"), 7, "https://slsa.dev/provenance/v0.2")
    one = Record(ref="x", created_at=1.5, completed_at=2, error_code=2, error="no", attestations={"": [proof]})
    message = render_record(one)
    assert (message.error and message.error.message, message.created_at) == ("no", Timestamp(1, 500_000_000))
    assert message.result is not None
    assert message.result.attestations[0].annotations == {"in-toto.io/predicate-type": proof.kind}
    several = Record(ref="x", created_at=1, attestations={"linux/amd64": [proof], "linux/arm64": [proof]})
    assert set(render_record(several).results) == {"linux/amd64", "linux/arm64"}
    assert render_record(several).completed_at is None
