"""A streaming reader of tar headers for hostile bytes: push chunks in, get entries (and, if asked, their data) out.

Owns the formats v7, ustar, star, pax (POSIX.1-2001) and GNU (long names, base-256 numbers, sparse files in the old form
and in pax forms 0.0, 0.1 and 1.0). It touches no file: `storage.erofs` turns entries into an index, `tree` into files.

    feed(chunk)
        |                  x L K: gather the extended header, then the next header
        v                +--------------+
    +--------+ 512 bytes |              v        S: extension blocks    +------+
    | HEADER |-----------+--> META --> HEADER -------------------------> | MAP  |
    +--------+                                   pax 1.0: map blocks    +------+
      ^   |  entry with data                                               |
      |   +------------------------> DATA (skipped or yielded) <-----------+
      |                                |
      +------------ padding -----------+           two zero blocks: END, the rest of the stream is ignored

Refused with `InvalidInput`: a wrong checksum, a malformed number, a `..` or a NUL in a name, a name longer than
PATH_MAX or NAME_MAX, more than `MAX_META` bytes of extended header, an inconsistent sparse map, an unknown entry type,
a truncated member. As in dockerd (Go's archive/tar): global pax headers change nothing, and links, directories and
devices have no data, whatever their size field says.
"""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from havre.errors import InvalidInput
from havre.tar.headers import BLOCK, MAX_META

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_SIZE = 1 << 40  # bytes of one member, and of a file with its holes
MAX_PATH = 4096
MAX_NAME = 255
_MAX_ID = 0xFFFFFFFE  # of users and groups; chown(2) takes 2**32 - 1 for "unchanged"
MAX_DEPTH = 256  # directories above an entry; bounds recursion

