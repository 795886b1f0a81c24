"""Mounts made, shown and undone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from havre.linux import mounts


def test_a_mount_is_built_and_attached(tmp_path: Path) -> None:
    mounts.mount_filesystem("tmpfs", [("size", "64k"), ("mode", "0700")], tmp_path, mounts.ATTR_NODEV)
    (entry,) = mounts.mounts_below(tmp_path)
    assert (entry.fstype, "nodev" in entry.options, "size=64k" in entry.super_options) == ("tmpfs", True, True)
    assert mounts.unmount_all(tmp_path) is True
    assert mounts.unmount_all(tmp_path) is False
    assert mounts.mounts_below(tmp_path) == []


def test_a_detached_mount_goes_with_its_descriptor() -> None:
    source = f"havre-detached-{os.getpid()}"
    descriptor = mounts.create_mount("tmpfs", [("source", source)])
    assert os.fstatvfs(descriptor).f_files > 0
    os.close(descriptor)
    assert source not in {entry.source for entry in mounts.mounts_below(Path("/"))}


def test_the_kernels_own_words_are_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"tmpfs option sice: .*sice"):
        mounts.mount_filesystem("tmpfs", [("sice", "64k")], tmp_path)
    with pytest.raises(OSError, match="overlay"):
        mounts.mount_filesystem("overlay", [("lowerdir", "/nonexistent")], tmp_path)
    with pytest.raises(OSError) as caught:
        mounts.mount_filesystem("nosuchfs", [], tmp_path)
    assert caught.value.errno == errno.ENODEV


def test_a_bind_mount_takes_attributes_on_the_whole_tree(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "inner").mkdir(parents=True)
    target.mkdir()
    mounts.mount_filesystem("tmpfs", [], source / "inner")
    mounts.bind_mount(source, target, attributes=mounts.ATTR_RDONLY)
    try:
        for directory in (target, target / "inner"):
            with pytest.raises(OSError, match="Read-only"):
                (directory / "f").touch()
        (source / "inner/f").touch()
        assert (target / "inner/f").exists()
    finally:
        for entry in reversed(mounts.mounts_below(tmp_path)):
            mounts.unmount_all(entry.target)


def test_stacked_and_busy_mounts_come_off(tmp_path: Path) -> None:
    for _ in range(3):
        mounts.mount_filesystem("tmpfs", [], tmp_path)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        assert mounts.unmount_all(tmp_path) is True
        assert mounts.mounts_below(tmp_path) == []
    finally:
        os.close(held)


def test_a_link_is_never_unmounted_through(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    mounts.mount_filesystem("tmpfs", [], target)
    try:
        assert mounts.unmount_all(link) is False
        assert len(mounts.mounts_below(target)) == 1
    finally:
        mounts.unmount_all(target)


def test_what_fails_after_mounting_is_undone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    target = tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mounts.mount_by_options(str(source), target, "none", "bind,ro,private")
    assert "ro" in mounts.mounts_below(target)[0].options.split(",")
    mounts.unmount_all(target)
    with pytest.raises(OSError, match="mounting"):
        mounts.mount_by_options("/nonexistent", target, "none", "bind")
    assert mounts.mounts_below(target) == []
