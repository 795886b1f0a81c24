"""What `headers` writes, Python's tarfile and `reader` read."""

from __future__ import annotations

import io
import stat
import tarfile

import pytest

from havre.errors import InvalidInput
from havre.tar.headers import FLAGS, HARD_LINK, end, global_header, header, padding
from havre.tar.reader import TarParser, read_members

LONG = "d/" + "n" * 150 + "\u00e9"


def archive() -> bytes:
    content = b"x" * 700
    member = header(
        LONG.encode(), mode=0o4755, uid=1 << 22, gid=7, size=len(content), mtime=-5, xattrs={b"user.a": b"1"}
    )
    pieces = [
        global_header({"HAVRE.note": "caf\u00e9"}),
        header(b"d/", FLAGS[stat.S_IFDIR], mode=0o755, mtime=9),
        member, content, padding(len(content)),
        header(b"l", FLAGS[stat.S_IFLNK], link=b"t" * 120),
        header(b"h", HARD_LINK, link=LONG.encode()),
        header(b"c", FLAGS[stat.S_IFCHR], device=(1, 5)),
    ]  # fmt: skip
    data = b"".join(pieces)
    return data + end(len(data))


def test_tarfile_reads_it() -> None:
    assert len(archive()) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        d, long, link, hard, device = tar.getmembers()
        assert tar.pax_headers["HAVRE.note"] == "caf\u00e9"
        assert (d.isdir(), d.mode, d.mtime) == (True, 0o755, 9)
        assert (long.name, long.mode, long.uid, long.gid, long.mtime) == (LONG, 0o4755, 1 << 22, 7, -5)
        assert long.pax_headers["SCHILY.xattr.user.a"] == "1"
        assert tar.extractfile(long).read() == b"x" * 700  # type: ignore[union-attr]
        assert (link.linkname, hard.linkname, hard.islnk()) == ("t" * 120, LONG, True)
        assert (device.devmajor, device.devminor) == (1, 5)


def test_our_reader_reads_it_in_pieces_of_any_size() -> None:
    data = archive()
    for size in (1, 511, 4096):
        members = list(read_members(data[at : at + size] for at in range(0, len(data), size)))
        assert [entry.path for entry, _ in members] == [b"d", LONG.encode(), b"l", b"h", b"c"]
    contents = {entry.path: b"".join(content) for entry, content in read_members([data])}
    assert contents[LONG.encode()] == b"x" * 700
    assert sum(map(len, contents.values())) == 700


def test_holes_are_zeros() -> None:
    fields = b"".join(b"%011o\0" % number for number in (512, 512, 2048, 10))
    block = bytearray(header(b"s", b"S", size=522))
    block[386 : 386 + len(fields)] = fields
    block[483:495] = b"%011o\0" % 3000
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    data = bytes(block) + b"a" * 512 + b"b" * 10 + padding(522) + end(0)
    ((entry, content),) = ((entry, b"".join(content)) for entry, content in read_members([data]))
    assert entry.size == 3000
    assert content == bytes(512) + b"a" * 512 + bytes(1024) + b"b" * 10 + bytes(942)


@pytest.mark.parametrize("cut", [700, 1024, 1026])
def test_an_archive_that_breaks_off_in_a_member_is_refused(cut: int) -> None:
    data = header(b"d/", FLAGS[stat.S_IFDIR]) + header(b"f", size=5) + b"12345" + padding(5) + end(0)
    with pytest.raises(InvalidInput):
        list(read_members([data[:cut]]))


def test_the_parser_knows_whether_it_has_seen_the_end() -> None:
    parser = TarParser()
    assert len(list(parser.feed(header(b"a")))) == 1
    assert not parser.ended
    assert list(parser.feed(end(512))) == []
    assert parser.ended


def test_the_end_may_be_missing() -> None:
    """As in the contexts that docker exports."""
    data = header(b"f", size=5) + b"12345" + padding(5)
    assert [(entry.path, b"".join(content)) for entry, content in read_members([data])] == [(b"f", b"12345")]
