"""Questions about a Dockerfile instead of builds (`--call`), by buildx: the same answers from havre and dockerd."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.building import write_context
from support.engines import Engine
from support.imagery import archive
from support.raw import ask

_DOCKERFILE = """# syntax comments do not count
ARG BASE=busybox
ARG TAG=latest
ARG REF=$BASE:$TAG
ARG UNUSED=1
# common files for all
FROM $REF AS common
# WHO builds it
ARG WHO=me
ARG TAG
RUN --mount=type=secret,id=token,required=true true

FROM busybox AS unneeded
ARG NOT=listed
# app the server
FROM common AS app
ARG WHO=you
ARG NONE
RUN --mount=type=ssh --mount=type=secret,id=other true
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path, _DOCKERFILE)


def asked(engine: Engine, call: str, context: Path, *flags: str, check: int = 0) -> str:
    """What buildx prints for a call."""
    env, engine.env = engine.env, {**engine.env, "BUILDX_EXPERIMENTAL": "1"}
    try:
        done = engine.docker("buildx", "build", f"--print={call}", *flags, str(context), check=check)
    finally:
        engine.env = env
    return done.stdout if check == 0 else done.stderr


def line_of(parameter: Mapping[str, Any]) -> int:
    """Where a parameter is."""
    line: int = parameter["location"]["ranges"][0]["start"]["line"]
    return line


@pytest.mark.peer
def test_the_parameters_of_a_target(engine: Engine, context: Path) -> None:
    found = json.loads(asked(engine, "outline,format=json", context, "--build-arg", "NONE=some"))
    assert [(each["name"], each.get("value"), line_of(each)) for each in found["args"]] == [
        ("BASE", "busybox", 2), ("TAG", "latest", 3), ("REF", "busybox:latest", 4), ("WHO", "you", 17),
        ("NONE", "some", 18),
    ]  # fmt: skip
    assert [(each["name"], each.get("required", False), line_of(each)) for each in found["secrets"]] == [
        ("token", True, 11),
        ("other", False, 19),
    ]
    assert [(each["name"], line_of(each)) for each in found["ssh"]] == [("default", 19)]
    assert (found["name"], found["description"]) == ("app", "the server")
    assert base64.b64decode(found["sources"][0]).decode() == _DOCKERFILE
    other = json.loads(asked(engine, "outline,format=json", context, "--target", "unneeded"))
    assert [each["name"] for each in other["args"]] == ["NOT"]
    assert "secrets" not in other


@pytest.mark.peer
def test_the_targets(engine: Engine, context: Path) -> None:
    assert asked(engine, "targets", context).splitlines() == [
        "TARGET        DESCRIPTION",
        "common        files for all",
        "unneeded      ",
        "app (default) the server",
    ]
    found = json.loads(asked(engine, "targets,format=json", context))
    places = {each["base"]: line_of(each) for each in found["targets"]}
    assert places == {"$REF": 7, "busybox": 13, "common": 16}


@pytest.mark.peer
def test_questions_that_cannot_be_answered(engine: Engine, context: Path) -> None:
    assert 'target stage "ap" could not be found' in asked(engine, "outline", context, "--target", "ap", check=1)
    assert "nonsense" in asked(engine, "nonsense", context, check=1)
    (context / "Dockerfile").write_text("FROM busybox\nRUM true\n")
    assert "RUM" in asked(engine, "outline", context, check=1)


@pytest.mark.peer
def test_the_list_of_questions(engine: Engine, context: Path) -> None:
    described = asked(engine, "subrequests.describe", context)
    assert {"outline", "targets", "subrequests.describe"} <= {line.split()[0] for line in described.splitlines()}
    found = json.loads(asked(engine, "subrequests.describe,format=json", context))
    assert {"frontend.outline", "frontend.targets"} <= {each["name"] for each in found}


def test_a_question_pulls_and_stores_nothing(havred: Engine, context: Path) -> None:
    def stored() -> tuple[list[str], list[tuple[str, int]]]:
        cache = ask(havred.socket, "GET", "/system/df?type=build-cache").json["BuildCache"] or []
        return sorted(havred.out("images", "-aq").split()), sorted((each["ID"], each["Size"]) for each in cache)

    before = stored()
    asked(havred, "outline", context)
    asked(havred, "targets", context)
    assert stored() == before


def test_the_answers_by_http(havred: Engine, context: Path) -> None:
    head = {"Content-Type": "application/x-tar"}
    body = archive({"Dockerfile": _DOCKERFILE.encode()})
    answer = ask(havred.socket, "POST", "/build/check?call=targets", body, head)
    text, report = (json.loads(line) for line in answer.body.splitlines())
    assert text["stream"].startswith("TARGET        DESCRIPTION\ncommon")
    assert [each["name"] for each in report["aux"]["Report"]["targets"]] == ["common", "unneeded", "app"]
    assert ask(havred.socket, "POST", "/build/check?call=nonsense", body, head).status == 400
