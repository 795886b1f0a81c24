"""Failpoints: parsed strictly; every name is marked in the code; without traps nothing happens."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from havre.failpoints import POINTS, failpoint, parse_failpoints

SOURCE = Path(__file__).resolve().parents[2] / "src" / "havre"


def test_every_name_is_marked_and_every_mark_has_a_name() -> None:
    marked = set()
    for module in SOURCE.rglob("*.py"):
        if "import failpoint" not in (text := module.read_text()):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                words = [ast.unparse(word) for word in (node.func, *node.args)]
                if "failpoint" in words:  # called, or handed over to be called
                    marked.add(ast.literal_eval(words[words.index("failpoint") + 1]))
    assert marked == set(POINTS)


def test_without_traps_nothing_happens() -> None:
    for name in POINTS:
        failpoint(name)


@pytest.mark.parametrize("text", ["no.such=kill", "database.begin=explode", "database.begin", "database.begin=kill@x"])
def test_what_is_no_trap_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"failpoint|literal"):
        parse_failpoints(text)


PROGRAM = """
from havre.failpoints import failpoint
for each in range(3):
    try:
        failpoint("database.begin")
    except OSError as error:
        print("refused", end=" ")
    print(each, end=" ", flush=True)
"""


@pytest.mark.parametrize(
    ("traps", "said", "status"),
    [
        ("database.begin=kill@2", "0 ", -signal.SIGKILL),
        ("database.begin=error@2", "0 refused 1 2 ", 0),
        ("database.commit=kill;database.begin=error", "refused 0 refused 1 refused 2 ", 0),
        ("", "0 1 2 ", 0),
    ],
)
def test_traps(traps: str, said: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "HAVRE_FAILPOINTS": traps},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == (said, status), done.stderr
