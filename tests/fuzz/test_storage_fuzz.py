"""Foreign bytes in layers: whatever comes, the answer is a layer or a `HavreError`, in bounded memory."""

from __future__ import annotations

import gzip
import io
import tarfile
from contextlib import suppress

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from havre.errors import HavreError, InvalidInput
from havre.storage.erofs import Index, Unindexable
from havre.tar.compress import PIECE, Decompressor
from havre.tar.reader import Data, Entry, TarParser
from havre.tar.writer import TarWriter
from support import tars

BOUNDED = settings(max_examples=150, deadline=None)

names = st.lists(
    st.sampled_from([b"a", b"b", b"..", b".", b"", b".wh.a", b".wh..wh..opq", b".wh.", b"n" * 120, b"\xff"]),
    min_size=1,
    max_size=4,
).map(b"/".join)
numbers = st.integers(-(2**70), 2**70)
fields = st.fixed_dictionaries(
    {},
    optional={
        "flag": st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"S", b"x", b"g", b"L", b"K", b"Z"]),
        "size": st.integers(-5, 3000),
        "mode": st.integers(0, 0o7777),
        "uid": st.integers(-5, 2**34),
        "mtime": st.integers(-(2**70), 2**70),
        "link": names,
        "magic": st.sampled_from([tars.USTAR, tars.GNU, tars.V7]),
        "tail": st.binary(max_size=167),
    },
)
records = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"path",
                b"linkpath",
                b"size",
                b"uid",
                b"mtime",
                b"GNU.sparse.major",
                b"GNU.sparse.minor",
                b"GNU.sparse.map",
                b"GNU.sparse.size",
                b"GNU.sparse.realsize",
                b"GNU.sparse.offset",
                b"GNU.sparse.numbytes",
                b"SCHILY.xattr.user.a",
                b"SCHILY.xattr.trusted.overlay.opaque",
            ]
        ),
        names | numbers.map(lambda n: b"%d" % n) | st.binary(max_size=40) | st.sampled_from([b"0,1", b"1.5", b"1"]),
    ),
    max_size=4,
)
members = st.one_of(
    st.builds(lambda name, data, kept: tars.member(name, data, **kept), names, st.binary(max_size=1500), fields),
    records.map(tars.pax),
    st.builds(tars.gnu_long, st.sampled_from([b"L", b"K"]), names),
    st.binary(max_size=600),
    st.just(bytes(512)),
)
archives = st.lists(members, max_size=6).map(b"".join)


def _parse(tar: bytes, size: int, *, data: bool) -> list[Entry | Data]:
    parser = TarParser(data=data)
    events = [event for at in range(0, len(tar), size) for event in parser.feed(tar[at : at + size])]
    parser.finish()
    return events


@BOUNDED
@given(archives, st.integers(1, 2000))
def test_any_archive_is_read_or_refused(tar: bytes, size: int) -> None:
    index = Index()
    try:
        for entry in _parse(tar, size, data=False):
            assert isinstance(entry, Entry)
            assert not entry.path.startswith(b"/")
            assert b".." not in entry.path.split(b"/")
            assert all(e.start + e.length <= entry.size and e.offset + e.length <= len(tar) for e in entry.extents)
            index.add(entry)
        image = index.render(bytes(16), len(tar))
    except (HavreError, Unindexable):
        return
    assert len(image) % 512 == 0


@BOUNDED
@given(archives, st.integers(1, 2000), st.integers(1, 2000))
def test_the_way_a_stream_is_cut_changes_nothing(tar: bytes, one: int, other: int) -> None:
    def outcome(size: int, data: bool) -> object:
        try:
            return [event for event in _parse(tar, size, data=data) if isinstance(event, Entry)]
        except HavreError as error:
            return str(error)

    assert outcome(one, data=False) == outcome(other, data=True)


@BOUNDED
@given(st.binary(max_size=3000), st.integers(0, 511))
def test_one_wrong_byte_never_escapes(noise: bytes, at: int) -> None:
    good = tars.pax([(b"path", b"d/name")]) + tars.member(b"cut", b"x" * 700) + tars.END
    bad = bytearray(good)
    for offset, byte in enumerate(noise):
        bad[(at + offset * 37) % len(bad)] ^= byte
    try:
        _parse(bytes(bad), 512, data=True)
    except HavreError:
        return