_ZERO = bytes(BLOCK)
_HOLE = 1 << 20  # bytes of a hole yielded at once
_KINDS = {
    b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "hardlink", b"2": "symlink",
    b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo",
}  # fmt: skip
_SPARSE_1_0 = {(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")}
_XATTR = b"SCHILY.xattr."
_KEPT_XATTRS = (b"user.", b"trusted.", b"security.")
_OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")


class Extent(NamedTuple):
    """`length` bytes of a file at `start`, at `offset` in the tar; ranges without an extent are holes."""

    start: int
    length: int
    offset: int


class Entry(NamedTuple):
    """One member. `path` has no leading, trailing or double slash and no dots; the root is `b""`.

    `kind` is file, dir, symlink, hardlink, char, block or fifo. `link` is a symlink's target as written, or the path of
    a hard link's target. `xattrs` never contains overlayfs' own attributes: a layer must not change how the overlay
    reads it.
    """

    path: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_s: int
    mtime_ns: int
    size: int = 0
    link: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = {}
    extents: tuple[Extent, ...] = ()


class Data(NamedTuple):
    """Bytes of the entry yielded last, at `offset` in the tar; valid until the next event is requested."""

    offset: int
    view: memoryview


class TarParser:
    """Push parser: iterate over `feed(chunk)` for each chunk, then call `finish()`.

    With `data` true, the members' bytes are yielded as `Data`; otherwise they are skipped, at no cost per byte. With
    `rooted` true, a `..` above the root stays at the root, as after chroot(2); otherwise it is refused.
    """

    def __init__(self, *, data: bool = False, rooted: bool = False) -> None:
        self._yields_data = data
        self._rooted = rooted
        self._at = 0  # offset in the tar of the next unread byte
        self._gathered = bytearray()
        self._want = BLOCK
        self._take: Callable[[bytes], Entry | None] = self._header
        self._member = 0  # bytes of the member's data still to come
        self._padding = 0
        self._zero_blocks = 0
        self._pax: list[tuple[bytes, bytes]] = []
        self._long: dict[bytes, bytes] = {}
        self._global = b""  # records of the last global pax header
        self._map = _SparseMap()
        self._raw = b""  # the header block a sparse map belongs to

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[Entry | Data]:
        """Consume `chunk`, yielding the events that it completes. Raises `InvalidInput`."""
        view = memoryview(chunk)
        at, end = 0, len(view)
        while at < end and self._zero_blocks < 2:
            if skip := min(self._member or self._padding, end - at):
                if self._member:
                    self._member -= skip
                    if self._yields_data:
                        yield Data(self._at, view[at : at + skip])
                else:
                    self._padding -= skip
                at += skip
                self._at += skip
                continue
            taken = min(self._want - len(self._gathered), end - at)
            self._gathered += view[at : at + taken]
            at += taken
            self._at += taken
            if len(self._gathered) == self._want:
                block = bytes(self._gathered)
                self._gathered.clear()
                if (entry := self._take(block)) is not None:
                    yield entry

    def finish(self) -> None:
        """End of the stream. Raises `InvalidInput` if it ended in the middle of a member."""
        if self._member or self._gathered or self._take != self._header or self._pax or self._long:
            raise InvalidInput(f"tar archive ends in the middle of a member at byte {self._at}")

    @property
    def padded(self) -> bool:
        """Report whether the last member's data was followed by all of its padding."""
        return not self._padding

    @property
    def ended(self) -> bool:
        """Report whether the end marker was read. Without it, truncation between two members cannot be detected."""
        return self._zero_blocks > 0

    def global_records(self) -> dict[str, str]:
        """The records of the last global pax header; empty if it is malformed, because no decision depends on them."""
        try:
            records = _pax_records(self._global)
        except InvalidInput:
            return {}
        return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in dict(records).items()}

    # -- states: each takes one block and returns an entry once it is complete

    def _header(self, block: bytes) -> Entry | None:
        if block == _ZERO:
            self._zero_blocks += 1
            return None
        if self._zero_blocks or not _checksum_matches(block):
            raise InvalidInput(f"invalid tar header at byte {self._at - BLOCK}")
        flag = block[156:157]
        if flag in b"xgLKX":
            return self._start_meta(flag, _number(block[124:136], "size"))
        if flag == b"S":
            self._raw = block
            self._map = _SparseMap(block[386:482], extended=block[482] != 0)
            if self._map.extended:
                self._take = self._gnu_map
                return None
        elif flag in b"0\x007" and set(self._pax) >= _SPARSE_1_0:
            self._raw = block
            self._map = _SparseMap()
            self._take = self._pax_map
            return None
        elif self._map.pairs:
            self._map = _SparseMap()
        return self._entry(block, map_size=0)

    def _start_meta(self, flag: bytes, size: int) -> Entry | None:
        if not 0 <= size <= MAX_META:
            raise InvalidInput(
                f"extended tar header of {size} bytes at byte {self._at - BLOCK}", "at most 1 MiB is read"
            )
        self._want = _padded(size)

        def take(block: bytes) -> None:
            self._want, self._take = BLOCK, self._header
            if flag in b"xX":
                self._pax = _pax_records(block[:size])
            elif flag == b"g":
                self._global = block[:size]
            else:
                self._long[flag] = block[:size].partition(b"\0")[0]

        if self._want:
            self._take = take
        else:
            take(b"")
        return None

    def _gnu_map(self, block: bytes) -> Entry | None:
        self._map.add_gnu(block[:504], extended=block[504] != 0)
        if self._map.extended:
            return None
        self._take = self._header
        return self._entry(self._raw, map_size=0)

    def _pax_map(self, block: bytes) -> Entry | None:
        if not self._map.add_pax_1_0(block):
            return None
        self._take = self._header
        return self._entry(self._raw, map_size=self._map.size)

    def _entry(self, block: bytes, map_size: int) -> Entry:
        pax, long = dict(self._pax), self._long
        name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long.get(b"L") or _name(block)
        kind = _kind(block, name)
        link = pax.get(b"linkpath") or long.get(b"K") or _text(block[157:257])
        packed = 0
        if kind == "file":
            packed = _decimal(pax[b"size"], "size") if pax.get(b"size") else _number(block[124:136], "size")
            if not map_size <= packed <= MAX_SIZE:
                raise InvalidInput(f"tar member {_shown(name)} has an impossible size of {packed} bytes")
            packed -= map_size
        size, extents = self._layout(block, pax, packed, name) if kind == "file" else (0, ())
        mtime_s, mtime_ns = _time(pax[b"mtime"]) if pax.get(b"mtime") else (_number(block[136:148], "mtime"), 0)
        entry = Entry(
            path=clean_path(name, rooted=self._rooted),
            kind=kind,
            mode=_number(block[100:108], "mode") & 0o7777,
            uid=_owner(pax.get(b"uid"), block[108:116], "uid"),
            gid=_owner(pax.get(b"gid"), block[116:124], "gid"),
            mtime_s=_bounded(mtime_s, -(1 << 63), (1 << 63) - 1, "mtime"),
            mtime_ns=mtime_ns,
            size=size,
            link=_link(kind, link, name, rooted=self._rooted),
            rdev=_device(block) if kind in ("char", "block") else (0, 0),
            xattrs=_xattrs(self._pax),
            extents=extents,
        )
        self._member, self._padding = packed, -packed % BLOCK
        self._pax, self._long = [], {}
        return entry

    def _layout(
        self, block: bytes, pax: dict[bytes, bytes], packed: int, name: bytes
    ) -> tuple[int, tuple[Extent, ...]]:
        """The file's size and the extents of its bytes in the tar."""
        real = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size")
        if block[156:157] == b"S":
            pairs, size = self._map.pairs, _number(block[483:495], "real size")
        elif real is None:
            return packed, (Extent(0, packed, self._at),) if packed else ()
        else:
            size = _decimal(real, "GNU.sparse.size")
            pairs = self._map.pairs or _pax_pairs(self._pax, pax)
        return size, _place(pairs, size, packed, self._at, name)


def read_members(chunks: Iterable[bytes], *, rooted: bool = False) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Iterates over the members of an archive, each with its content (holes as zeros).

    Unread content is skipped. Consumes all chunks, also those after the end marker; the end marker may be missing, as
    in the contexts that docker exports. Raises `InvalidInput`.
    """
    parser = TarParser(data=True, rooted=rooted)
    events = _Events(parser, chunks)
    while (event := events.take()) is not None:
        if isinstance(event, Entry):
            yield event, events.content(event)
    parser.finish()


class _Events:
    """The parser's events, with a lookahead of one."""

    def __init__(self, parser: TarParser, chunks: Iterable[bytes]) -> None:
        self._events = (event for chunk in chunks for event in parser.feed(chunk))
        self._next: Entry | Data | None = None

    def peek(self) -> Entry | Data | None:
        if self._next is None:
            self._next = next(self._events, None)
        return self._next

    def take(self) -> Entry | Data | None:
        event, self._next = self.peek(), None
        return event

    def content(self, entry: Entry) -> Iterator[bytes]:
        at = 0
        extents = iter(entry.extents)
        extent = next(extents, None)
        while extent is not None and isinstance(event := self.peek(), Data):
            self._next = None
            view, offset = event.view, event.offset
            while view and extent is not None:
                start = extent.start + offset - extent.offset
                yield from _zeros(start - at)
                piece = view[: extent.offset + extent.length - offset]
                yield bytes(piece)
                view, offset, at = view[len(piece) :], offset + len(piece), start + len(piece)
                if offset == extent.offset + extent.length:
                    extent = next(extents, None)
        yield from _zeros(entry.size - at if extent is None else 0)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, _HOLE))
        count -= _HOLE


