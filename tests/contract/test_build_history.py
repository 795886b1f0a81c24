"""The history of builds: records, logs and provenance of builds by buildx, asked as newer clients ask."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from grpclib.exceptions import GRPCError

from havre.api.buildkit import historymessages as h
from havre.api.buildkit import messages as m
from support.building import write_context
from support.buildkit import CONTROL, Caller, calling
from support.engines import Engine, Havred, serving
from support.waiting import until

CONTENT = "/containerd.services.content.v1.Content/"
COMPLETED, GONE = 1, 2

T = TypeVar("T")


def asked(engine: Engine, work: Callable[[Caller], Awaitable[T]]) -> T:
    """What `work` returns with a caller of the engine."""

    async def ask() -> T:
        async with asyncio.timeout(30), calling(engine.socket) as caller:
            return await work(caller)

    return asyncio.run(ask())


def records(engine: Engine, ref: str = "", filters: tuple[str, ...] = ()) -> list[h.BuildHistoryRecord]:
    """The builds that have ended, oldest first."""

    async def ask(caller: Caller) -> list[h.BuildHistoryRecord]:
        request = h.BuildHistoryRequest(ref=ref, early_exit=True, filter=list(filters))
        events = caller.listen(f"{CONTROL}ListenBuildHistory", request, h.BuildHistoryEvent)
        return [event.record async for event in events if event.type == COMPLETED and event.record]

    return sorted(asked(engine, ask), key=lambda each: (each.created_at.seconds, each.created_at.nanos))  # type: ignore[union-attr]


def log_of(engine: Engine, ref: str) -> tuple[dict[str, str], str]:
    """The steps of a build with their errors, and its output."""

    async def ask(caller: Caller) -> list[m.StatusResponse]:
        return [each async for each in caller.listen(f"{CONTROL}Status", m.StatusRequest(ref), m.StatusResponse)]

    messages = asked(engine, ask)
    steps = {vertex.name: vertex.error for each in messages for vertex in each.vertexes}
    return steps, b"".join(log.msg for each in messages for log in each.logs).decode()


def content(engine: Engine, digest: str, offset: int = 0, size: int = 0) -> bytes:
    """A document."""

    async def ask(caller: Caller) -> bytes:
        request = h.ReadContentRequest(digest, offset, size)
        parts = caller.listen(f"{CONTENT}Read", request, h.ReadContentResponse)
        return b"".join([each.data async for each in parts])

    return asked(engine, ask)


def update(engine: Engine, request: h.UpdateBuildHistoryRequest) -> None:
    """Change a record."""
    asked(engine, lambda caller: caller.ask(f"{CONTROL}UpdateBuildHistory", request, h.UpdateBuildHistoryResponse))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path / "context", "FROM busybox\nARG WHO\nRUN echo made by $WHO\n")


def built(engine: Engine, context: Path, *flags: str, check: int = 0) -> h.BuildHistoryRecord:
    """The record of a build by buildx."""
    known = {each.ref for each in records(engine)}
    engine.docker("buildx", "build", "--no-cache", *flags, str(context), check=check)
    (record,) = [each for each in records(engine) if each.ref not in known]
    return record


@pytest.mark.peer
def test_a_build_is_recorded(engine: Engine, context: Path) -> None:
    record = built(engine, context, "-t", "recorded:1", "--build-arg", "WHO=me")
    assert record.frontend_attrs["build-arg:WHO"] == "me"
    assert record.created_at is not None
    assert record.completed_at is not None
    assert record.completed_at.seconds >= record.created_at.seconds
    assert record.error is None
    steps, output = log_of(engine, record.ref)
    assert any(name.startswith("[2/2] RUN echo made by") for name in steps)
    assert not any(steps.values())
    assert "made by me\n" in output
    assert record.result is not None
    (proof,) = record.result.attestations
    assert proof.media_type == "application/vnd.in-toto+json"
    assert proof.annotations["in-toto.io/predicate-type"] == "https://slsa.dev/provenance/v0.2"
    predicate = json.loads(content(engine, proof.digest))
    assert predicate["invocation"]["parameters"]["args"]["build-arg:WHO"] == "me"
    assert content(engine, proof.digest, 1, 3) == content(engine, proof.digest)[1:4]
    engine.docker("rmi", "-f", "recorded:1", check=0)


@pytest.mark.peer
def test_a_build_that_fails(engine: Engine, context: Path) -> None:
    write_context(context, "FROM busybox\nRUN echo before; exit 7\n")
    record = built(engine, context, check=1)
    assert record.error is not None
    assert "exit code: 7" in record.error.message
    steps, output = log_of(engine, record.ref)
    assert "exit code: 7" in steps["[2/2] RUN echo before; exit 7"]
    assert "before\n" in output


@pytest.mark.peer
def test_a_build_that_is_left(engine: Engine, context: Path, tmp_path: Path) -> None:
    write_context(context, "FROM busybox\nRUN echo it has begun; sleep 300\n")
    known, output = {each.ref for each in records(engine)}, tmp_path / "output"
    with output.open("wb") as out:
        command = ["docker", "buildx", "build", "--no-cache", "--progress=plain", str(context)]
        running = subprocess.Popen(command, env=engine.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    until(lambda: " it has begun\n" in output.read_text(), "the step to begin")
    running.send_signal(signal.SIGINT)
    running.wait(20)
    until(lambda: [each for each in records(engine) if each.ref not in known], "the record")
    (record,) = [each for each in records(engine) if each.ref not in known]
    assert record.error is not None
    assert "context canceled" in record.error.message


@pytest.mark.peer
def test_records_are_pinned_and_removed(engine: Engine, context: Path) -> None:
    record = built(engine, context)
    update(engine, h.UpdateBuildHistoryRequest(record.ref, pinned=True))
    assert records(engine, record.ref)[0].pinned
    update(engine, h.UpdateBuildHistoryRequest(record.ref, delete=True))
    assert record.ref not in {each.ref for each in records(engine)}


def test_documents_go_with_their_record(havred: Engine, context: Path) -> None:
    record = built(havred, context)
    assert record.logs is not None
    assert content(havred, record.logs.digest)
    update(havred, h.UpdateBuildHistoryRequest(record.ref, delete=True))
    with pytest.raises(GRPCError, match="not found"):
        content(havred, record.logs.digest)
    with pytest.raises(GRPCError, match="no build record"):
        update(havred, h.UpdateBuildHistoryRequest(record.ref, delete=True))


def test_steps_are_counted_and_details_of_an_error_are_kept(havred: Engine, context: Path) -> None:
    assert built(havred, context).num_total_steps == built(havred, context).num_completed_steps > 2
    write_context(context, "FROM busybox\nRUN false\n")
    record = built(havred, context, check=1)
    assert record.num_completed_steps == record.num_total_steps
    assert record.external_error is not None
    assert b"errdefs.Source" in content(havred, record.external_error.digest)


def test_filters(havred: Engine, context: Path) -> None:
    good = built(havred, context)
    write_context(context, "FROM busybox\nRUN false\n")
    bad = built(havred, context, check=1)
    found = {each.ref for each in records(havred, filters=(f"status==error,ref~={bad.ref[:9]}",))}
    assert found == {bad.ref}
    assert good.ref in {each.ref for each in records(havred, filters=("startedAt>=1h,status==completed",))}
    with pytest.raises(GRPCError, match="failed to parse history filters"):
        records(havred, filters=("colour==red",))


def test_several_platforms(havred: Engine, context: Path) -> None:
    write_context(context, "FROM scratch\nCOPY Dockerfile /\n")
    record = built(havred, context, "--platform", "linux/amd64,linux/arm64", "-t", "recorded:2")
    assert [each.attrs["name"] for each in record.exporters] == ["recorded:2"]
    assert set(record.results) == {"linux/amd64", "linux/arm64"}
    assert record.result is None
    havred.docker("rmi", "-f", "recorded:2", check=0)


def test_changes_are_told_while_a_client_listens(havred: Engine, context: Path) -> None:
    async def listen(caller: Caller) -> list[tuple[int, str]]:
        events = caller.listen(f"{CONTROL}ListenBuildHistory", h.BuildHistoryRequest(), h.BuildHistoryEvent)
        first = built_ref = ""
        told = []
        building: asyncio.Task[h.BuildHistoryRecord] | None = asyncio.create_task(
            asyncio.to_thread(built, havred, context)
        )
        async for event in events:
            assert event.record is not None
            first = first or (event.record.ref if event.type == 0 else "")
            if event.record.ref == first:
                told.append((event.type, event.record.ref))
            if building is not None and told and told[-1][0] == COMPLETED:
                built_ref = (await building).ref
                building = None
                update_of = h.UpdateBuildHistoryRequest(built_ref, delete=True)
                await caller.ask(f"{CONTROL}UpdateBuildHistory", update_of, h.UpdateBuildHistoryResponse)
            if told and told[-1][0] == GONE:
                break
        assert first == built_ref
        return told

    assert [type for type, _ in asked(havred, listen)] == [0, COMPLETED, GONE]


@pytest.fixture
def limited(tmp_path: Path, archive: Path) -> Iterator[Engine]:
    """A daemon that keeps two records, whatever their age."""
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"builder": {"history": {"maxEntries": 2}}}))
    with serving(Havred(["--config-file", str(file)]), archive) as engine:
        yield engine


def test_limits_and_a_restart(limited: Engine, context: Path) -> None:
    made = [built(limited, context).ref for _ in range(2)]
    limited.docker("buildx", "build", str(context), check=0)
    kept = [each.ref for each in records(limited)]
    assert len(kept) == 2
    assert kept[0] == made[1]
    limited.stop()
    limited.start()
    assert [each.ref for each in records(limited)] == kept
    assert "made by" in log_of(limited, kept[0])[1]