@BOUNDED
@given(st.lists(st.tuples(st.text("abcdé/", min_size=1, max_size=130), st.binary(max_size=2000)), max_size=5))
def test_what_the_standard_library_writes_is_read(files: list[tuple[str, bytes]]) -> None:
    out = io.BytesIO()
    kept = [(name.strip("/"), data) for name, data in files if name.strip("/")]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in kept:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    tar = out.getvalue()
    entries = [event for event in _parse(tar, 700, data=False) if isinstance(event, Entry)]
    read = [b"".join(tar[e.offset : e.offset + e.length] for e in entry.extents) for entry in entries]
    assert [entry.path for entry in entries] == [b"/".join(filter(None, n.encode().split(b"/"))) for n, _ in kept]
    assert read == [data for _, data in kept]


xattrs = st.dictionaries(
    st.sampled_from(
        [b"user.a", b"user.=", b"user.overlay.x", b"security.capability", b"trusted.x", b"user." + b"n" * 260]
    ),
    st.binary(max_size=40) | st.just(b"x" * 70_000),
    max_size=2,
)
ids = st.integers(0, 2**21) | st.integers(2**32 - 3, 2**32 - 1)
entries = st.builds(
    lambda kind, link, size, rdev, **of: Entry(
        kind=kind,
        link=link if kind.endswith("link") else b"",
        size=size if kind == "file" else 0,
        rdev=rdev if kind in ("char", "block") else (0, 0),
        **of,
    ),
    kind=st.sampled_from(["file", "dir", "symlink", "hardlink", "char", "block", "fifo"]),
    path=names | st.binary(min_size=1, max_size=130),
    link=names | st.just(b"n" * 5000),
    size=st.integers(0, 1500),
    mode=st.integers(0, 0o7777),
    uid=ids,
    gid=ids,
    mtime_s=st.integers(-(2**40), 2**40),
    mtime_ns=st.integers(0, 10**9 - 1),
    rdev=st.tuples(st.integers(0, 0x1001), st.integers(0, 0x100001)),
    xattrs=xattrs,
)


@BOUNDED
@given(st.lists(st.tuples(entries, st.binary(max_size=2000)), max_size=4), st.none() | st.integers(0, 2**31))
def test_the_writer_says_what_a_reader_finds(members: list[tuple[Entry, bytes]], newest_s: int | None) -> None:
    out = io.BytesIO()
    writer = TarWriter(out, newest_s)
    said, contents = [], []
    for entry, content in members:
        with suppress(InvalidInput):
            said.append(writer.put(entry, (content[:700], content[700:])))
            contents.append(content.ljust(entry.size, b"\0")[: entry.size])
    writer.finish()
    tar = out.getvalue()
    assert _parse(tar, 10_000, data=False) == said
    found = [b"".join(tar[each.offset :][: each.length] for each in entry.extents) for entry in said]
    assert found == contents


def _inflate(stream: bytes, size: int) -> bytes:
    decompressor, out = Decompressor(), []
    for at in range(0, len(stream), size):
        decompressor.feed(stream[at : at + size])
        while piece := decompressor.read():
            assert len(piece) <= 2 * PIECE
            out.append(piece)
    out.append(decompressor.finish())
    return b"".join(out)


@BOUNDED
@given(
    st.lists(st.binary(max_size=5000), min_size=1, max_size=4), st.integers(1, 3000), st.sampled_from(["gzip", "zstd"])
)
def test_streams_of_several_members(parts: list[bytes], size: int, kind: str) -> None:
    compress = gzip.compress if kind == "gzip" else zstandard.ZstdCompressor().compress
    assert _inflate(b"".join(map(compress, parts)) + bytes(100), size) == b"".join(parts)


@BOUNDED
@given(st.binary(max_size=2000), st.binary(max_size=400), st.integers(1, 3000), st.booleans())
def test_any_compressed_stream_is_read_or_refused(data: bytes, noise: bytes, size: int, zstd: bool) -> None:
    stream = bytearray(zstandard.ZstdCompressor().compress(data) if zstd else gzip.compress(data))
    for offset, byte in enumerate(noise):
        stream[(offset * 13) % len(stream)] ^= byte
    try:
        _inflate(bytes(stream), size)
    except HavreError:
        return
