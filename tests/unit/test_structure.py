"""The shape of the code: modules and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "havre"
MODULES = sorted(SOURCE.rglob("*.py"))
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
