"""Headers of tar members: ustar fields, and pax records for values that do not fit in them. Pure.

Reproducible: the same member always gives the same bytes. No user or group names are written, and pax records only
where a field is too narrow (names that are long or not ASCII, large IDs, sizes of 8 GiB and more, times before 1970).

    x header  its records | header  content, padded | ... | two zero blocks, padded to a record

Source: pax(1), "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

import stat

from havre.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BLOCK = 512
MAX_META = 1 << 20  # bytes of one extended header: the limit of Go's archive/tar
RECORD = 20 * BLOCK  # tar's customary unit: an archive is padded to a multiple of it
FLAGS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
"""Type flag of a member by file type (S_IFMT)."""

HARD_LINK = b"1"
_EXTENDED, _GLOBAL = b"x", b"g"
# The ustar fields: name, mode, uid, gid, size, mtime, checksum, type, link, magic, version, names, device, prefix.
_HEADER = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0%s%s%sustar\x0000" + bytes(64) + b"%07o\0%07o\0" + bytes(167)
_SHORT, _LONG = 8**7, 8**11  # exclusive limits of numbers of 7 and of 11 octal digits


def header(
    path: bytes,
    flag: bytes = b"0",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """All blocks before a member's content; `mtime` in seconds. Raises `InvalidInput` if extended attributes are too
    large."""
    numbers = ((b"uid", uid, _SHORT), (b"gid", gid, _SHORT), (b"size", size, _LONG), (b"mtime", mtime, _LONG))
    records = [(key, b"%d" % value) for key, value, end in numbers if not 0 <= value < end]
    records += [(key, text) for key, text in ((b"path", path), (b"linkpath", link)) if _is_wide(text)]
    records += [(b"SCHILY.xattr." + key, value) for key, value in sorted((xattrs or {}).items())]
    fields = [value if 0 <= value < end else 0 for _, value, end in numbers]
    block = _block(path, mode, fields, flag, link, device)
    if not records:
        return block
    return _extended(_EXTENDED, b"PaxHeaders/" + path.rpartition(b"/")[2][:80], records, path) + block


def global_header(records: Mapping[str, str]) -> bytes:
    """A global extended header; readers ignore records that they do not know."""
    return _extended(_GLOBAL, b"PaxHeaders/global", [(k.encode(), v.encode()) for k, v in records.items()], b"archive")


def padding(size: int) -> bytes:
    """The padding after a content of `size` bytes."""
    return bytes(-size % BLOCK)


def end(written: int) -> bytes:
    """The end of an archive of `written` bytes: two zero blocks and padding to a record."""
    return bytes(2 * BLOCK + -(written + 2 * BLOCK) % RECORD)


def _is_wide(text: bytes) -> bool:
    return len(text) > 100 or not text.isascii()


def _extended(flag: bytes, name: bytes, records: Iterable[tuple[bytes, bytes]], path: bytes) -> bytes:
    data = b"".join(_record(key, value) for key, value in records)
    if len(data) > MAX_META:
        raise InvalidInput(f"the extended attributes of {path!r} are too large for an archive")
    return _block(name, 0o644, [0, 0, len(data), 0], flag, b"", (0, 0)) + data + padding(len(data))


def _block(path: bytes, mode: int, numbers: list[int], flag: bytes, link: bytes, device: tuple[int, int]) -> bytes:
    """The 512 bytes of a header. Values that do not fit are cut or 0; the caller puts them in pax records."""
    numbers_of_device = [value if 0 <= value < _SHORT else 0 for value in device]
    name, target = path[:100].ljust(100, b"\0"), link[:100].ljust(100, b"\0")
    block = _HEADER % (name, mode, *numbers, b" " * 8, flag, target, *numbers_of_device)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest
