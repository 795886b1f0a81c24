"""pyproject.toml and the imports agree: what is imported is declared and pinned, what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Programs, plugins and stubs: used without an import.
TOOLS = {"import-linter", "mypy", "pytest-xdist", "ruff", "towncrier", "types-pyyaml"}


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {canonical(requirement.partition("==")[0]) for requirement in requirements}


def imported(*folders: str) -> set[str]:
    """The distributions whose modules the files below these folders import, anywhere in a file."""
    modules = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            if "examples" not in path.parts:  # programs that run in containers
                modules |= _imports(path)
    owners = packages_distributions()
    return {canonical(owners[module][0]) for module in modules - sys.stdlib_module_names if module in owners}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_what_the_program_imports_is_what_it_declares() -> None:
    assert imported("src") == declared(PROJECT["dependencies"])


def test_what_the_tests_import_is_what_they_declare() -> None:
    extra = declared(PROJECT["optional-dependencies"]["test"]) - TOOLS
    assert imported("tests", "bench", "tools") - declared(PROJECT["dependencies"]) == extra


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_the_lock_pins_what_is_declared_and_each_entry_has_hashes(lock: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    pinned = {entry.split(maxsplit=1)[0].lower() for entry in entries}
    assert {each.lower() for each in PROJECT["dependencies"]} <= pinned
