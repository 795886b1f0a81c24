"""What of a context a Dockerfile can want."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from havre.builds.wanted import EVERYTHING, wanted_of
from havre.dockerfile.graph import Stage, plan_graph
from havre.dockerfile.syntax import parse_dockerfile
from havre.oci.platform import parse_platform

BASES = {"plain": (), "triggers": ("COPY trigger.txt /",), "all": ("COPY . /",), "variable": ("ADD $X /",)}
OWN = parse_platform("linux/amd64")


def wanted(text: str, name: str = "context", target: str = "") -> list[str]:
    graph = plan_graph(parse_dockerfile(text.encode(), "Dockerfile"), {}, target, OWN, OWN)

    async def triggers(stage: Stage) -> Sequence[str] | None:
        return BASES.get(stage.base)

    return asyncio.run(wanted_of(name, graph, frozenset({"docs"}), triggers))


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM plain\nRUN true\n", []),
        ("FROM plain\nCOPY b /a/../c a*.txt /x/\nADD --chown=1 d/ /y\n", ["a*.txt", "b", "c", "d"]),
        ("FROM plain\nCOPY <<E b /x/\ntext\nE\n", ["b"]),
        ("FROM plain\nRUN --mount=source=s,target=/s --mount=type=cache,target=/c true\n", ["s"]),
        ("FROM triggers\nCOPY a /\n", ["a", "trigger.txt"]),
        ("FROM plain AS one\nONBUILD COPY later /\nFROM one\n", ["later"]),
        ("FROM plain AS one\nCOPY unused /\nFROM plain\nCOPY a /\n", ["a"]),
        ("FROM plain AS one\nCOPY used /\nFROM plain\nCOPY --from=one / /\nCOPY --from=docs d /\n", ["used"]),
        ("FROM docs\nCOPY a /\n", ["a"]),
    ],
)
def test_what_is_known(dockerfile: str, expected: list[str]) -> None:
    assert wanted(dockerfile) == expected


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM plain\nCOPY . /\n",
        "FROM plain\nCOPY a/.. /\n",
        "FROM plain\nARG V\nCOPY $V /\n",
        'FROM plain\nCOPY "a b" /\n',
        "FROM plain\nCOPY a\\ b /\n",
        "FROM plain\nCOPY a/**/b [ab] /\n",
        "FROM plain\nARG V\nCOPY --from=$V a /\n",
        "FROM plain\nRUN --mount=target=/s true\n",
        "FROM elsewhere\nCOPY a /\n",
        "FROM all\n",
        "FROM variable\n",
        "FROM elsewhere AS one\nFROM plain\nCOPY a /\nCOPY --from=one /x /\n",
    ],
)
def test_what_may_be_everything(dockerfile: str) -> None:
    assert wanted(dockerfile) == EVERYTHING


def test_further_contexts() -> None:
    text = "FROM plain\nCOPY a /\nCOPY --from=docs b /\nRUN --mount=type=cache,from=docs,source=c,target=/c true\n"
    assert wanted(text, "docs") == ["b", "c"]
    assert wanted(text) == ["a"]
    assert wanted("FROM docs\n", "docs") == EVERYTHING


def test_a_target() -> None:
    text = "FROM plain AS one\nCOPY a /\nFROM plain AS two\nCOPY . /\n"
    assert wanted(text, target="one") == ["a"]
