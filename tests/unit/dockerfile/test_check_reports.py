"""Policies of build checks, and what a check gives to tools."""

from __future__ import annotations

import base64
import json

import pytest

from havre.dockerfile.checks import CheckReport, Finding, Policy, parse_policy
from havre.dockerfile.syntax import excerpt
from havre.errors import InvalidInput


def test_a_policy() -> None:
    assert parse_policy("") == Policy()
    policy = parse_policy(" skip=JSONArgsRecommended, StageNameCasing;error=TRUE")
    assert policy.fails
    assert not policy.wants("StageNameCasing")
    assert policy.wants("FromAsCasing")
    assert not policy.wants("InvalidDefinitionDescription")
    only = parse_policy("skip=all;experimental=InvalidDefinitionDescription")
    assert only.wants("InvalidDefinitionDescription")
    assert not only.wants("FromAsCasing")


@pytest.mark.parametrize("text", ["skip", "bogus=1", "error=perhaps"])
def test_a_policy_that_says_nothing(text: str) -> None:
    with pytest.raises(InvalidInput, match=f'invalid check option "{text}"'):
        parse_policy(text)


def test_the_document_of_a_check() -> None:
    lines = ["FROM a as b"]
    report = CheckReport("Dockerfile", b"FROM a as b", (Finding(1, 1, "FromAsCasing", "mixed"),), lines=lines)
    document = json.loads(report.document())
    (warning,) = document["warnings"]
    assert warning["ruleName"] == "FromAsCasing"
    assert warning["url"] == "https://docs.docker.com/go/dockerfile/rule/from-as-casing/"
    assert warning["location"] == {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}
    assert base64.b64decode(document["sources"][0]["data"]) == b"FROM a as b"
    broken = CheckReport("Dockerfile", b"", error="unknown instruction", error_line=3)
    assert broken.failed
    assert json.loads(broken.document())["buildError"]["message"] == "unknown instruction"


def test_lines_around_those_meant() -> None:
    lines = [f"line {number}" for number in range(1, 10)]
    assert excerpt("f", lines, 5, 5).splitlines()[2:-1] == [
        "   3 |     line 3",
        "   4 |     line 4",
        "   5 | >>> line 5",
        "   6 |     line 6",
        "   7 |     line 7",
    ]
    assert "   9 | >>> line 9\n" in excerpt("f", lines, 9, 12)
    assert excerpt("f", lines, 12, 12) == ""
