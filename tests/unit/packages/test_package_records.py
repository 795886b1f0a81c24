"""What package managers and linkers leave behind, read."""

from __future__ import annotations

import sqlite3
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from havre.packages import apk, dpkg, golang, npm, pypi, rpm
from havre.packages.fields import parse_os_release
from havre.packages.model import Distribution, Package, Unreadable
from havre.packages.purl import package_url
from support.installed import APK, DPKG, RPM, go_program, rpm_database, rpm_header


def test_dpkg() -> None:
    library, half = dpkg.parse_status(DPKG.encode(), "/s")
    assert library == Package(
        kind="deb",
        name="libstdc++6",
        version="14.2.0-19",
        path="/s",
        record="dpkg's database",
        architecture="amd64",
        source="gcc-14@14.2.0-18",
        supplier="Debian GCC Maintainers <debian-gcc@lists.debian.org>",
        homepage="http://gcc.gnu.org/",
    )
    assert (half.name, half.version) == ("half", "2:1~rc1")


def test_a_package_of_distroless_tells_no_state() -> None:
    (found,) = dpkg.parse_status(b"Package: tzdata\nVersion: 2024a-0+deb12u1\nArchitecture: all\n", "/s")
    assert (found.name, found.version, found.source) == ("tzdata", "2024a-0+deb12u1", "")


def test_copyright_files() -> None:
    machine = (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: x\n"
        "License: GPL-2+ or MIT\n\nFiles: a\nLicense: Expat\n Permission is hereby granted\n\nLicense: Expat\n Text\n"
    )
    assert dpkg.parse_copyright(machine.encode()) == ("Expat", "GPL-2+ or MIT")
    prose = "See /usr/share/common-licenses/GPL-2. Also /usr/share/common-licenses/LGPL-2.1, or GPL-3."
    assert dpkg.parse_copyright(prose.encode()) == ("GPL-2", "LGPL-2.1")
    assert dpkg.parse_copyright(b"") == ()


def test_apk() -> None:
    musl, client = apk.parse_installed(APK.encode(), "/i")
    assert (musl.name, musl.version, musl.architecture, musl.source) == ("musl", "1.2.4-r2", "x86_64", "")
    assert (musl.licences, musl.supplier) == (("MIT",), "Timo Teräs <timo.teras@iki.fi>")
    assert (client.name, client.source) == ("ssl_client", "busybox")


def test_rpm(tmp_path: Path) -> None:
    key = rpm_header({1000: "gpg-pubkey", 1001: "a", 1002: "b"})
    data = rpm_database(tmp_path / "db", [rpm_header(RPM), key, b"", b"\xff" * 40])
    (found,) = rpm.parse_database(data, "/d")
    assert found == Package(
        kind="rpm",
        name="bash",
        version="5.2.15-3.fc38",
        path="/d",
        record="rpm's database",
        architecture="x86_64",
        epoch="1",
        source="bash-5.2.15-3.fc38.src.rpm",
        licences=("GPLv3+ and MIT",),
        supplier="Fedora Project",
        homepage="https://www.gnu.org/software/bash",
    )


@pytest.mark.parametrize("data", [b"", b"SQLite", b"SQLite format 3\0" + bytes(200)])
def test_what_is_no_database_of_rpm(data: bytes) -> None:
    with pytest.raises(Unreadable):
        list(rpm.parse_database(data, "/d"))


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("CREATE TABLE Other (blob)", "no such table"),
        (
            "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i AS blob FROM n",
            "interrupted",
        ),
        ("CREATE VIEW Packages AS SELECT readfile('/etc/shadow') AS blob", "no such function"),
    ],
)
def test_a_hostile_database_ends(tmp_path: Path, schema: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm, "_TURNS", 10)
    database = sqlite3.connect(tmp_path / "db")
    database.execute(schema)
    database.close()
    with pytest.raises(Unreadable, match=told):
        list(rpm.parse_database((tmp_path / "db").read_bytes(), "/d"))


def test_a_database_of_rpm_whose_schema_is_no_text(tmp_path: Path) -> None:
    """SQLite quotes it in its complaint."""
    data = rpm_database(tmp_path / "db", [rpm_header(RPM)])
    with pytest.raises(Unreadable):
        list(rpm.parse_database(data.replace(b"CREATE TABLE", b"CREATE TABL\xff"), "/d"))


@pytest.mark.parametrize(
    ("text", "name", "licences"),
    [
        ("Metadata-Version: 2.4\nName: A_b\nVersion: 1.0\nLicense-Expression: MIT AND BSD-3-Clause\n\nText", "A_b",
         ("MIT AND BSD-3-Clause",)),
        ("Name: a\nVersion: 1\nLicense: BSD\nClassifier: License :: OSI Approved :: MIT License\n", "a", ("BSD",)),
        ("Name: a\nVersion: 1\nLicense: Copyright (c)\n        All of it\nClassifier: License :: OSI Approved :: MIT"
         " License\n", "a", ("MIT License",)),
        ("Name: a\nVersion: 1\nLicense: UNKNOWN\nAuthor: UNKNOWN\n\nName: b\n", "a", ()),
    ],
)  # fmt: skip
def test_python(text: str, name: str, licences: tuple[str, ...]) -> None:
    found = pypi.parse_metadata(text.encode(), "/m")
    assert found is not None
    assert (found.name, found.licences) == (name, licences)


