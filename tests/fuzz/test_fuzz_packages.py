"""Hostile records of packages: read, passed over or `Unreadable`, and what comes of them is always a document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havre.packages import apk, dpkg, golang, npm, pypi, rpm
from havre.packages.fields import parse_os_release
from havre.packages.licences import declare
from havre.packages.model import Distribution, Inventory, Package, Unreadable
from havre.packages.spdx import Subject, render_spdx
from support.installed import APK, DPKG, RPM, go_program, rpm_database, rpm_header

SUBJECT = Subject(name="x", digest="d", created="?", tool="t")
NODE = b'{"name": "@s/a", "version": "1", "license": {"type": "MIT"}, "licenses": ["x"], "author": {"name": "n"}}'
PYTHON = b"Name: a\nVersion: 1\nLicense: x\n y\nClassifier: License :: OSI Approved :: MIT License\nAuthor: A\n"
COPYRIGHT = b"Format: copyright-format/1.0/\n\nLicense: GPL-2+ or (MIT and X) with Y exception\n text\n"
HEADER = rpm_header(RPM)
PROGRAM = go_program("go1.22", "mod\ta/b\tv1\n=>\tc\tv2\ndep\td\tv3\n")


def _one(found: Package | None) -> list[Package]:
    return [found] if found else []


READERS: dict[str, tuple[bytes, Callable[[bytes], Iterable[Package]]]] = {
    "dpkg": (DPKG.encode(), lambda data: dpkg.parse_status(data, "/p")),
    "apk": (APK.encode(), lambda data: apk.parse_installed(data, "/p")),
    "header": (HEADER, lambda data: rpm._parse_header(data, "/p")),
    "pypi": (PYTHON, lambda data: _one(pypi.parse_metadata(data, "/p"))),
    "npm": (NODE, lambda data: _one(npm.parse_package(data, "/p"))),
    "golang": (PROGRAM, lambda data: golang.parse_program(lambda at, size: data[at : at + size], "/p")),
    "copyright": (
        COPYRIGHT,
        lambda data: [Package(kind="deb", name="a", version="1", licences=dpkg.parse_copyright(data))],
    ),
}  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some bytes written over, left out or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 8)))
        data[at:end] = draw(st.binary(max_size=8) | st.just(bytes(data[:64])) | st.just(b"\xff" * 4))
    return bytes(data)


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_records(kind: str, data: st.DataObject) -> None:
    content, read = READERS[kind]
    hostile = data.draw(mutations(content) | st.binary(max_size=200))
    try:
        packages = tuple(read(hostile))
    except Unreadable:
        return
    document = json.loads(render_spdx(Inventory(parse_os_release(hostile), packages), SUBJECT))
    assert len(document["packages"]) == len(packages) + 1
    known = {each["licenseId"] for each in document.get("hasExtractedLicensingInfos", [])}
    for package in document["packages"]:
        words = package["licenseDeclared"].replace("(", " ").replace(")", " ").split()
        assert {word for word in words if word.startswith("LicenseRef-")} <= known


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return rpm_database(tmp_path_factory.mktemp("rpm") / "db", [HEADER] * 3)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_databases_of_rpm(database: bytes, data: st.DataObject) -> None:
    try:
        found = list(rpm.parse_database(data.draw(mutations(database)), "/p"))
    except Unreadable:
        return
    assert all(each.name and each.version for each in found)


WORDS = st.sampled_from(["MIT", "GPL-2+", "and", "OR", "with", "(", ")", ",", "LLVM-exception", "x/y", "ü", "License"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=10).map(" ".join) | st.text(max_size=30), max_size=3))
def test_licences(texts: list[str]) -> None:
    found = declare(tuple(texts))
    assert found.expression.count("(") == found.expression.count(")")
    assert json.loads(render_spdx(_licensed(texts), SUBJECT))["packages"][1]["licenseDeclared"] == found.expression
    assert declare((found.expression,)).expression.count("LicenseRef-") >= bool(found.unlisted)


def _licensed(texts: list[str]) -> Inventory:
    return Inventory(Distribution(), (Package(kind="deb", name="a", version="1", licences=tuple(texts)),))
