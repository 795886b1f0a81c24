"""Dockerfiles and what is made of them: a pair of files each, and pairs of what is refused and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.buildtext import render, render_checks

_GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("case", sorted(path.name for path in (_GOLDEN / "dockerfile").iterdir()))
def test_understood(case: str) -> None:
    folder = _GOLDEN / "dockerfile" / case
    assert render((folder / "input").read_bytes()) == (folder / "expected").read_text()


@pytest.mark.parametrize("case", sorted(path.name for path in (_GOLDEN / "dockerfile-refused").iterdir()))
def test_refused(case: str) -> None:
    folder = _GOLDEN / "dockerfile-refused" / case
    assert render((folder / "input").read_bytes()) == (folder / "expected").read_text()


@pytest.mark.parametrize("case", sorted(path.name for path in (_GOLDEN / "dockerfile-checks").iterdir()))
def test_checked(case: str) -> None:
    folder = _GOLDEN / "dockerfile-checks" / case
    ignore = folder / "ignore"
    found = render_checks((folder / "input").read_bytes(), ignore.read_bytes() if ignore.exists() else b"")
    assert found == (folder / "expected").read_text()


def test_a_target_leaves_the_rest_out() -> None:
    text = b"FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\n"
    assert "stage 1" not in render(text, "one")
    assert render(text, "on") == 'target stage "on" could not be found (did you mean one?)\n'


def test_a_file_of_ten_megabytes_is_refused() -> None:
    assert "at most 4194304 are read" in render(b"FROM a\n" + b"RUN true\n" * 1_200_000)


def test_a_file_of_too_many_instructions_is_refused() -> None:
    message = render(b"FROM a\n" + b"RUN true\n" * 5000)
    assert message.startswith("dockerfile parse error on line 4097: more than 4096 instructions")
