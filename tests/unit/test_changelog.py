"""Fragments of the changelog: each has an area, and a release renders them all."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TYPES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]
AREAS = {area["directory"]: area["name"] for area in _TYPES}
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md")
_NAME = re.compile(rf"[a-z0-9-]+\.(?:{'|'.join(AREAS)})\.md")


def test_each_fragment_has_an_area() -> None:
    unknown = [path.name for path in FRAGMENTS if not _NAME.fullmatch(path.name)]
    assert unknown == [], f"call it NAME.AREA.md, where AREA is one of {', '.join(AREAS)}"


def test_each_fragment_is_a_sentence() -> None:
    assert [path.name for path in FRAGMENTS if not path.read_text().strip().endswith(".")] == []


def test_readme_of_fragments_names_the_areas() -> None:
    readme = (ROOT / "changelog.d" / "README.md").read_text()
    assert [area for area in AREAS if f"`{area}`" not in readme] == []


def test_release_renders_every_fragment_below_its_area() -> None:
    draft = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9", "--date", "2026-12-01"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    title, *sections = draft.strip().split("\n\n### ")
    assert title == "## 9.9.9 (2026-12-01)"
    rendered = {}
    for section in sections:
        name, _, entries = section.partition("\n\n")
        rendered[name] = entries.count("\n- ") + entries.startswith("- ")
    expected = [AREAS[fragment.name.split(".")[1]] for fragment in FRAGMENTS]
    assert rendered == {name: expected.count(name) for name in AREAS.values() if name in expected}
