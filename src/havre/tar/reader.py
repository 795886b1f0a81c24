"""A streaming reader of tar headers for hostile bytes: push chunks in, get entries (and, if asked, their data) out.

Owns the formats v7, ustar, star, pax (POSIX.1-2001) and GNU (long names, base-256 numbers, sparse files). `fields`
decodes numbers, texts and records, `sparse` the maps of sparse files. It touches no file: `storage.erofs` turns entries
into an index, `tree` into files.

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
from havre.tar.fields import (
    checksum_matches,
    padded_size,
    read_decimal,
    read_number,
    read_pax_records,
    read_text,
    read_time,
    require_within,
    shown,
)
from havre.tar.headers import BLOCK, MAX_META
from havre.tar.sparse import SparseMap, read_pax_pairs

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
        self._map = SparseMap()
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
            records = read_pax_records(self._global)
        except InvalidInput:
            return {}
        return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in dict(records).items()}

    # -- states: each takes one block and returns an entry once it is complete

    def _header(self, block: bytes) -> Entry | None:
        if block == _ZERO:
            self._zero_blocks += 1
            return None
        if self._zero_blocks or not checksum_matches(block):
            raise InvalidInput(f"invalid tar header at byte {self._at - BLOCK}")
        flag = block[156:157]
        if flag in b"xgLKX":
            return self._start_meta(flag, read_number(block[124:136], "size"))
        if flag == b"S":
            self._raw = block
            self._map = SparseMap(block[386:482], extended=block[482] != 0)
            if self._map.extended:
                self._take = self._gnu_map
                return None
        elif flag in b"0\x007" and set(self._pax) >= _SPARSE_1_0:
            self._raw = block
            self._map = SparseMap()
            self._take = self._pax_map
            return None
        elif self._map.pairs:
            self._map = SparseMap()
        return self._entry(block, map_size=0)

    def _start_meta(self, flag: bytes, size: int) -> Entry | None:
        if not 0 <= size <= MAX_META:
            raise InvalidInput(
                f"extended tar header of {size} bytes at byte {self._at - BLOCK}", "at most 1 MiB is read"
            )
        self._want = padded_size(size)

        def take(block: bytes) -> None:
            self._want, self._take = BLOCK, self._header
            if flag in b"xX":
                self._pax = read_pax_records(block[:size])
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
        link = pax.get(b"linkpath") or long.get(b"K") or read_text(block[157:257])
        packed = 0
        if kind == "file":
            packed = read_decimal(pax[b"size"], "size") if pax.get(b"size") else read_number(block[124:136], "size")
            if not map_size <= packed <= MAX_SIZE:
                raise InvalidInput(f"tar member {shown(name)} has an impossible size of {packed} bytes")
            packed -= map_size
        size, extents = self._layout(block, pax, packed, name) if kind == "file" else (0, ())
        mtime_s, mtime_ns = read_time(pax[b"mtime"]) if pax.get(b"mtime") else (read_number(block[136:148], "mtime"), 0)
        entry = Entry(
            path=clean_path(name, rooted=self._rooted),
            kind=kind,
            mode=read_number(block[100:108], "mode") & 0o7777,
            uid=_owner(pax.get(b"uid"), block[108:116], "uid"),
            gid=_owner(pax.get(b"gid"), block[116:124], "gid"),
            mtime_s=require_within(mtime_s, -(1 << 63), (1 << 63) - 1, "mtime"),
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
            pairs, size = self._map.pairs, read_number(block[483:495], "real size")
        elif real is None:
            return packed, (Extent(0, packed, self._at),) if packed else ()
        else:
            size = read_decimal(real, "GNU.sparse.size")
            pairs = self._map.pairs or read_pax_pairs(self._pax, pax)
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


def _place(pairs: list[tuple[int, int]], size: int, packed: int, offset: int, name: bytes) -> tuple[Extent, ...]:
    """The extents of a sparse file. Its map must be ascending, within `size`, and account for all `packed` bytes."""
    extents, end, used = [], 0, 0
    for start, length in pairs:
        if length == 0:
            continue
        if start < end or length < 0 or start + length > size:
            raise InvalidInput(f"sparse map of tar member {shown(name)} contradicts itself")
        extents.append(Extent(start, length, offset + used))
        end, used = start + length, used + length
    if used != packed or not 0 <= size <= MAX_SIZE:
        raise InvalidInput(f"sparse map of tar member {shown(name)} contradicts its size")
    return tuple(extents)


def require_readable(entry: Entry) -> None:
    """Raise `InvalidInput` for a member that `TarParser` would refuse; for callers that build members themselves."""
    named = [entry.path, entry.link] if entry.kind == "hardlink" else [entry.path]
    for path in named:
        if clean_path(path) != path:
            raise InvalidInput(f"tar member has an impossible name {shown(path)}")
    if entry.kind == "symlink":
        _link(entry.kind, entry.link, entry.path)
    require_within(entry.uid, 0, _MAX_ID, "uid")
    require_within(entry.gid, 0, _MAX_ID, "gid")
    if entry.kind in ("char", "block"):
        _require_device(*entry.rdev)
    for name, value in entry.xattrs.items():
        _require_xattr(name, value)


def clean_path(name: bytes, *, rooted: bool = False) -> bytes:
    """`name` without empty and `.` components. Raises `InvalidInput` for impossible names, and `..` unless `rooted`."""
    if len(name) > MAX_PATH or b"\0" in name:
        raise InvalidInput(f"tar member has an impossible name {shown(name)}")
    if name[:1] in b"./" or name[-1:] == b"/" or b"/." in name or b"//" in name:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts and rooted:
            parts = [posixpath.normpath(b"/" + name).lstrip(b"/")]
        elif b".." in parts:
            raise InvalidInput(f"tar member {shown(name)} points outside of its layer", "a path must not contain '..'")
        name = b"/".join(parts)
    if len(name) > MAX_NAME and (name.count(b"/") >= MAX_DEPTH or max(map(len, name.split(b"/"))) > MAX_NAME):
        raise InvalidInput(f"tar member has an impossible name {shown(name)}")
    return name


def _kind(block: bytes, name: bytes) -> str:
    flag = block[156:157]
    kind = _KINDS.get(flag)
    if kind is None:
        raise InvalidInput(f"tar member {shown(name)} is of unknown type {flag!r}")
    return "dir" if flag == b"\0" and name.endswith(b"/") else kind


def _link(kind: str, link: bytes, name: bytes, *, rooted: bool = False) -> bytes:
    if kind == "hardlink":
        return clean_path(link, rooted=rooted)
    if kind != "symlink":
        return b""
    if not link or len(link) >= MAX_PATH or b"\0" in link:
        raise InvalidInput(f"symbolic link {shown(name)} has an impossible target")
    return link


def _device(block: bytes) -> tuple[int, int]:
    return _require_device(read_number(block[329:337], "device major"), read_number(block[337:345], "device minor"))


def _require_device(major: int, minor: int) -> tuple[int, int]:
    return require_within(major, 0, 0xFFF, "device major"), require_within(minor, 0, 0xFFFFF, "device minor")


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
        raise InvalidInput(f"extended attribute {shown(name)} in a tar member is too large")


def _name(block: bytes) -> bytes:
    name, magic = read_text(block[0:100]), block[257:265]
    if magic == b"ustar\x0000":
        prefix = read_text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
        return prefix + b"/" + name if prefix else name
    return name


def _owner(decimal: bytes | None, field: bytes, what: str) -> int:
    value = read_decimal(decimal, what) if decimal else read_number(field, what)
    return require_within(value, 0, _MAX_ID, what)
