"""Parameters and targets of Dockerfiles, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from havre.dockerfile.graph import plan_graph
from havre.dockerfile.outline import Report, list_targets, render_outline
from havre.dockerfile.syntax import DockerfileError, parse_dockerfile
from havre.oci.platform import parse_platform


def outline(
    text: str,
    target: str = "",
    given: Mapping[str, str] | None = None,
    bases: Mapping[int, Mapping[str, str]] | None = None,
) -> Report:
    """The outline of a Dockerfile built for the host's platform."""
    dockerfile, here = parse_dockerfile(text.encode()), parse_platform("linux/amd64")
    graph = plan_graph(dockerfile, given or {}, target, here, here)
    return render_outline(dockerfile, graph, text.encode(), given or {}, bases or {})


def arguments(report: Report) -> list[tuple[str, str, int]]:
    """Name, value and line of each argument."""
    found: list[dict[str, Any]] = json.loads(report.document).get("args", [])
    return [(each["name"], each.get("value", ""), each["location"]["ranges"][0]["start"]["line"]) for each in found]


def test_global_arguments_are_listed_where_used() -> None:
    text = "ARG A=1\nARG B=$A-2\nARG UNUSED=3\nFROM busybox:$B\n"
    assert arguments(outline(text)) == [("A", "1", 1), ("B", "1-2", 2)]
    assert arguments(outline(text, given={"B": "x"})) == [("B", "x", 2)]


def test_an_argument_that_builds_on_its_earlier_value() -> None:
    assert arguments(outline("ARG A=1\nARG B=$A\nARG B=${B}0\nFROM busybox:$B\n")) == [("A", "1", 1), ("B", "10", 3)]


def test_an_inherited_argument_keeps_the_place_of_the_global_one() -> None:
    text = "ARG A=1\nFROM busybox\nARG A\nARG C=$A$HOME\nARG TARGETARCH\nARG D\n"
    assert arguments(outline(text, bases={0: {"HOME": "/h"}})) == [("A", "1", 1), ("C", "1/h", 4), ("D", "", 6)]
    assert arguments(outline(text, given={"A": "2"}))[0] == ("A", "2", 3)


def test_stages_and_their_order() -> None:
    text = """FROM busybox AS lib
ARG L=1
RUN --mount=type=secret,id=one --mount=type=ssh true
FROM busybox AS other
ARG O=1
FROM lib AS app
ARG L=2
ENV E=$L
ARG M=$E
RUN --mount=type=secret,id=one,required=true --mount=type=secret,target=/run/two true
FROM scratch
COPY --from=app / /
"""
    report = outline(text)
    assert arguments(report) == [("L", "2", 7), ("M", "2", 9)]
    found = json.loads(report.document)
    lines = {each["name"]: each["location"]["ranges"][0]["start"]["line"] for each in found["secrets"]}
    assert lines == {"one": 10, "two": 10}
    assert found["ssh"] == [{"name": "default", "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]}}]
    assert [each[0] for each in arguments(outline(text, "other"))] == ["O"]
    assert "name" not in found


def test_the_text_of_an_outline() -> None:
    text = """# version of the base
ARG version=3
# app the server
FROM alpine:$version AS app
RUN --mount=type=secret,id=key,required=true true
"""
    assert outline(text).text == (
        "TARGET:      app\nDESCRIPTION: the server\n\n"
        "BUILD ARG   VALUE   DESCRIPTION\nversion     3       of the base\n\n"
        "SECRET   REQUIRED\nkey      true\n\n"
    )


def test_targets() -> None:
    text = b"ARG V=1\n# base for all\nFROM --platform=$BUILDPLATFORM alpine:$V AS base\n# unnamed x\nFROM base\n"
    report = list_targets(parse_dockerfile(text), text)
    first, second = json.loads(report.document)["targets"]
    assert first == {
        "name": "base",
        "description": "for all",
        "base": "alpine:$V",
        "platform": "$BUILDPLATFORM",
        "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]},
    }
    assert (second.get("name"), second["default"], second["base"]) == (None, True, "base")
    assert report.text == "TARGET    DESCRIPTION\nbase      for all\n(default) \n"


def test_a_file_without_stages() -> None:
    with pytest.raises(DockerfileError, match="no stages"):
        list_targets(parse_dockerfile(b"ARG A\n"), b"ARG A\n")


def test_a_value_that_cannot_be_expanded() -> None:
    with pytest.raises(DockerfileError, match="on line 2"):
        outline("FROM busybox\nARG A=${B:?missing}\n")
