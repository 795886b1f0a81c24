"""What a layer says, seen through a real EROFS mount and in an unpacked directory, against GNU tar's extraction."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from havre.errors import InvalidInput
from havre.oci.digest import digest_of
from havre.storage.layerfiles import LayerWriter, Sealed
from havre.tar import tree
from havre.tar.extract import Extractor
from support import tars
from support.tars import directory, gnu_long, gnu_sparse, hardlink, header, member, pax, pax_sparse, symlink
from support.trees import describe

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
ALIGNED = [(0, b"a" * 512), (1 << 20, b"b" * 1024), (3 << 20, b"c" * 100)]
ALIGNED_SIZE = (3 << 20) + 100
ODD = [(100, b"a" * 300), (70_001, b"b" * 1000), (80_000, b"")]
MANY = [(n << 16, b"%c" % (65 + n % 26) * 512) for n in range(60)]
MANY_SIZE = (59 << 16) + 512


def xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return b"SCHILY.xattr." + name, value


LIKE_TAR = {
    "pax long name": pax([(b"path", b"d/" + b"n" * 200)]) + member(b"cut", b"x"),
    "pax long link": pax([(b"linkpath", b"t" * 3000)]) + symlink(b"l", b"cut"),
    "gnu long name": gnu_long(b"L", b"d/" + b"n" * 250) + member(b"cut", b"x", magic=tars.GNU),
    "gnu long link": gnu_long(b"K", b"t" * 600) + symlink(b"l", b"cut", magic=tars.GNU),
    "ustar prefix": member(b"name", b"x", tail=b"d/" + b"p" * 140),
    "big owners": member(b"f", uid=3_000_000, gid=4_294_967_294),
    "pax owners": pax([(b"uid", b"4000000000"), (b"gid", b"7")]) + member(b"f"),
    "devices": member(b"c", flag=b"3", device=(5, 300)) + member(b"b", flag=b"4", device=(259, 1)),
    "fifo": member(b"p", flag=b"6", mode=0o622),
    "special bits": member(b"s", b"x", mode=0o6755) + directory(b"t", mode=0o1777),
    "not UTF-8": member(b"\xff\xfe\x80", b"x"),
    "newline": member(b"a\nb", b"x"),
    "user xattr": pax([xattr(b"user.note", b"hi\0there")]) + member(b"f", b"x"),
    "xattr of directory": pax([xattr(b"user.note", b"v" * 600)]) + directory(b"d"),
    "capability": pax([xattr(b"security.capability", CAPABILITY)]) + member(b"f", b"x", mode=0o755),
    "hard links": member(b"a", b"x" * 700) + hardlink(b"b", b"a") + directory(b"d") + hardlink(b"d/c", b"./b"),
    "hard link to symlink": symlink(b"a", b"nowhere") + hardlink(b"b", b"a"),
    "v7": member(b"f", b"x", magic=tars.V7),
    "v7 directory": header(b"d/", flag=b"\0", magic=tars.V7, mode=0o700),
    "fraction": pax([(b"mtime", b"1500000000.5")]) + member(b"f"),
    "negative fraction": pax([(b"mtime", b"-1.25")]) + member(b"f"),
    "negative base-256 time": member(b"f", mtime=-1000),
    "old sparse": gnu_sparse(b"f", ALIGNED, ALIGNED_SIZE),
    "old sparse, extended": gnu_sparse(b"f", MANY, MANY_SIZE),
    "sparse 0.0": pax_sparse(b"f", ALIGNED, ALIGNED_SIZE, "0.0"),
    "sparse 0.1": pax_sparse(b"f", ALIGNED, ALIGNED_SIZE, "0.1"),
    "sparse 1.0": pax_sparse(b"f", ALIGNED, ALIGNED_SIZE, "1.0"),
    "sparse 1.0, many": pax_sparse(b"f", MANY, MANY_SIZE, "1.0"),
    "sparse, empty last piece": pax_sparse(b"f", [*ALIGNED[:2], (5 << 20, b"")], 5 << 20, "1.0"),
    "sparse, only a hole": pax_sparse(b"f", [(1 << 20, b"")], 1 << 20, "1.0"),
    "duplicate": member(b"f", b"old") + member(b"f", b"newer"),
    "directory twice": directory(b"d", mode=0o700) + member(b"d/f", b"x") + directory(b"d", mode=0o711),
    "file after link": symlink(b"f", b"nowhere") + member(b"f", b"mine"),
    "spellings": directory(b"./a") + member(b"./a//b", b"x") + member(b"/c", b"y") + member(b"./././d", b"z"),
    "trailing garbage": member(b"f", b"x") + tars.END + b"garbage" * 100,
    "no end": member(b"f", b"x"),
    "long directory": directory(b"d") + b"".join(member(b"d/%05d-%s" % (n, b"x" * 50)) for n in range(300)),
    "block-sized files": b"".join(member(b"f%d" % n, b"%c" % (n % 256) * n) for n in (1, 511, 512, 513, 4096, 100_000)),
    "long links at every place": b"".join(symlink(b"l%03d" % n, b"t" * (n % 90 + 1)) for n in range(200)),
}  # fmt: skip


@contextmanager
def shown(tar: bytes, place: Path, *, unpacks: bool) -> Iterator[tuple[Path, Sealed]]:
    """The layer of `tar`, as an engine with or without EROFS shows it."""
    writer = LayerWriter(place / "layer", unpacks=unpacks)
    try:
        for at in range(0, len(tar), 1000):  # chunks that end anywhere
            writer.write(tar[at : at + 1000])
        sealed = writer.seal(digest_of(tar))
        if sealed.form == "dir":
            yield writer.directory / "root", sealed
            return
        mounted = place / "mounted"
        mounted.mkdir(exist_ok=True)
        options = f"ro,device={writer.directory / 'tar'}"
        subprocess.run(["mount", "-t", "erofs", "-o", options, writer.directory / "index", mounted], check=True)
        try:
            yield mounted, sealed
        finally:
            subprocess.run(["umount", mounted], check=True)
    finally:
        writer.discard()


@pytest.mark.parametrize("unpacks", [False, True], ids=["erofs", "unpacked"])
@pytest.mark.parametrize("name", LIKE_TAR)
def test_a_layer_shows_what_tar_extracts(name: str, unpacks: bool, tmp_path: Path) -> None:
    layer = LIKE_TAR[name]
    layer += b"" if name in ("no end", "trailing garbage") else tars.END
    extracted = tmp_path / "extracted"
    extracted.mkdir()
    command = ["tar", "-xpf", "-", "-C", extracted, "--numeric-owner", "--xattrs", "--xattrs-include=*"]
    subprocess.run(command, input=layer, check=True, stderr=subprocess.DEVNULL)
    with shown(layer, tmp_path, unpacks=unpacks) as (root, sealed):
        assert sealed.form == ("dir" if unpacks else "tar")
        assert _without_implied(describe(root)) == _without_implied(describe(extracted))


def _without_implied(tree: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """Leave out directories that only names imply: tar dates them now."""
    return {path: seen for path, seen in tree.items() if path not in (b"d", b"d/" + b"p" * 140) or seen[6]}


@pytest.mark.parametrize("unpacks", [False, True], ids=["erofs", "unpacked"])
class TestWhatTarDoesNotDo:
    def test_implied_directories_are_plain(self, unpacks: bool, tmp_path: Path) -> None:
        with shown(member(b"usr/lib/f", b"x"), tmp_path, unpacks=unpacks) as (root, sealed):
            for path in ("usr", "usr/lib"):
                status = (root / path).stat()
                assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime_ns) == (0o755, 0, 0)
            assert stat.S_IMODE(root.stat().st_mode) == 0o755
            assert sealed.root is None

    def test_the_root_entry_is_reported(self, unpacks: bool, tmp_path: Path) -> None:
        layer = pax([(b"mtime", b"7.5"), xattr(b"user.a", b"b")]) + directory(b"./", mode=0o1711, uid=4, gid=5)
        with shown(layer, tmp_path, unpacks=unpacks) as (root, sealed):
            assert sealed.root is not None
            assert (sealed.root.mode, sealed.root.uid, sealed.root.gid, sealed.root.mtime_ns) == (
                0o1711,
                4,
                5,
                7_500_000_000,
            )
            assert sealed.root.xattrs == {"user.a": b"b"}
            status = root.stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime_ns) == (0o1711, 4, 7_500_000_000)

    @pytest.mark.parametrize("first", ["marker", "content"])
    def test_opaque_directories(self, first: str, unpacks: bool, tmp_path: Path) -> None:
        parts = [member(b"d/.wh..wh..opq"), directory(b"d") + member(b"d/f", b"x")]
        layer = b"".join(parts if first == "marker" else parts[::-1])
        with shown(layer, tmp_path, unpacks=unpacks) as (root, _):
            assert os.listdir(root / "d") == ["f"]
            assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"

    def test_opaque_root(self, unpacks: bool, tmp_path: Path) -> None:
        with shown(member(b".wh..wh..opq") + member(b"f", b"x"), tmp_path, unpacks=unpacks) as (root, _):
            assert os.getxattr(root, "trusted.overlay.opaque") == b"y"
            assert os.listdir(root) == ["f"]

    def test_whiteouts(self, unpacks: bool, tmp_path: Path) -> None:
        layer = member(b"d/.wh.gone") + member(b".wh.data", b"whiteout with data") + member(b"after", b"x")
        layer += hardlink(b"d/.wh.linked", b"d/.wh.gone")
        with shown(layer, tmp_path, unpacks=unpacks) as (root, _):
            for path in ("d/gone", "d/linked", "data"):
                status = (root / path).stat()
                assert stat.S_ISCHR(status.st_mode)
                assert status.st_rdev == 0
            assert os.getxattr(root / "d", "trusted.overlay.origin") == b""
            assert sorted(os.listdir(root)) == ["after", "d", "data"]
            assert (root / "after").read_bytes() == b"x"

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_whiteout_spares_its_own_layer(self, reverse: bool, unpacks: bool, tmp_path: Path) -> None:
        parts = [member(b"f", b"x"), member(b".wh.f"), directory(b"d"), member(b".wh.d")]
        with shown(b"".join(parts[::-1] if reverse else parts), tmp_path, unpacks=unpacks) as (root, _):
            assert (root / "f").read_bytes() == b"x"
            assert (root / "d").is_dir()
            assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"

    def test_aufs_bookkeeping_is_dropped(self, unpacks: bool, tmp_path: Path) -> None:
        layer = directory(b".wh..wh.plnk") + member(b".wh..wh.plnk/1.2", b"x") + member(b".wh..wh.aufs", b"y")
        for tar in (layer + member(b"f", b"z"), member(b"f", b"z") + layer):
            with shown(tar, tmp_path, unpacks=unpacks) as (root, _):
                assert os.listdir(root) == ["f"]
                assert (root / "f").read_bytes() == b"z"

    def test_overlay_attributes_are_stripped(self, unpacks: bool, tmp_path: Path) -> None:
        hostile = [xattr(b"trusted.overlay.redirect", b"/etc"), xattr(b"user.overlay.opaque", b"y")]
        with shown(pax([*hostile, xattr(b"user.kept", b"1")]) + directory(b"d"), tmp_path, unpacks=unpacks) as (
            root,
            _,
        ):
            assert describe(root)[b"d"][6] == {"user.kept": b"1"}

    def test_acls_and_foreign_records_are_ignored(self, unpacks: bool, tmp_path: Path) -> None:
        records = [(b"SCHILY.acl.access", b"user::rwx"), (b"LIBARCHIVE.xattr.user.x", b"aGk"), (b"comment", b"c")]
        layer = pax([(b"path", b"all")], flag=b"g") + pax(records) + member(b"f", b"x")
        with shown(layer, tmp_path, unpacks=unpacks) as (root, _):
            assert describe(root)[b"f"][6] == {}

    @pytest.mark.parametrize("flag", [b"1", b"2", b"5", b"3"])
    def test_a_size_where_there_is_no_data(self, flag: bytes, unpacks: bool, tmp_path: Path) -> None:
        layer = member(b"f", b"first") + header(b"odd", flag=flag, link=b"f", size=512) + member(b"next", b"x")
        with shown(layer, tmp_path, unpacks=unpacks) as (root, _):
            assert (root / "next").read_bytes() == b"x"

    def test_changes_of_kind(self, unpacks: bool, tmp_path: Path) -> None:
        layer = directory(b"a") + member(b"a/inner", b"x") + member(b"a", b"now a file")
        layer += member(b"b", b"file") + directory(b"b") + member(b"b/inner", b"y")
        with shown(layer, tmp_path, unpacks=unpacks) as (root, _):
            assert (root / "a").read_bytes() == b"now a file"
            assert (root / "b/inner").read_bytes() == b"y"

    def test_a_link_to_itself_is_ignored(self, unpacks: bool, tmp_path: Path) -> None:
        with shown(member(b"f", b"x") + hardlink(b"f", b"./f"), tmp_path, unpacks=unpacks) as (root, _):
            assert (root / "f").read_bytes() == b"x"

    @pytest.mark.parametrize("layer", [b"", bytes(512), tars.END], ids=["no byte", "one block", "two blocks"])
    def test_an_empty_layer(self, layer: bytes, unpacks: bool, tmp_path: Path) -> None:
        with shown(layer, tmp_path, unpacks=unpacks) as (root, _):
            assert os.listdir(root) == []

    def test_a_link_as_parent_leads_within_the_layer(self, unpacks: bool, tmp_path: Path) -> None:
        layer = directory(b"usr/lib") + symlink(b"lib", b"/usr/lib") + member(b"lib/f", b"x")
        with shown(layer, tmp_path, unpacks=unpacks) as (root, sealed):
            assert sealed.form == "dir"
            assert (root / "usr/lib/f").read_bytes() == b"x"
            assert (root / "lib").is_symlink()

    @pytest.mark.parametrize("layer", [gnu_sparse(b"f", ODD, 80_000), pax_sparse(b"f", ODD, 80_000, "1.0")])
    def test_sparse_pieces_at_odd_places(self, layer: bytes, unpacks: bool, tmp_path: Path) -> None:
        """Packed without gaps, as libarchive writes and Go reads them; GNU tar itself never makes such."""
        content = bytearray(80_000)
        for start, piece in ODD:
            content[start : start + len(piece)] = piece
        with shown(layer, tmp_path, unpacks=unpacks) as (root, sealed):
            assert sealed.form == "dir"
            assert (root / "f").read_bytes() == content

    def test_no_link_reaches_outside(self, unpacks: bool, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        climb = b"../" * 40 + os.fsencode(outside)[1:]
        for target in (os.fsencode(outside), climb):
            link = pax([(b"linkpath", target)]) + symlink(b"out", b"cut")
            layer = link + member(b"out/f", b"x")
            with pytest.raises(InvalidInput, match="below"), shown(layer, tmp_path, unpacks=unpacks):
                pass
            with pytest.raises(InvalidInput, match="no earlier file"):  # noqa: SIM117
                with shown(link + hardlink(b"f", b"out/passwd"), tmp_path, unpacks=unpacks):
                    pass
        assert os.listdir(outside) == []
        assert sorted(os.listdir(tmp_path)) == ["outside"]

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (member(b"../f", b"x"), "points outside"),
            (member(b"a/../../f", b"x"), "points outside"),
            (hardlink(b"f", b"../../etc/passwd"), "points outside"),
            (hardlink(b"f", b"later") + member(b"later", b"x"), "no earlier file"),
            (hardlink(b"f", b"/etc/passwd"), "no earlier file"),
            (directory(b"d") + hardlink(b"f", b"d"), "no earlier file"),
            (member(b"f", b"x") + member(b"f/g", b"y"), "not a directory"),
            (member(b".wh."), "an impossible name"),
            (member(b"d/.wh..."), "an impossible name"),
            (member(b"./", b"x"), "root directory"),
            (member(b"f", b"x", flag=b"Z"), "unknown type"),
            (member(b"f", b"x", checksum=b"000001\0 "), "invalid tar header"),
            (member(b"f", b"x" * 600)[:-512], "middle of a member"),
            (member(b"f", b"x")[:512], "middle of a member"),
            (header(b"f")[:100], "middle of a member"),
            (pax([(b"path", b"g")]), "middle of a member"),
            (pax([(b"path", b"a\0b")]) + member(b"f"), "impossible name"),
            (
                member(b"/".join([b"d"] * 300)[:99] + b"/", flag=b"0") + pax([(b"path", b"d/" * 300)]) + member(b"f"),
                "name",
            ),
            (pax([(b"path", b"n" * 256)]) + member(b"f"), "impossible name"),
            (pax([(b"uid", b"4294967295")]) + member(b"f"), "out of range"),
            (pax([(b"size", b"-5")]) + member(b"f"), "invalid size"),
            (header(b"x", flag=b"x", size=1 << 30), "1073741824 bytes"),
            (pax_sparse(b"f", [(512, b"a" * 512), (0, b"b" * 512)], 2048, "1.0"), "contradicts"),
            (pax_sparse(b"f", [(0, b"a" * 512)], 100, "0.1"), "contradicts"),
            (symlink(b"l", b""), "impossible target"),
            (b"not a tar, but long enough to be read as a header. " * 20, "invalid tar header"),
        ],
    )
    def test_refused(self, layer: bytes, message: str, unpacks: bool, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=message), shown(layer, tmp_path, unpacks=unpacks):
            pass
        assert os.listdir(tmp_path) == []


def test_a_layer_of_more_files_than_anybody_has_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_NOTES", 5)
    for entry in (member(b"f", b"x"), member(b".wh.f"), member(b".wh..wh.aufs"), directory(b"d")):
        with (
            pytest.raises(InvalidInput, match="more files than can be unpacked"),
            shown(entry * 6, tmp_path, unpacks=True),
        ):
            pass
        assert os.listdir(tmp_path) == []


def test_what_is_copied_for_the_root_itself_is_nobodys(tmp_path: Path) -> None:
    extractor = Extractor(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), "", None, no_overwrite=False)
    try:
        extractor.write(member(b"f", b"x") + member(b"./", b"root") + member(b"g", b"y") + tars.END)
        extractor.seal()
    finally:
        extractor.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"x", "g": b"y"}


def test_mkfs_erofs_agrees_on_a_plain_tree(tmp_path: Path) -> None:
    """Where the field's own tool reads a tar rightly, its index shows the same files."""
    made = subprocess.run(
        ["tar", "-C", "/usr/include", "-cf", "-", "--format=gnu", "linux"], check=True, capture_output=True
    )
    (tmp_path / "tar").write_bytes(made.stdout)
    command = ["mkfs.erofs", "--quiet", "--tar=i", tmp_path / "theirs", tmp_path / "tar"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "mkfs").mkdir()
    options = f"ro,device={tmp_path / 'tar'}"
    subprocess.run(["mount", "-t", "erofs", "-o", options, tmp_path / "theirs", tmp_path / "mkfs"], check=True)
    try:
        with shown(made.stdout, tmp_path, unpacks=False) as (root, _):
            assert describe(root) == describe(tmp_path / "mkfs")
    finally:
        subprocess.run(["umount", tmp_path / "mkfs"], check=True)
