"""A container's changes as a layer: written by a real overlay, read back by tar and by the layer's own reader."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.errors import Failed
from havre.oci.digest import digest_of
from havre.storage.diff import write_diff
from havre.storage.layerfiles import LayerWriter
from support.trees import describe

OPTIONS = "redirect_dir=nofollow,metacopy=off,index=off"


class Overlay:
    """An overlay over `lower`, unmounted by `close`."""

    def __init__(self, place: Path) -> None:
        self.lower, self.upper, self.merged = place / "lower", place / "upper", place / "merged"
        for directory in (self.lower, self.upper, self.merged, place / "work"):
            directory.mkdir()
        (self.lower / "etc").mkdir()
        for name in ("kept", "gone", "etc/passwd", "etc/shadow"):
            (self.lower / name).write_text(name)
        options = f"{OPTIONS},lowerdir={self.lower},upperdir={self.upper},workdir={place / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.merged], check=True)

    def close(self) -> None:
        subprocess.run(["umount", self.merged], check=True)


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Overlay]:
    overlay = Overlay(tmp_path)
    yield overlay
    overlay.close()


def tar_of(upper: Path) -> bytes:
    out = io.BytesIO()
    write_diff(upper, out)
    return out.getvalue()


def change(root: Path) -> None:
    """What a container might do."""
    (root / "gone").unlink()
    (root / "etc/passwd").write_text("changed")
    (root / "new").mkdir(mode=0o1777)
    (root / "new" / ("n" * 150)).write_bytes(b"x" * 1000)
    (root / "new/ünïcode").symlink_to("t" * 200)
    os.link(root / "new" / ("n" * 150), root / "new/second")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(root / "kept", 3_000_000, 5)
    os.setxattr(root / "kept", "user.note", b"a\nb")
    os.utime(root / "kept", ns=(0, -5 * 10**9))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "new/s"))


def test_tar_extracts_what_was_written(overlay: Overlay, tmp_path: Path) -> None:
    change(overlay.merged)
    extracted = tmp_path / "extracted"
    extracted.mkdir()
    command = ["tar", "-xpf", "-", "-C", extracted, "--numeric-owner", "--xattrs", "--xattrs-include=*"]
    subprocess.run(command, input=tar_of(overlay.upper), check=True)
    got, expected = describe(extracted), describe(overlay.upper)
    assert got.pop(b".wh.gone")[4] == (0, digest_of(b"").partition(":")[2])
    assert stat.S_ISCHR(int(str(expected.pop(b"gone")[0]), 8))
    assert stat.S_ISSOCK(int(str(expected.pop(b"new/s")[0]), 8))
    assert _comparable(got) == _comparable(expected)


def _comparable(tree: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """Whole seconds, and no attributes of overlayfs."""
    seen = {}
    for path, (mode, uid, gid, mtime_ns, content, links, xattrs, *rest) in tree.items():
        assert isinstance(mtime_ns, int)
        assert isinstance(xattrs, dict)
        kept = {name: value for name, value in xattrs.items() if ".overlay." not in name}
        seen[path] = (mode, uid, gid, mtime_ns // 10**9, content, links, kept, *rest)
    return seen


def test_the_same_changes_give_the_same_bytes(overlay: Overlay, tmp_path: Path) -> None:
    change(overlay.merged)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", overlay.upper, copy], check=True)
    assert tar_of(copy) == tar_of(overlay.upper)


@pytest.mark.parametrize("unpacks", [False, True], ids=["erofs", "unpacked"])
def test_a_layer_of_the_changes_shows_the_same_container(unpacks: bool, overlay: Overlay, tmp_path: Path) -> None:
    change(overlay.merged)
    subprocess.run(["rm", "-r", overlay.merged / "etc"], check=True)
    (overlay.merged / "etc").mkdir()
    (overlay.merged / "etc/only").write_text("opaque")
    (overlay.merged / "new/s").unlink()
    tar = tar_of(overlay.upper)
    assert b"etc/.wh..wh..opq" in tar

    writer = LayerWriter(tmp_path / "layer", unpacks=unpacks)
    writer.write(tar)
    writer.seal(digest_of(tar))
    with _over(writer.directory, overlay.lower, tmp_path / "again") as again:
        assert _comparable(describe(again)) == _comparable(describe(overlay.merged))
        assert sorted(os.listdir(again)) == sorted(os.listdir(overlay.merged))
    writer.discard()


class _over:
    """The layer in `directory` over `lower`, mounted at `place` while open."""

    def __init__(self, directory: Path, lower: Path, place: Path) -> None:
        self._top, self._place = directory / "root", place
        self._mounted: list[Path] = []
        self._directory, self._lower = directory, lower

    def __enter__(self) -> Path:
        self._place.mkdir()
        if not self._top.is_dir():
            self._top = self._place.with_name("top")
            self._top.mkdir()
            options = f"ro,device={self._directory / 'tar'}"
            subprocess.run(["mount", "-t", "erofs", "-o", options, self._directory / "index", self._top], check=True)
            self._mounted.append(self._top)
        options = f"{OPTIONS},lowerdir={self._top}:{self._lower}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self._place], check=True)
        self._mounted.append(self._place)
        return self._place

    def __exit__(self, *_: object) -> None:
        for place in reversed(self._mounted):
            subprocess.run(["umount", place], check=True)


def test_a_file_that_grows_meanwhile_keeps_its_size(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "log").write_bytes(b"x" * 10)

    class Growing(io.BytesIO):
        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            with (upper / "log").open("ab") as log:
                log.write(b"more")
            return super().write(data)

    out = Growing()
    write_diff(upper, out)
    listed = subprocess.run(["tar", "-tvf", "-"], input=out.getvalue(), check=True, capture_output=True).stdout
    assert b" 10 " in listed


@pytest.mark.parametrize("xattr", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_what_only_the_overlay_understands_is_refused(xattr: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", xattr, b"/etc")
    with pytest.raises(Failed, match=xattr):
        tar_of(tmp_path)


def test_a_name_that_would_mean_a_deletion_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.passwd").touch()
    with pytest.raises(Failed, match=r"\.wh\."):
        tar_of(tmp_path)
