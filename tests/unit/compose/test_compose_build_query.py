"""What a build of a service asks for, and what an engine is not told of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from havre.compose.build import build_query, cache_image, ignored, read_secrets
from havre.compose.load import Loader, Source
from havre.compose.project import Project
from havre.compose.steps import Build
from havre.errors import Failed, Unsupported


def _project(build: str, rest: str = "") -> Project:
    text = f"services: {{s: {{build: {build}}}}}\n{rest}"
    return Loader(Source(("-",), "/nowhere", "p", {"SET": "value"}, stdin=text)).project()


def test_hosts_limits_and_caches() -> None:
    project = _project(
        """{context: ., extra_hosts: ["a:1.2.3.4", "b:::1"], ulimits: {nofile: 7}, shm_size: 1m, pull: true,
            cache_from: [x:1, "type=registry,ref=y:2", "type=local,src=z"], cache_to: ["type=inline"]}"""
    )
    query = build_query(Build(project, "s", "p-s"), native=False)
    assert query["extrahosts"] == ["a:1.2.3.4", "b:::1"]
    assert json.loads(str(query["ulimits"])) == [{"Name": "nofile", "Soft": 7, "Hard": 7}]
    assert json.loads(str(query["cachefrom"])) == ["x:1", "y:2"]
    assert (query["shmsize"], query["pull"]) == ("1048576", "1")
    assert "cachefrom" not in build_query(Build(project, "s", "p-s"), native=True), "caches are told otherwise"


@pytest.mark.parametrize(
    ("build", "native", "elsewhere"),
    [
        ("{context: ., additional_contexts: {a: .}}", "", "additional_contexts"),
        ("{context: ., ssh: [default], privileged: true}", "", "privileged, ssh"),
        ("{context: ., cache_to: [type=inline]}", "", "cache_to type=inline"),
        ("{context: ., cache_to: [x, type=gha]}", "cache_to type=gha", "cache_to x, cache_to type=gha"),
        ("{context: ., cache_from: ['type=local,src=z']}", "", "cache_from type=local,src=z"),
        ("{context: ., platforms: [linux/amd64, linux/arm64]}", "", "platforms but the first"),
    ],
)
def test_what_is_not_told(build: str, native: str, elsewhere: str) -> None:
    given = _project(build).services["s"]["build"]
    told = [ignored(given, native=who, all_platforms=True) for who in (True, False)]
    assert told == [native, elsewhere]


@pytest.mark.parametrize(
    ("service", "build", "up"),
    [
        ("{build: {platforms: [linux/amd64, linux/arm64]}}", "linux/amd64,linux/arm64", ""),
        (
            "{platform: linux/arm64, build: {platforms: [linux/amd64, linux/arm64]}}",
            "linux/amd64,linux/arm64",
            "linux/arm64",
        ),
        ("{build: {platforms: [linux/arm64]}}", "linux/arm64", "linux/arm64"),
        ("{build: .}", "", ""),
    ],
)
def test_all_platforms_or_one(service: str, build: str, up: str) -> None:
    project = Loader(Source(("-",), "/nowhere", "p", {}, stdin=f"services: {{s: {service}}}")).project()
    asked = [build_query(Build(project, "s", "p-s", all_platforms=all), native=True) for all in (True, False)]
    assert [query.get("platform", "") for query in asked] == [build, up]


def test_secrets_by_id(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff")
    rest = f"secrets: {{f: {{file: {tmp_path}/f}}, set: {{environment: SET}}, unset: {{environment: UNSET}}}}"
    project = _project("{context: ., secrets: [f, {source: set, target: id}, unset]}", rest)
    assert read_secrets(project, project.services["s"]["build"]) == {"f": b"\xff", "id": b"value"}
    (tmp_path / "f").unlink()
    with pytest.raises(Failed, match=r"failed to read the secret f: .*/f: No such file"):
        read_secrets(project, project.services["s"]["build"])


def test_a_secret_that_is_elsewhere() -> None:
    project = _project("{context: ., secrets: [e]}", "secrets: {e: {external: true}}")
    with pytest.raises(Unsupported, match="only supports environment or file-based secrets"):
        read_secrets(project, project.services["s"]["build"])


def test_caches_named_both_ways() -> None:
    assert [cache_image(text) for text in ("a:1", "type=registry,ref=b", "type=gha")] == ["a:1", "b", ""]