class _SparseMap:
    """The (start, length) pairs of a sparse file, collected from blocks."""

    def __init__(self, fields: bytes = b"", *, extended: bool = False) -> None:
        self.pairs: list[tuple[int, int]] = []
        self.extended = False
        self.size = 0
        self._lines: list[bytes] = []
        self._rest = b""  # the beginning of a line
        self.add_gnu(fields, extended=extended)

    def add_gnu(self, fields: bytes, *, extended: bool) -> None:
        """Old GNU form: pairs of 12-byte numbers, terminated by an empty one."""
        self._grow(len(fields))
        for at in range(0, len(fields), 24):
            if fields[at : at + 24].strip(b"\0 "):
                start = _number(fields[at : at + 12], "sparse offset")
                self.pairs.append((start, _number(fields[at + 12 : at + 24], "sparse length")))
        self.extended = extended

    def add_pax_1_0(self, block: bytes) -> bool:
        """Form 1.0: decimal lines, the first one the number of pairs. Returns whether the map is complete."""
        self._grow(len(block))
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > BLOCK:
            raise InvalidInput("sparse map of a tar member has a line without end")
        self._lines += lines
        if not self._lines:
            return False
        count = _bounded(_decimal(self._lines[0], "sparse map"), 0, MAX_META, "sparse map")
        if len(self._lines) < 2 * count + 1:
            return False
        numbers = [_decimal(line, "sparse map") for line in self._lines[1 : 2 * count + 1]]
        self.pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        return True

    def _grow(self, more: int) -> None:
        self.size += more
        if self.size > MAX_META:
            raise InvalidInput("sparse map of a tar member is longer than 1 MiB")


