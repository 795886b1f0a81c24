"""Trees copied, measured and removed, hostile ones included."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from havre.linux import mounts, trees
from support.trees import describe


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d/e").mkdir(parents=True)
    (root / "d/file").write_bytes(b"content" * 1000)
    os.link(root / "d/file", root / "d/e/second")
    os.setxattr(root / "d/file", "user.note", b"v")
    os.setxattr(root / "d", "trusted.overlay.opaque", b"y")
    (root / "d/file").chmod(0o6755)
    (root / "link").symlink_to("/etc/passwd")
    os.lchown(root / "link", 5, 6)
    os.mkfifo(root / "fifo", 0o622)
    os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (root / os.fsdecode(b"\xff")).touch()
    with (root / "sparse").open("wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    for path in (root / "d/file", root / "d/e", root / "d", root):
        os.utime(path, ns=(10**9, 1_234_567_891))
    return root


def copy(source: Path, target: Path, *, overlay: bool = False) -> None:
    target.mkdir(exist_ok=True)
    from_, to = trees.open_directory(source), trees.open_directory(target)
    try:
        trees.copy_tree(from_, to, overlay=overlay)
    finally:
        os.close(from_)
        os.close(to)


def test_a_copy_is_the_same(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path / "copy")
    os.removexattr(source / "d", "trusted.overlay.opaque")  # a mark of overlayfs is not content
    assert describe(tmp_path / "copy") == describe(source)
    assert (tmp_path / "copy/sparse").stat().st_blocks * 512 < 1 << 20
    assert (tmp_path / "copy").stat().st_mtime_ns == source.stat().st_mtime_ns


def test_what_is_in_the_way_is_replaced(source: Path, tmp_path: Path) -> None:
    target, outside = tmp_path / "copy", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (target / "link/below").mkdir(parents=True)
    (target / "d").symlink_to(outside)
    (target / "fifo").mkdir()
    (target / "mine").touch()
    copy(source, target)
    assert os.listdir(outside) == ["precious"]
    assert os.readlink(target / "link") == "/etc/passwd"
    assert (target / "d/file").is_file()
    assert stat.S_ISFIFO((target / "fifo").stat().st_mode)
    assert (target / "mine").exists()


def test_layers_are_merged_as_overlayfs_does(tmp_path: Path) -> None:
    lower, upper, target = (tmp_path / name for name in ("lower", "upper", "target"))
    for path in ("opaque/hidden", "merged/kept", "gone/file", "single"):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).touch()
    (upper / "opaque").mkdir(parents=True)
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    (upper / "opaque/shown").touch()
    (upper / "merged").mkdir()
    (upper / "merged/added").touch()
    for name in ("gone", "single", "never-there"):
        os.mknod(upper / name, stat.S_IFCHR, 0)
    copy(lower, target, overlay=True)
    copy(upper, target, overlay=True)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert found == ["merged", "merged/added", "merged/kept", "opaque", "opaque/shown"]


def test_a_tree_is_measured_by_inode(source: Path) -> None:
    expected = 7000 + len("/etc/passwd") + (50 << 20) + 3
    assert trees.tree_size(source) == expected


def test_removal_follows_no_link(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (source / "d/trap").symlink_to(outside)
    (source / "0").mkdir()
    trees.remove_tree(source)
    trees.remove_tree(source)
    assert not source.exists()
    assert os.listdir(outside) == ["precious"]


def test_removal_stops_at_a_mount(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    mounts.bind_mount(outside, source / "d/e")
    try:
        with pytest.raises(OSError, match="busy"):
            trees.remove_tree(source)
        assert os.listdir(outside) == ["precious"]
    finally:
        for entry in mounts.mounts_below(source):
            mounts.unmount_all(entry.target)


def test_no_depth_costs_descriptors(tmp_path: Path) -> None:
    script = "for i in $(seq 1500); do mkdir d; cd -P d; : > f; done"
    root = tmp_path / "deep"
    root.mkdir()
    subprocess.run(["sh", "-c", script], cwd=root, check=True)
    trees.remove_tree(root)
    assert not root.exists()
