"""The pure parts of a layer's way in: tar headers, the index, compression, whiteouts."""

from __future__ import annotations

import gzip
import lzma
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from havre.errors import InvalidInput
from havre.storage import erofs, whiteouts
from havre.storage.erofs import Index, Unindexable, read_uuid
from havre.tar.compress import PIECE, Decompressor, kind_of
from havre.tar.reader import Data, Entry, Extent, TarParser
from support import tars


def entries(tar: bytes) -> list[Entry]:
    parser = TarParser()
    found = [event for event in parser.feed(tar) if isinstance(event, Entry)]
    parser.finish()
    return found


def index_of(tar: bytes) -> Index:
    index = Index()
    for entry in entries(tar):
        index.add(entry)
    return index


FILE = {
    "path": b"f", "kind": "file", "mode": 0o644, "uid": 1000, "gid": 1000, "mtime_s": 1 << 40, "mtime_ns": 999_999_999,
    "size": 1 << 40, "extents": (Extent(0, 1 << 40, 1024),),
}  # fmt: skip
NO_DATA = {"size": 0, "extents": ()}
HOSTILE: dict[str, Callable[[int], dict[str, Any]]] = {
    "files": lambda number: {},
    "holes": lambda number: {"size": 32 << 20, "extents": (Extent(0, 512, 1024),)},
    "links": lambda number: {**NO_DATA, "kind": "symlink", "link": b"%0500d" % number},
    "directories": lambda number: {**NO_DATA, "kind": "dir"},
    "deep": lambda number: {"path": b"/".join(b"%d" % (number + depth) for depth in range(200))},
    "whiteouts": lambda number: {**NO_DATA, "path": b".wh.%d" % number},
    "attributes": lambda number: {"xattrs": {b"user.%d.%d" % (number, n): b"" for n in range(20)}},
    "devices": lambda number: {**NO_DATA, "kind": "char", "rdev": (4095, number)},
}
"""Members that take much memory each, in a layer of nothing else."""


class TestTar:
    def test_an_entry_as_a_value(self) -> None:
        (entry,) = entries(tars.member(b"./d//f", b"text", mode=0o4755, uid=3, gid=4, mtime=5))
        assert entry == Entry(
            path=b"d/f",
            kind="file",
            mode=0o4755,
            uid=3,
            gid=4,
            mtime_s=5,
            mtime_ns=0,
            size=4,
            extents=(Extent(0, 4, 512),),
        )

    @pytest.mark.parametrize(
        ("text", "seconds", "nanoseconds"),
        [
            (b"7", 7, 0),
            (b"7.5", 7, 500_000_000),
            (b"0.1234567899", 0, 123_456_789),
            (b"-1.5", -2, 500_000_000),
            (b".5", 0, 5 * 10**8),
        ],
    )
    def test_times(self, text: bytes, seconds: int, nanoseconds: int) -> None:
        (entry,) = entries(tars.pax([(b"mtime", text)]) + tars.member(b"f"))
        assert (entry.mtime_s, entry.mtime_ns) == (seconds, nanoseconds)

    def test_data_comes_with_its_place(self) -> None:
        parser = TarParser(data=True)
        tar = tars.member(b"a", b"1" * 600) + tars.member(b"b", b"2")
        pieces = [e for at in range(0, len(tar), 400) for e in map(_copied, parser.feed(tar[at : at + 400])) if e]
        assert pieces == [(512, b"1" * 288), (800, b"1" * 312), (2048, b"2")]

    def test_global_records_do_not_leak_into_members(self) -> None:
        (entry,) = entries(tars.pax([(b"path", b"evil")], flag=b"g") + tars.member(b"good"))
        assert entry.path == b"good"

    def test_a_long_map_takes_no_longer_than_it_is(self) -> None:
        """The map of form 1.0 says how many lines it has, and comes in 2048 blocks."""
        numbers = b"%d\n" % 250_000 + b"0\n" * 400_000
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1")]
        begun = time.thread_time()
        with pytest.raises(InvalidInput, match="middle of a member"):
            entries(tars.pax(records) + tars.member(b"f", numbers))
        assert time.thread_time() - begun < 1
        with pytest.raises(InvalidInput, match="line without end"):
            entries(tars.pax(records) + tars.member(b"f", b"1" * 2000))

    def test_an_extended_header_serves_one_member(self) -> None:
        first, second = entries(tars.pax([(b"path", b"long")]) + tars.member(b"x") + tars.member(b"y"))
        assert (first.path, second.path) == (b"long", b"y")


def _copied(event: Entry | Data) -> tuple[int, bytes] | None:
    return (event.offset, bytes(event.view)) if isinstance(event, Data) else None


