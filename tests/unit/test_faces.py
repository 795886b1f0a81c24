"""docs/faces.md lists the modules of each room that other rooms import: no module becomes public unseen."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def faces() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faces", ROOT / "tools" / "faces.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_the_modules_that_other_rooms_import(faces: ModuleType) -> None:
    page = (ROOT / "docs" / "faces.md").read_text()
    used = sorted(module for room in faces.used(faces.modules()).values() for module in room)
    assert sorted(faces.listed(page)) == used, "a private module is imported from outside; `make docs` if it is meant"


def test_a_signature_tells_its_types_and_its_first_line(faces: ModuleType) -> None:
    page = faces.render()
    assert "def parse_size(text: str) -> int  # Bytes. Raises ValueError." in page
    assert "def _split(" not in page


def test_private_modules_are_not_listed(faces: ModuleType) -> None:
    assert "havre.dockerfile.checkrules" in faces.modules()
    assert {"havre.golang.units", "havre.tar.headers"} <= set(faces.listed(faces.render()))
    assert "havre.storage.erofs" not in faces.listed(faces.render())
