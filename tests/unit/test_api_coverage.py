"""docs/api-coverage.md is what `make docs` writes, and the list behind it is complete."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_coverage", ROOT / "tools" / "api_coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(coverage: ModuleType) -> None:
    assert (ROOT / "docs" / "api-coverage.md").read_text() == coverage.render(), "run `make docs`"


def test_every_endpoint_of_the_spoken_versions_is_served_or_refused_in_words(coverage: ModuleType) -> None:
    page = coverage.render()
    assert "| no |" not in page
    listed = coverage.read_list()
    assert len({(each.method, each.path) for each in listed}) == len(listed) > 110


def test_what_is_changed_for_older_clients_is_said(coverage: ModuleType) -> None:
    assert [each for each in coverage._all_changes() if not each[3]] == []