class TestIndex:
    def test_the_same_entries_give_the_same_bytes(self) -> None:
        tar = tars.directory(b"d") + b"".join(tars.member(b"d/%d" % n, b"x" * n) for n in range(50))
        assert index_of(tar).render(bytes(16), 9) == index_of(tar).render(bytes(16), 9)

    def test_order_of_siblings_does_not_matter_to_names(self) -> None:
        image = index_of(tars.member(b"b") + tars.member(b"a")).render(bytes(16), 1024)
        assert image.rfind(b"...ab") > 0

    def test_the_uuid_is_found_again(self) -> None:
        uuid = bytes(range(16))
        assert read_uuid(Index().render(uuid, 0)[:1536]) == uuid
        assert read_uuid(bytes(1536)) is None
        assert read_uuid(b"") is None

    def test_a_layer_may_not_fill_the_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(erofs, "MAX_METADATA", 100_000)
        with pytest.raises(InvalidInput, match="more files than can be indexed"):
            index_of(b"".join(tars.member(b"f%d" % n) for n in range(1000)))

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_nothing_a_layer_holds_takes_more_memory_than_is_counted(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(erofs, "MAX_METADATA", 16 << 20)
        index = Index()

        def fill() -> None:
            for number in range(100_000):
                index.add(Entry(**{**FILE, "path": b"dir/file%08d" % number, **HOSTILE[kind](number)}))

        tracemalloc.start()
        try:
            with pytest.raises(InvalidInput, match="more files than can be indexed"):
                fill()
            assert len(index.render(bytes(16), 1 << 40)) < 16 << 20
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()

    def test_bookkeeping_of_aufs_is_counted_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(erofs, "MAX_METADATA", 100_000)
        with pytest.raises(InvalidInput, match="more files than can be indexed"):
            index_of(tars.member(b".wh..wh.plnk") * 1000)

    def test_directories_that_names_imply_are_counted_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(erofs, "MAX_METADATA", 100_000)
        deep = [(b"path", b"/".join([b"%d" % n] * 200)) for n in range(10)]
        with pytest.raises(InvalidInput, match="more files"):
            index_of(b"".join(tars.pax([record]) + tars.member(b"f") for record in deep))

    def test_too_fine_a_sparse_map_is_left_to_unpacking(self) -> None:
        with pytest.raises(Unindexable, match="too fine"):
            index_of(tars.gnu_sparse(b"f", [(0, b"x" * 512), (1024, b"y" * 512)], 1 << 30))


class TestDecompressor:
    @pytest.mark.parametrize("kind", ["gzip", "zstd", "xz"])
    def test_a_bomb_comes_in_pieces(self, kind: str) -> None:
        zeros = bytes(64 << 20)
        compress = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "xz": lzma.compress}[kind]
        bomb = compress(zeros)
        assert kind_of(bomb) == kind
        del zeros
        decompressor, total = Decompressor(), 0
        tracemalloc.start()
        decompressor.feed(bomb)
        while piece := decompressor.read():
            total += len(piece)
        assert decompressor.finish() == b""
        assert total == 64 << 20
        limit = {"gzip": 6 * PIECE, "xz": 6 * PIECE + (8 << 20), "zstd": 130 << 20}[kind]  # xz has its dictionary
        assert tracemalloc.get_traced_memory()[1] < limit
        tracemalloc.stop()

    def test_a_stream_shorter_than_any_magic(self) -> None:
        decompressor = Decompressor()
        decompressor.feed(b"ab")
        assert decompressor.read() == b""
        assert decompressor.finish() == b"ab"

    def test_thousands_of_members(self) -> None:
        stream = gzip.compress(b"x") * 5000
        decompressor, out = Decompressor(), b""
        decompressor.feed(stream)
        while piece := decompressor.read():
            out += piece
        assert out + decompressor.finish() == b"x" * 5000

    @pytest.mark.parametrize("member", [gzip.compress(b"", mtime=0), zstandard.ZstdCompressor().compress(b"")])
    def test_members_without_content_cost_little(self, member: bytes) -> None:
        decompressor, begun = Decompressor(), time.thread_time()
        for _ in range(3):
            decompressor.feed(member * ((1 << 20) // len(member)))
            assert decompressor.read() == b""
        assert decompressor.finish() == b""
        assert time.thread_time() - begun < 2


class TestWhiteouts:
    @pytest.mark.parametrize(
        ("name", "hidden"), [(b".wh.a", b"a"), (b".wh...a", b"..a"), (b"a", None), (b".wh..wh..opq", None)]
    )
    def test_names(self, name: bytes, hidden: bytes | None) -> None:
        assert whiteouts.hidden_name(name) == hidden

    @pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh..."])
    def test_no_possible_name(self, name: bytes) -> None:
        with pytest.raises(InvalidInput):
            whiteouts.hidden_name(name)

    @pytest.mark.parametrize(
        ("path", "is_bookkeeping"),
        [(b".wh..wh.plnk/1", True), (b"d/.wh..wh.aufs", True), (b"d/.wh..wh..opq", False), (b"d/.wh.x", False)],
    )
    def test_bookkeeping(self, path: bytes, is_bookkeeping: bool) -> None:
        assert whiteouts.is_bookkeeping(path) == is_bookkeeping
