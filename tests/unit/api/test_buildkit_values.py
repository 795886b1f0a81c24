"""BuildKit's options, exporters, statuses and jobs, by value."""

from __future__ import annotations

import asyncio
import stat

import pytest

from havre.api.buildkit.exporters import Export, Push, parse_exporter
from havre.api.buildkit.filesync import parse_stat
from havre.api.buildkit.jobs import REMEMBERED, Jobs
from havre.api.buildkit.messages import SolveRequest, Stat, StatusResponse
from havre.api.buildkit.options import (
    FRONTEND,
    CacheExports,
    Options,
    parse_cache,
    parse_options,
)
from havre.api.buildkit.posted import exporters_of
from havre.api.buildkit.status import MAX_UNREAD_LOG, Status
from havre.builds.progress import Declared, Finished, Log, Started, Transfer, Vertex, Warned
from havre.builds.request import Attestations, CacheTarget
from havre.errors import Conflict, HavreError, InvalidInput, NotFound
from havre.images.layout import LayoutForm

STEP = Vertex("sha256:aa", "[1/1] RUN x", ("sha256:bb",))


def options(frontend: str = FRONTEND, entitlements: tuple[str, ...] = (), **attrs: str) -> Options:
    spelled = {name.replace("_", "-"): value for name, value in attrs.items()}
    return parse_options(frontend, spelled, ref="r", tags=("t:1",), store=True, entitlements=entitlements)


def test_outputs_of_a_query_are_read_as_go_reads_them() -> None:
    for text in ("", "null", "[]"):
        assert [each.type for each in exporters_of(text, ())] == ["moby"]
    (found,) = exporters_of('[{"type":"tar","ATTRS":{"dest":"-","name":null}}]', ("t:1",))
    assert (found.type, found.attrs) == ("tar", {"dest": "-", "name": ""})
    for text in ("{}", "[", '[{"Type":5}]', '[{"x":' + "[" * 100_000):
        with pytest.raises(InvalidInput, match=r"^invalid outputs specified: "):
            exporters_of(text, ())


def test_the_options_of_a_build() -> None:
    attrs = {
        "filename": "My.Dockerfile",
        "build-arg:A": "1",
        "label:l": "x",
        "target": "t",
        "no-cache": "",
        "image-resolve-mode": "pull",
        "add-hosts": "a=1.2.3.4,b=::1",
        "ulimit": "nofile=10:20,nproc=5",
        "shm-size": "1048576",
        "context:base": "docker-image://busybox",
        "context:src": "local:src",
        "attest:provenance": "mode=min,inline-only=true",
        "vcs:source": "https://me:password@example.org/r.git",
        "vcs:revision": "abc",
    }
    parsed = parse_options(FRONTEND, attrs, ref="r", tags=("t:1",), store=True, entitlements=())
    request = parsed.request
    assert (request.id, request.tags, request.dockerfile, request.target) == ("r", ("t:1",), "My.Dockerfile", "t")
    assert (request.build_args, request.labels) == ({"A": "1"}, {"l": "x"})
    assert (request.no_cache, request.no_cache_stages, request.pull) == (True, (), True)
    assert request.extra_hosts == ("a:1.2.3.4", "b:::1")
    assert [(each.name, each.soft, each.hard) for each in request.ulimits] == [("nofile", 10, 20), ("nproc", 5, 5)]
    assert request.shm_size == 1 << 20
    assert (request.contexts, request.local_contexts) == ({"base": "docker-image://busybox"}, {"src"})
    assert parsed.locals == {"context": "context", "src": "src"}
    assert request.attestations == Attestations()
    assert request.vcs == {"source": "https://example.org/r.git", "revision": "abc"}


def test_options_that_name_things() -> None:
    assert options(no_cache="a,b").request.no_cache_stages == ("a", "b")
    assert not options(no_cache="a,b").request.no_cache
    assert options(context="http://buildkit-session/abc").upload == "abc"
    assert options(entitlements=("network.host",), force_network_mode="host").request.network == "host"


