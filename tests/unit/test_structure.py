"""The shape of the code: modules and functions stay small enough to be read in one go, tests are named by subject."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "havre"
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = Path(__file__).resolve().parents[1]
MODULE_LINES, FUNCTION_LINES = 660, 80


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_size_and_docstring(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    assert ast.get_docstring(ast.parse(text)), "a module says what it owns"
    long = [f.name for f in functions(module) if (f.end_lineno or 0) - f.lineno >= FUNCTION_LINES]
    assert long == []


def test_names_of_tests_say_the_subject_and_no_history() -> None:
    history = re.compile(r"(?:^|_)(?:review|more|misc|issue|round|storageb|hundred)\d*(?:_|$)")
    names = [path.stem for path in TESTS.rglob("test_*.py")]
    assert [name for name in names if history.search(name.removeprefix("test_"))] == []
