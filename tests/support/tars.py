"""Tar archives made byte by byte, for hostile and historic ones that no tar program writes."""

from __future__ import annotations

from collections.abc import Iterable

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)


def octal(value: int, width: int) -> bytes:
    """A number as a header field of `width` bytes; base-256 if octal digits do not fit."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value % (1 << 8 * width) | 1 << (8 * width - 1)).to_bytes(width, "big")


def header(
    name: bytes,
    *,
    flag: bytes = b"0",
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_500_000_000,
    link: bytes = b"",
    magic: bytes = USTAR,
    device: tuple[int, int] = (0, 0),
    tail: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block. `tail` is the content at byte 345: ustar's prefix, or GNU's sparse fields."""
    block = name.ljust(100, b"\0")[:100] + octal(mode, 8) + octal(uid, 8) + octal(gid, 8)
    block += octal(size, 12) + octal(mtime, 12) + b" " * 8 + flag + link.ljust(100, b"\0")[:100] + magic
    block = block.ljust(329, b"\0") + octal(device[0], 8) + octal(device[1], 8) + tail
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + (checksum or b"%06o\0 " % sum(block)) + block[156:]


def padded(data: bytes) -> bytes:
    """`data` padded to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes = b"", **fields: object) -> bytes:
    """A header and its data; `fields` are those of `header`."""
    return header(name, **{"size": len(data), **fields}) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, **fields: object) -> bytes:
    """A directory's header."""
    return member(name, **{"flag": b"5", "mode": 0o755, **fields})  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """A symbolic link's header."""
    return member(name, **{"flag": b"2", "mode": 0o777, "link": target, **fields})  # type: ignore[arg-type]


def hardlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """A hard link's header."""
    return member(name, **{"flag": b"1", "link": target, **fields})  # type: ignore[arg-type]


def pax(records: Iterable[tuple[bytes, bytes]], flag: bytes = b"x") -> bytes:
    """An extended header for the next member."""
    return member(b"PaxHeaders/x", b"".join(pax_record(key, value) for key, value in records), flag=flag)


def pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`."""
    rest = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(len(rest) + 1, len(rest) + 9) if n == len(rest) + len(str(n)))
    return b"%d" % length + rest


def gnu_long(flag: bytes, text: bytes) -> bytes:
    """GNU's long name (b"L") or long link (b"K") for the next member."""
    return member(b"././@LongLink", text + b"\0", flag=flag, magic=GNU)


def gnu_sparse(name: bytes, pieces: list[tuple[int, bytes]], size: int) -> bytes:
    """A sparse file in the old GNU format; `pieces` are (offset, data)."""
    pairs = [octal(start, 12) + octal(len(data), 12) for start, data in pieces]
    first, rest = pairs[:4], pairs[4:]
    tail = bytes(41) + b"".join(first).ljust(96, b"\0") + (b"\1" if rest else b"\0") + octal(size, 12)
    data = b"".join(data for _, data in pieces)
    blocks = header(name, flag=b"S", size=len(data), magic=GNU, tail=tail)
    while rest:
        now, rest = rest[:21], rest[21:]
        blocks += b"".join(now).ljust(504, b"\0") + (b"\1" if rest else b"\0") + bytes(7)
    return blocks + padded(data)


def pax_sparse(name: bytes, pieces: list[tuple[int, bytes]], size: int, version: str) -> bytes:
    """A sparse file in pax format 0.0, 0.1 or 1.0."""
    data = b"".join(data for _, data in pieces)
    numbers = [number for start, piece in pieces for number in (start, len(piece))]
    if version == "0.0":
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(pieces))]
        for start, piece in pieces:
            records += [(b"GNU.sparse.offset", b"%d" % start), (b"GNU.sparse.numbytes", b"%d" % len(piece))]
        return pax(records) + member(name, data)
    if version == "0.1":
        listed = b",".join(b"%d" % number for number in numbers)
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(pieces))]
        records += [(b"GNU.sparse.name", name), (b"GNU.sparse.map", listed)]
        return pax(records) + member(b"GNUSparseFile.0/" + name, data)
    text = padded(b"".join(b"%d\n" % number for number in [len(pieces), *numbers]))
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name)]
    records.append((b"GNU.sparse.realsize", b"%d" % size))
    return pax(records) + member(b"GNUSparseFile.0/" + name, text + data)