@pytest.mark.parametrize(
    ("frontend", "attrs", "told"),
    [
        ("gateway.v0", {"source": "docker/dockerfile:1"}, "docker/dockerfile:1"),
        (FRONTEND, {"attest:other": ""}, "other"),
        (FRONTEND, {"context": "ftp://example.com/x"}, "ftp://example.com/x"),
        (FRONTEND, {"context:x": "oci-layout://y"}, "oci-layout://y"),
        (FRONTEND, {"force-network-mode": "container:x"}, "container:x"),
        (FRONTEND, {"ulimit": "nofile=a"}, "nofile=a"),
        (FRONTEND, {"shm-size": "64m"}, "64m"),
    ],
)
def test_options_that_are_refused(frontend: str, attrs: dict[str, str], told: str) -> None:
    with pytest.raises(HavreError, match=told.replace("[", r"\[")):
        parse_options(frontend, attrs, ref="r", tags=(), store=True, entitlements=())


def test_exporters() -> None:
    assert parse_exporter("moby", {"name": "a:1,b"}) == Export("image", ("a:1", "b"))
    pushed = {"push": "true", "name": "a", "compression": "gzip"}
    assert parse_exporter("image", pushed) == Export("image", ("a",), push=Push())
    special = parse_exporter("image", {**pushed, "oci-mediatypes": "true", "registry.insecure": "true"})
    assert special.push == Push(LayoutForm(compression="gzip"), insecure=True)
    assert parse_exporter("image", {**pushed, "push-by-digest": "1"}).tags == ()
    harmless = {"prefer-image-digest": "true", "load": "true", "push": "false", "rewrite-timestamp": "1"}
    assert parse_exporter("image", harmless) == Export("image")
    assert parse_exporter("local", {}) == Export("local")
    assert parse_exporter("oci", {"name": "a"}) == Export("oci", ("a",), LayoutForm(compression="gzip"))
    assert parse_exporter("docker", {"annotation.k": "v"}).form == LayoutForm(annotations={"k": "v"}, for_docker=True)
    levels = parse_exporter(
        "oci", {"annotation-manifest-descriptor[linux/arm64].k": "v", "annotation-index-descriptor.i": "w"}
    )
    assert levels.form.platform_descriptor_annotations == {"linux/arm64": {"k": "v"}}
    assert levels.form.index_descriptor_annotations == {"i": "w"}
    assert parse_exporter("oci", {"tar": "false"}).unpacked
    assert parse_exporter("tar", {"platform-split": "false"}).split is False
    for type, attrs, told in (
        ("gha", {}, "gha"),
        ("cacheonly", {}, "cacheonly"),
        ("local", {"mode": "copy"}, "unknown attribute mode of the exporter local"),
        ("oci", {"push": "true"}, "unknown attribute push of the exporter oci"),
        ("docker", {"oci-mediatypes": "true"}, "oci-mediatypes=true"),
        ("oci", {"annotation-layer.a": "b"}, "annotation-layer.a"),
        ("oci", {"annotation-index-descriptor[linux/arm64].a": "b"}, "annotation-index-descriptor"),
        ("image", {"annotation.a": "b"}, "needs push=true: stored images have no annotations"),
    ):
        with pytest.raises(HavreError, match=told):
            parse_exporter(type, attrs)


def test_caches_to_write() -> None:
    registry = ("registry", {"ref": "r/c:1", "mode": "max", "ignore-error": "true"})
    found = parse_cache([("inline", {}), registry, ("local", {"dest": "/d"})])
    assert found == CacheExports(True, (CacheTarget("r/c:1", "max", True), CacheTarget()), (("min", "local:/d"),))
    usual = {"ref": "r/c:1", "oci-mediatypes": "true", "image-manifest": "true", "compression": "gzip"}
    assert parse_cache([("registry", usual)]).targets == (CacheTarget("r/c:1"),)
    refused: tuple[tuple[str, dict[str, str]], ...] = (
        ("gha", {}),
        ("registry", {}),
        ("local", {"mode": "all"}),
        ("local", {"dest": "/d", "flavour": "sweet"}),
        ("registry", {"ref": "r/c:1", "compression": "zstd"}),
        ("registry", {"ref": "r/c:1", "registry.insecure": "true"}),
    )
    for type, attrs in refused:
        with pytest.raises(HavreError, match=rf"{type}|mode|flavour|compression|insecure"):
            parse_cache([(type, attrs)])