def _pax_pairs(records: list[tuple[bytes, bytes]], pax: dict[bytes, bytes]) -> list[tuple[int, int]]:
    """Sparse forms 0.1 (one list) and 0.0 (a record per number)."""
    if b"GNU.sparse.map" in pax:
        text = pax[b"GNU.sparse.map"]
        numbers = [_decimal(n, "GNU.sparse.map") for n in text.split(b",")] if text else []
    else:
        wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        numbers = [_decimal(value, "GNU.sparse.offset") for key, value in records if key in wanted]
    if len(numbers) % 2:
        raise InvalidInput("sparse map of a tar member has an odd number of numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _place(pairs: list[tuple[int, int]], size: int, packed: int, offset: int, name: bytes) -> tuple[Extent, ...]:
    """The extents of a sparse file. Its map must be ascending, within `size`, and account for all `packed` bytes."""
    extents, end, used = [], 0, 0
    for start, length in pairs:
        if length == 0:
            continue
        if start < end or length < 0 or start + length > size:
            raise InvalidInput(f"sparse map of tar member {_shown(name)} contradicts itself")
        extents.append(Extent(start, length, offset + used))
        end, used = start + length, used + length
    if used != packed or not 0 <= size <= MAX_SIZE:
        raise InvalidInput(f"sparse map of tar member {_shown(name)} contradicts its size")
    return tuple(extents)


def require_readable(entry: Entry) -> None:
    """Raise `InvalidInput` for a member that `TarParser` would refuse; for callers that build members themselves."""
    named = [entry.path, entry.link] if entry.kind == "hardlink" else [entry.path]
    for path in named:
        if clean_path(path) != path:
            raise InvalidInput(f"tar member has an impossible name {_shown(path)}")
    if entry.kind == "symlink":
        _link(entry.kind, entry.link, entry.path)
    _bounded(entry.uid, 0, _MAX_ID, "uid")
    _bounded(entry.gid, 0, _MAX_ID, "gid")
    if entry.kind in ("char", "block"):
        _require_device(*entry.rdev)
    for name, value in entry.xattrs.items():
        _require_xattr(name, value)


def clean_path(name: bytes, *, rooted: bool = False) -> bytes:
    """`name` without empty and `.` components. Raises `InvalidInput` for impossible names, and `..` unless `rooted`."""
    if len(name) > MAX_PATH or b"\0" in name:
        raise InvalidInput(f"tar member has an impossible name {_shown(name)}")
    if name[:1] in b"./" or name[-1:] == b"/" or b"/." in name or b"//" in name:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts and rooted:
            parts = [posixpath.normpath(b"/" + name).lstrip(b"/")]
        elif b".." in parts:
            raise InvalidInput(f"tar member {_shown(name)} points outside of its layer", "a path must not contain '..'")
        name = b"/".join(parts)
    if len(name) > MAX_NAME and (name.count(b"/") >= MAX_DEPTH or max(map(len, name.split(b"/"))) > MAX_NAME):
        raise InvalidInput(f"tar member has an impossible name {_shown(name)}")
    return name


def _kind(block: bytes, name: bytes) -> str:
    flag = block[156:157]
    kind = _KINDS.get(flag)
    if kind is None:
        raise InvalidInput(f"tar member {_shown(name)} is of unknown type {flag!r}")
    return "dir" if flag == b"\0" and name.endswith(b"/") else kind


def _link(kind: str, link: bytes, name: bytes, *, rooted: bool = False) -> bytes:
    if kind == "hardlink":
        return clean_path(link, rooted=rooted)
    if kind != "symlink":
        return b""
    if not link or len(link) >= MAX_PATH or b"\0" in link:
        raise InvalidInput(f"symbolic link {_shown(name)} has an impossible target")
    return link


def _device(block: bytes) -> tuple[int, int]:
    return _require_device(_number(block[329:337], "device major"), _number(block[337:345], "device minor"))


def _require_device(major: int, minor: int) -> tuple[int, int]:
    return _bounded(major, 0, 0xFFF, "device major"), _bounded(minor, 0, 0xFFFFF, "device minor")


def _xattrs(pax: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The extended attributes that a layer may set: neither overlayfs' own nor ACLs, which dockerd ignores, too."""
    found: dict[bytes, bytes] = {}
    for key, value in pax:
        name = key[len(_XATTR) :] if key.startswith(_XATTR) else b""
        if name.startswith(_KEPT_XATTRS) and not name.startswith(_OVERLAY_XATTRS):
            _require_xattr(name, value)
            found[name] = value
    return found


def _require_xattr(name: bytes, value: bytes) -> None:
    if len(name) > MAX_NAME or len(value) > 0xFFFF or name in _KEPT_XATTRS:
        raise InvalidInput(f"extended attribute {_shown(name)} in a tar member is too large")


def _name(block: bytes) -> bytes:
    name, magic = _text(block[0:100]), block[257:265]
    if magic == b"ustar\x0000":
        prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
        return prefix + b"/" + name if prefix else name
    return name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str) -> int:
    """A number in a header: octal digits among spaces and NULs, or base-256 if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field) - (1 << (8 * len(field) - 1))
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b"\0 ")
    if not digits.isdigit():
        digits = digits.partition(b"\0")[0].rstrip(b" ")
        if not digits:
            return 0
    if digits.strip(b"01234567"):
        raise InvalidInput(f"invalid {what} {digits!r} in a tar header")
    return int(digits, 8)


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidInput(f"invalid {what} {_shown(text)} in a tar header")
    return int(text)


def _owner(decimal: bytes | None, field: bytes, what: str) -> int:
    value = _decimal(decimal, what) if decimal else _number(field, what)
    return _bounded(value, 0, _MAX_ID, what)


def _bounded(value: int, low: int, high: int, what: str) -> int:
    if not low <= value <= high:
        raise InvalidInput(f"{what} {value} in a tar header is out of range")
    return value


def _time(text: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds of a pax time such as `-1.5`, which is -2 s and 500,000,000 ns."""
    negative = text.startswith(b"-")
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    ns = _decimal(whole or b"0", "mtime") * 10**9 + _decimal((fraction + b"000000000")[:9], "mtime")
    return divmod(-ns if negative else ns, 10**9)


def _pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Records `LENGTH KEY=VALUE\\n`, in order; the length counts the whole record."""
    records, at = [], 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = _decimal(data[at:space], "pax record") if space > at else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not space < at + length <= len(data) or record[-1:] != b"\n" or not equals or not key:
            raise InvalidInput("malformed pax record in a tar header")
        records.append((key, value))
        at += length
    return records


def _checksum_matches(block: bytes) -> bool:
    """POSIX sums unsigned bytes, some historic writers summed signed ones; both are accepted."""
    digits = block[148:156].strip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        return False
    stated = int(digits, 8)
    unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stated == unsigned:
        return True
    return stated == unsigned - 256 * sum(1 for byte in block[:148] + block[156:] if byte & 0x80)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _shown(name: bytes) -> str:
    """`name` for a message: truncated, control characters escaped."""
    return repr(name[:200].decode(errors="backslashreplace"))