def test_authors_of_python_packages() -> None:
    def supplier(lines: str) -> str:
        found = pypi.parse_metadata(f"Name: a\nVersion: 1\n{lines}\n".encode(), "/m")
        return found.supplier if found else ""

    assert supplier("Author: Ada\nAuthor-email: ada@example.org") == "Ada <ada@example.org>"
    assert supplier("Author-email: Ada <ada@example.org>") == "Ada <ada@example.org>"
    assert supplier("Author: Ada") == "Ada"
    assert pypi.parse_metadata(b"Name: a\n", "/m") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "@angular/core", "version": "1.2.3", "license": "MIT", "author": {"name": "A", "email": "a@b"}}',
         ("@angular", "core", "1.2.3", ("MIT",), "A <a@b>")),
        ('{"name": "x", "version": "1", "licenses": [{"type": "MIT"}, {"type": "ISC"}], "author": "B <b@c> (http://d)"}',
         ("", "x", "1", ("(MIT) OR (ISC)",), "B <b@c>")),
        ('{"name": "x", "version": "1", "license": {"type": "ISC"}}', ("", "x", "1", ("ISC",), "")),
    ],
)  # fmt: skip
def test_node(text: str, expected: tuple[str, str, str, tuple[str, ...], str]) -> None:
    found = npm.parse_package(text.encode(), "/p")
    assert found is not None
    assert (found.namespace, found.name, found.version, found.licences, found.supplier) == expected


def test_what_is_no_package_of_node() -> None:
    assert npm.parse_package(b'{"private": true, "version": 3}', "/p") is None
    assert npm.parse_package(b"[]", "/p") is None
    with pytest.raises(Unreadable, match="not JSON"):
        npm.parse_package(b"[" * 100_000, "/p")


def _modules(program: bytes) -> list[str]:
    return [
        package_url(each, Distribution())
        for each in golang.parse_program(lambda at, size: program[at : at + size], "/p")
    ]


def test_go() -> None:
    modules = (
        "path\texample.org/a/cmd\nmod\texample.org/a\tv1.0.0\th1:x=\ndep\tgolang.org/x/Sys\tv0.1.0\th1:y=\n"
        "dep\texample.org/b\tv1.0.0\n=>\texample.org/fork\tv1.1.0\th1:z=\nbuild\t-compiler=gc\n"
    )
    assert _modules(go_program("go1.21.5 X:some", modules)) == [
        "pkg:golang/stdlib@1.21.5",
        "pkg:golang/example.org/a@v1.0.0",
        "pkg:golang/golang.org/x/sys@v0.1.0",
        "pkg:golang/example.org/fork@v1.1.0",
    ]
    assert _modules(b"\x7fELF" + bytes(100)) == []
    with pytest.raises(Unreadable, match=r"1\.18"):
        _modules(go_program("go1.17", modules, flags=0))


def test_os_release() -> None:
    text = '# comment\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
    assert parse_os_release(text.encode()) == Distribution("debian", "12", "Debian GNU/Linux 12 (bookworm)")
    assert parse_os_release(b"nothing") == Distribution()


DEBIAN = Distribution("debian", "12")


@pytest.mark.parametrize(
    ("package", "distribution", "url"),
    [
        (Package(kind="deb", name="libstdc++6", version="1:14.2~rc", architecture="amd64", source="gcc@14"), DEBIAN,
         "pkg:deb/debian/libstdc%2B%2B6@1:14.2~rc?arch=amd64&distro=debian-12&upstream=gcc%4014"),
        (Package(kind="deb", name="a", version="1"), Distribution(), "pkg:deb/a@1"),
        (Package(kind="apk", name="musl", version="1-r2", architecture="x86_64"), Distribution("alpine", "3.18.4"),
         "pkg:apk/alpine/musl@1-r2?arch=x86_64&distro=alpine-3.18.4"),
        (Package(kind="rpm", name="bash", version="5-3", epoch="1", architecture="x86_64"), Distribution("fedora", "9"),
         "pkg:rpm/fedora/bash@5-3?arch=x86_64&distro=fedora-9&epoch=1"),
        (Package(kind="pypi", name="Zope.Some_thing", version="1.0+local"), DEBIAN,
         "pkg:pypi/zope.some-thing@1.0%2Blocal"),
        (Package(kind="npm", namespace="@angular", name="core", version="1"), DEBIAN, "pkg:npm/%40angular/core@1"),
    ],
)  # fmt: skip
def test_package_urls(package: Package, distribution: Distribution, url: str) -> None:
    assert package_url(package, distribution) == url
    assert package_url(replace(package, path="/elsewhere"), distribution) == url


def test_long_values_are_read_once() -> None:
    """Many folded lines, and an index in which each entry tells the same long text."""
    text = b"Package: a\nVersion: 1\nDescription: x\n" + b" y\n" * 200_000
    assert [each.name for each in dpkg.parse_status(text, "/s")] == ["a"]
    found = pypi.parse_metadata(b"Name: a\nVersion: 1\nLicense: x\n" + b" y\n" * 200_000, "/m")
    assert found is not None
    assert found.licences == ()
    entry = struct.pack(">4I", 1000, 6, 0, 1)
    header = struct.pack(">2I", 60_000, 8 << 20) + entry * 60_000 + b"n" * (8 << 20)
    assert list(rpm._parse_header(header, "/d")) == []


@pytest.mark.parametrize(
    "data",
    [
        b"ab\n" * 100_000,
        b"\n" * 100_000,
        b"x" * 1_000_000,
        b"".join(b"%d:\n" % n for n in range(40_000)),
        b"P:\xff\n" * 60_000,
    ],
)
@pytest.mark.parametrize("parse", [dpkg.parse_status, apk.parse_installed, pypi.parse_metadata])
def test_records_cost_no_memory(parse: Callable[[bytes, str], Iterable[Package] | None], data: bytes) -> None:
    """Files of nothing but short lines, of none, of one."""
    tracemalloc.start()
    try:
        assert not list(parse(data, "/p") or ())
        assert tracemalloc.get_traced_memory()[1] < 1 << 19
    finally:
        tracemalloc.stop()
