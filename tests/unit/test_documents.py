"""Documents and what refers to them: every record, page and section that is cited exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RECORDS = {path.name[:3]: path for path in sorted((DOCS / "decisions").glob("[0-9]*.md"))}
PAGES = sorted((DOCS / "why").glob("[a-z]*.md"))
MOST_RECORDS, PAGE_LINES = 30, 300

_RECORD = re.compile(r"(?:[Dd]ecisions?|[Rr]ecords?) \[?(\d{3})\b|docs/decisions/(\d{3})|\bdecisions/(\d{3})-")
_PAGE = re.compile(r"docs/why/[a-z-]+\.md(?:#[a-z0-9-]+)?")
_MODULE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`")
_LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")


def texts(*patterns: str) -> Iterator[tuple[Path, str]]:
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            yield path, path.read_text()


def code() -> Iterator[tuple[Path, str]]:
    return texts("src/**/*.py", "tests/**/*.py", "bench/*.py", "tools/*", "Makefile", "pyproject.toml")


def prose() -> Iterator[tuple[Path, str]]:
    return texts("*.md", "docs/*.md", "docs/*/*.md")


def anchors(page: Path) -> set[str]:
    """The sections of a page, named as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def missing(folder: Path, target: str) -> bool:
    """Whether a link of a document in `folder` leads nowhere."""
    name, _, section = target.partition("#")
    path = folder / name
    if not path.exists():
        return True
    return bool(section) and path.suffix == ".md" and section not in anchors(path)


def test_few_records() -> None:
    assert len(RECORDS) <= MOST_RECORDS, "a record is for what is hard to reverse; docs/why/ has the rest"


@pytest.mark.parametrize("record", RECORDS.values(), ids=lambda path: path.stem)
def test_record_has_title_and_status(record: Path) -> None:
    title, blank, status = record.read_text().split("\n")[:3]
    assert title.startswith(f"# {record.name[:3]}: ")
    assert blank == ""
    assert re.match(r"Status: (?:accepted|replaced by \d{3})\b", status)


def test_index_lists_every_record() -> None:
    index = (DOCS / "decisions" / "README.md").read_text()
    assert set(re.findall(r"\]\((\d{3})-", index)) == set(RECORDS), "docs/decisions/README.md has a row for each record"


def test_every_record_is_cited_by_code() -> None:
    cited = {number for _, text in texts("src/**/*.py") for number in re.findall(r"docs/decisions/(\d{3})", text)}
    assert sorted(set(RECORDS) - cited) == [], "the module that a record explains says `Why: docs/decisions/NNN.`"


def test_cited_records_exist() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in (*code(), *prose())
        for match in _RECORD.finditer(text)
        if next(filter(None, match.groups())) not in RECORDS
    ]
    assert unknown == []


def test_pages_that_code_cites_exist() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}: {target}"
        for path, text in code()
        if path != Path(__file__)
        for target in _PAGE.findall(text)
        if missing(ROOT, target)
    ]
    assert unknown == []


def test_links_of_documents_lead_somewhere() -> None:
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path, text in prose()
        for target in _LINK.findall(text)
        if missing(path.parent, target if not target.startswith("#") else path.name + target)
    ]
    assert dead == []


def test_modules_that_documents_name_exist() -> None:
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in prose()
        for name in _MODULE.findall(text)
        if not (ROOT / "src" / "havre" / name).exists() and not (ROOT / name).exists()
    ]
    assert gone == []


def test_pages_are_short_and_listed() -> None:
    index = (DOCS / "why" / "README.md").read_text()
    for page in PAGES:
        assert len(page.read_text().splitlines()) <= PAGE_LINES, page.name
        assert f"]({page.name})" in index, page.name
