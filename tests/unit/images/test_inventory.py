"""Packages found in trees, also in hostile ones: nothing outside is read, nothing that blocks is opened."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from havre.images import inventory
from havre.images.inventory import take_inventory
from support.installed import APK, DPKG, RPM, go_program, rpm_database, rpm_header

METADATA = "Name: {}\nVersion: 1\n"


def put(root: Path, path: str, content: str | bytes) -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return target


def names(root: Path) -> list[str]:
    return [f"{each.kind} {each.name}" for each in take_inventory(root).packages]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_everything_at_its_place(root: Path, tmp_path: Path) -> None:
    put(root, "usr/lib/os-release", "ID=debian\nVERSION_ID=13\n")
    put(root, "var/lib/dpkg/status", DPKG)
    put(root, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 1\n")
    put(root, "var/lib/dpkg/status.d/tzdata.md5sums", "Package: sums\nVersion: 1\n")
    put(root, "usr/share/doc/tzdata/copyright", "see /usr/share/common-licenses/GPL-2")
    put(root, "lib/apk/db/installed", APK)
    put(root, "var/lib/rpm/rpmdb.sqlite", rpm_database(tmp_path / "db", [rpm_header(RPM)]))
    put(root, "usr/lib/python3/dist-packages/a-1.dist-info/METADATA", METADATA.format("a"))
    put(root, "opt/eggs/b.egg-info/PKG-INFO", METADATA.format("b"))
    put(root, "opt/eggs/c-1.egg-info", METADATA.format("c"))
    put(root, "app/node_modules/d/package.json", '{"name": "d", "version": "1"}')
    put(root, "app/node_modules/@s/e/package.json", '{"name": "@s/e", "version": "1"}')
    put(root, "app/package.json", '{"name": "own", "version": "1"}')
    put(root, "app/node_modules/d/test/package.json", '{"name": "part", "version": "1"}')
    put(root, "server", go_program("go1.22.0", "mod\tf\tv1\n") + bytes(300 << 10)).chmod(0o755)
    put(root, "data", go_program("go1.22.0", "mod\tg\tv1\n") + bytes(300 << 10))
    found = take_inventory(root)
    assert found.distribution.id == "debian"
    assert [f"{each.kind} {each.name}" for each in found.packages] == [
        "apk musl", "apk ssl_client", "deb half", "deb libstdc++6", "deb tzdata", "golang f", "golang stdlib",
        "npm d", "npm e", "pypi a", "pypi b", "pypi c", "rpm bash",
    ]  # fmt: skip
    assert {each.licences for each in found.packages if each.name == "tzdata"} == {("GPL-2",)}
    assert found.gaps == ()


def test_links_lead_nowhere_outside(root: Path, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/status", DPKG)
    put(tmp_path, "outside/x.dist-info/METADATA", METADATA.format("x"))
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").symlink_to(outside)
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to("../outside")
    (root / "y.dist-info").mkdir()
    (root / "y.dist-info/METADATA").symlink_to("../../outside/x.dist-info/METADATA")
    (root / "loop").symlink_to(".")
    (root / "usr").mkdir()
    (root / "usr/lib").symlink_to("../usr/lib")
    assert names(root) == []


def test_links_inside_are_followed_and_told_once(root: Path) -> None:
    put(root, "usr/lib/apk/db/installed", APK)
    (root / "lib").symlink_to("/usr/lib")
    assert names(root) == ["apk musl", "apk ssl_client"]


def test_nothing_but_regular_files_is_opened(root: Path) -> None:
    for path in ("var/lib/dpkg/status", "etc/os-release", "z.dist-info/METADATA", "node_modules/a/package.json"):
        (root / path).parent.mkdir(parents=True)
        os.mkfifo(root / path)
    put(root, "proc/a.dist-info/METADATA", METADATA.format("kernel"))
    assert names(root) == []


def test_what_is_not_read_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "var/lib/rpm/Packages", "b")
    put(root, "usr/lib/sysimage/rpm/Packages.db", "n")
    put(root, "var/lib/rpm/rpmdb.sqlite", "none")
    put(root, "var/lib/rpm/rpmdb.sqlite-wal", "more")
    put(root, "node_modules/a/package.json", "{")
    put(root, "var/lib/dpkg/status", DPKG)
    monkeypatch.setattr(inventory, "_TEXT_DATABASE_LIMIT", 100)
    found = take_inventory(root)
    assert found.packages == ()
    told = [gap.partition(": ")[::2] for gap in found.gaps]
    assert [path for path, _ in told] == [
        "/node_modules/a/package.json",
        "/usr/lib/sysimage/rpm/Packages.db",
        "/var/lib/dpkg/status",
        "/var/lib/rpm/Packages",
        "/var/lib/rpm/rpmdb.sqlite-wal",
        "/var/lib/rpm/rpmdb.sqlite",
    ]
    assert "Berkeley DB" in told[3][1]
    assert "at most 100 are read" in told[2][1]


def test_many_gaps_and_many_files_have_an_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        put(root, f"node_modules/{number}/package.json", "{")
    monkeypatch.setattr(inventory, "_GAPS_LIMIT", 10)
    assert len(take_inventory(root).gaps) == 11
    assert take_inventory(root).gaps[-1] == "and 2 more"
    monkeypatch.setattr(inventory, "_ENTRIES_LIMIT", 5)
    assert take_inventory(root).gaps[0].startswith("/: the search ended early: the image has more than 5 files")


@pytest.mark.parametrize(
    ("limit", "value", "told"),
    [
        ("_WAITING_LIMIT", 20, "too long paths"),
        ("_PACKAGES_LIMIT", 2, "more than 2 packages"),
        ("_TOTAL_LIMIT", 100, "more than 100 bytes"),
        ("_WORDS_LIMIT", 300, "too much metadata of packages"),
    ],
)
def test_everything_has_an_end(root: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, told: str) -> None:
    for number in range(12):
        put(root, f"folder{number}/node_modules/m/package.json", f'{{"name": "m{number}", "version": "1"}}')
    monkeypatch.setattr(inventory, limit, value)
    found = take_inventory(root)
    assert len(found.packages) < 12
    assert told in found.gaps[0]


@pytest.mark.parametrize("path", ["var/lib/dpkg/status", "lib/apk/db/installed"])
@pytest.mark.parametrize(("size", "told"), [(33 << 20, "at most 33554432 are read"), (32 << 20, "4000000 lines")])
def test_databases_of_text_are_small(root: Path, path: str, size: int, told: str) -> None:
    """Of these nothing is parsed: Python's allocations stay near the file's size."""
    put(root, path, b"\n" * size)
    tracemalloc.start()
    try:
        (gap,) = take_inventory(root).gaps
        assert told in gap
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_lines_of_all_texts_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        put(root, f"{name}.dist-info/METADATA", METADATA.format(name))
    monkeypatch.setattr(inventory, "_LINES_LIMIT", 5)
    found = take_inventory(root)
    assert (len(found.packages), found.gaps) == (
        2,
        ("/: the search ended early: the package databases have more than 5 lines",),
    )


def test_names_that_are_no_text_and_depth_without_end(root: Path) -> None:
    put(root, os.fsdecode(b"\xff.dist-info/METADATA"), METADATA.format("a"))
    directory = os.open(root, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d" * 100, dir_fd=directory)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    found = take_inventory(root)
    assert [each.path for each in found.packages] == ["/�.dist-info/METADATA"]
    assert "File name too long" in found.gaps[0]
