"""The shape of the code: modules and functions stay small enough to be read in one go, tests are named by subject."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "havre"
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = Path(__file__).resolve().parents[1]
MODULE_LINES, FUNCTION_LINES = 500, 60


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


def dotted(module: Path) -> str:
    return ".".join(("havre", *module.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {dotted(module): module for module in MODULES}


def imports(module: Path) -> set[str]:
    """The modules of ours that a module imports when it is loaded or later, those for types alone left out."""
    tree = ast.parse(module.read_text())
    found: set[str] = set()
    for node in filter(None, map(_import_of, _run_time(tree))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif node.module is not None:
            inside = {f"{node.module}.{each.name}" for each in node.names}
            found |= {name if name in NAMES else node.module for name in inside}
    return {name for name in found if name in NAMES and name != dotted(module)}


def _import_of(node: ast.AST) -> ast.Import | ast.ImportFrom | None:
    return node if isinstance(node, ast.Import | ast.ImportFrom) else None


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from _run_time(child)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: imports(module) for name, module in NAMES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_names_of_tests_say_the_subject_and_no_history() -> None:
    history = re.compile(r"(?:^|_)(?:review|more|misc|issue|round|storageb|hundred)\d*(?:_|$)")
    names = [path.stem for path in TESTS.rglob("test_*.py")]
    assert [name for name in names if history.search(name.removeprefix("test_"))] == []
