"""Paths in a hostile tree stay in the tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from havre.linux.openat2 import open_in_root, open_regular_in_root, openat_in_root, syncfs


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("inside")
    (root / "secret").write_text("inside")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "climbing").symlink_to("../../../../secret")
    (root / "magic").symlink_to("/proc/self/root")
    return root


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "path", ["etc/passwd", "/etc/passwd", "absolute", "../secret", "climbing", "etc/../../../secret"]
)
def test_every_path_ends_inside(path: str, tree: Path) -> None:
    assert read(open_in_root(tree, path)) == b"inside"


def test_a_link_into_proc_finds_the_trees_own(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_in_root(tree, "magic/etc/passwd")


def test_magic_links_are_refused() -> None:
    with pytest.raises(OSError, match="Too many levels"):
        open_in_root(Path("/proc/self"), "fd/0")


def test_an_open_directory_as_root(tree: Path) -> None:
    directory = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    try:
        assert read(openat_in_root(directory, b"absolute", os.O_RDONLY)) == b"inside"
        itself = openat_in_root(directory, b"", os.O_RDONLY | os.O_DIRECTORY)
        assert sorted(os.listdir(itself)) == ["absolute", "climbing", "etc", "magic", "secret"]
        assert not os.get_inheritable(itself)
        syncfs(itself)
        os.close(itself)
    finally:
        os.close(directory)


def test_failures_name_the_path(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_in_root(tree, "nothing")


def test_only_regular_files_are_opened_for_reading(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_text("outside")
    (root / "outside").write_text("inside")
    (root / "link").symlink_to("/outside")
    os.mkfifo(root / "fifo")
    (root / "to-fifo").symlink_to("fifo")
    descriptor = open_regular_in_root(root, "link")
    assert descriptor is not None
    with open(descriptor) as file:
        assert file.read() == "inside"
    assert open_regular_in_root(root, "link", follow=False) is None
    assert open_regular_in_root(root, "to-fifo") is None
    assert open_regular_in_root(root, ".") is None