def test_a_status_tells_all_that_has_happened() -> None:
    async def read() -> list[StatusResponse]:
        status = Status()
        status.progress(Declared(STEP))
        status.progress(Started(STEP, 10.25))
        status.progress(Log(STEP, 1, b"out", 10.5))
        status.progress(Transfer(STEP, "files", 1, 2, 10.5))
        status.progress(Warned("StageNameCasing", "lower it", 3))
        status.progress(Finished(STEP, 11, error="failed"))
        status.close()
        return [message async for message in status.messages()]

    (told,) = asyncio.run(read())
    declared, started, finished = told.vertexes
    assert (declared.name, len(declared.inputs), declared.started) == (STEP.name, 1, None)
    assert declared.digest == started.digest != declared.inputs[0]
    assert started.started is not None
    assert (started.started.seconds, started.started.nanos) == (10, 250_000_000)
    assert (finished.error, finished.started, finished.completed is not None) == ("failed", started.started, True)
    assert [(log.vertex, log.stream, log.msg) for log in told.logs] == [(declared.digest, 1, b"out")]
    assert [(each.id, each.current, each.total) for each in told.statuses] == [("files", 1, 2)]
    assert told.warnings[0].short == b"StageNameCasing: lower it (line 3)"


def test_equal_steps_of_two_builds_are_told_apart() -> None:
    first, second = Status(), Status()
    for status in (first, second):
        status.progress(Declared(STEP))
    assert first._take().vertexes[0].digest != second._take().vertexes[0].digest


def test_unread_output_is_bounded_and_steps_are_not_lost() -> None:
    async def read() -> list[StatusResponse]:
        status = Status()
        for _ in range(3):
            status.progress(Log(STEP, 1, bytes(MAX_UNREAD_LOG // 2), 1))
        status.progress(Finished(STEP, 2))
        status.close()
        return [message async for message in status.messages()]

    told = asyncio.run(read())
    logs = [log for message in told for log in message.logs]
    assert len(logs) == 2
    assert logs[-1].msg.endswith(b"[output clipped]\n")
    assert told[0].vertexes[0].completed is not None


def test_the_calls_of_a_build_meet() -> None:
    async def meet() -> None:
        jobs = Jobs()
        with jobs.using("r") as job:
            with jobs.using("r") as same:
                assert same is job
            with job.solving(SolveRequest(ref="r")):
                assert (await job.request()).ref == "r"
                with pytest.raises(Conflict), job.solving(SolveRequest(ref="r")):
                    raise AssertionError
                failing = asyncio.ensure_future(job.fail(InvalidInput("no")))
                with pytest.raises(InvalidInput, match="no"):
                    await job.returned()
                job.finish("")
                assert not failing.done()
            await failing
        for number in range(2 * REMEMBERED):
            with jobs.using(str(number)):
                pass
        assert len(jobs._jobs) == REMEMBERED

    asyncio.run(meet())


def test_nothing_works_for_a_build_that_is_over() -> None:
    """What it borrowed would never be given back."""

    async def work() -> None:
        with Jobs().using("r") as job:
            with job.solving(SolveRequest(ref="r")), job.building():
                pass
            with pytest.raises(NotFound, match=r"^no such job$"), job.building():
                raise AssertionError

    asyncio.run(work())


def test_modes_are_those_of_go() -> None:
    def kind(mode: int, link: str = "") -> str:
        entry = parse_stat(Stat(path="p", mode=mode, linkname=link))
        return f"{entry.kind} {entry.mode:o}" if entry else "none"

    assert kind(0o644) == "file 644"
    assert kind(0o644, "other") == "hardlink 644"
    assert kind(1 << 31 | 1 << 20 | 0o777) == "dir 1777"
    assert kind(1 << 23 | 0o755) == f"file {stat.S_ISUID | 0o755:o}"
    assert kind(1 << 27 | 0o777, "target") == "symlink 777"
    assert kind(1 << 26 | 1 << 21 | 0o600) == "char 600"
    assert kind(1 << 24 | 0o600) == "none"
    with pytest.raises(InvalidInput):
        kind(1 << 19)
