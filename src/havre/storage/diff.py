"""Writes what a container changed, its overlay's upper directory, as the tar of a layer.

    in the upper directory            in the tar
    --------------------------------  ---------------------------------------------
    character device 0:0 NAME         an empty file .wh.NAME
    ...overlay.opaque=y on DIR        DIR, then an empty file DIR/.wh..wh..opq
    second name of an inode           a hard link to the first
    socket                            nothing: it means nothing without its process

The same tree gives the same bytes: names sorted, whole seconds, no names of users, pax records only where ustar's
fields cannot hold a value. Parents are always written, since a removal changes their times. Of the extended attributes
`user.*` and `security.capability` are kept, never overlayfs' own. What would need the overlay to be understood (a
redirected directory, a file without its data) is refused; the mounts' options never make such. Blocking.

Sources: OCI image specification "layer.md"; pax(1), "ustar Interchange Format".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from havre.errors import Failed, InvalidInput
from havre.linux import trees
from havre.linux.idmap import CAPABILITY, IdRange
from havre.storage import whiteouts
from havre.storage.changes import bare_mount_points
from havre.storage.tar import MAX_META, Entry, Extent, require_readable

_BLOCK = 512
_PIECE = 1 << 20
_SENT_BYTES = 128 << 10  # files from this size on go from the kernel's cache to `out` without a copy here
_RECORD = 20 * _BLOCK  # tar's customary unit: the archive is padded to a multiple of it
_FLAGS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_FLAGS_OF_KINDS = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
# Name, mode, owner, group, size, time, checksum, type, link, magic, names of users, device: ustar's fields in order.
_HEADER = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0%s%s%sustar\x0000" + bytes(64) + b"%07o\0%07o\0" + bytes(167)
_SHORT, _LONG = 8**7, 8**11  # where numbers of 7 and of 11 octal digits end
_CAPABILITY = CAPABILITY.encode()
_REFUSED_XATTRS = {"trusted.overlay.redirect", "trusted.overlay.metacopy"}
_OVERLAY_XATTRS = "user.overlay."


def write_diff(upper: Path, out: BinaryIO, newest_s: int | None = None) -> None:
    """Write the tar of the changes in `upper` to `out`; `Failed` for what no layer can say, `OSError` from the disk.

    Bare mount points, which the OCI runtime made, are left out. Times after `newest_s`, in seconds since the epoch,
    are written as that (https://reproducible-builds.org/specs/source-date-epoch).
    """
    root = trees.open_directory(upper)
    tar = TarWriter(out, newest_s)
    try:
        bare = bare_mount_points(root)
        for entry in trees.walk(root):
            if entry.path not in bare:
                _write_entry(tar, entry)
    finally:
        os.close(root)
    tar.finish()


def _write_entry(tar: TarWriter, entry: trees.Entry) -> None:
    path = os.fsencode(entry.path)
    directory, slash, name = path.rpartition(b"/")
    if name.startswith(whiteouts.PREFIX):
        raise Failed(f"{entry.path!r} cannot be kept in a layer: names beginning with .wh. mean deletions there")
    if trees.is_whiteout(entry.stat):
        tar.add_empty(directory + slash + whiteouts.PREFIX + name)
        return
    if stat.S_ISSOCK(entry.stat.st_mode):
        return
    tar.add(path, entry.stat, entry.parent, entry.name)
    if entry.is_directory and _is_opaque(entry):
        tar.add_empty(path + b"/" + whiteouts.OPAQUE_MARKER)


def _is_opaque(entry: trees.Entry) -> bool:
    directory = trees.open_directory(entry.name, entry.parent)
    try:
        return trees.is_opaque(directory)
    finally:
        os.close(directory)


class TarWriter:
    """Entries to a tar stream, each named by its path in the layer and read through an open parent directory.

    `out` is a buffered file, pipe or socket. Where the tree is mounted for `ids`, owners are told as they are inside.
    """

    def __init__(self, out: BinaryIO, newest_s: int | None = None, ids: IdRange | None = None) -> None:
        self._ids = ids
        self._out = out
        self._newest_s = newest_s
        self._written = 0
        self._links: dict[tuple[int, int], bytes] = {}  # first path of each inode with several names

    def add(self, path: bytes, status: os.stat_result, parent: int, name: str) -> None:
        """Write the entry `name` of the open directory `parent` as `path`; nothing is written if it has gone.

        OSError ENOENT, ENOTDIR or ELOOP then: it has been removed or replaced since `status` was read.
        """
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if inode in self._links:
                self._header(path, status, b"1", link=self._links[inode])
                return
            self._links[inode] = path
        kind = stat.S_IFMT(status.st_mode)
        xattrs = _kept_xattrs(path, f"/proc/self/fd/{parent}/{name}")
        if self._ids is not None and _CAPABILITY in xattrs:
            xattrs[_CAPABILITY] = self._ids.capability_inside(xattrs[_CAPABILITY])
        link = os.fsencode(os.readlink(name, dir_fd=parent)) if kind == stat.S_IFLNK else b""
        shown = path + b"/" if kind == stat.S_IFDIR else path
        size = status.st_size if kind == stat.S_IFREG else 0
        content = trees.open_regular(name, parent) if size else None
        try:
            self._header(shown, status, _FLAGS[kind], link=link, size=size, xattrs=xattrs)
            if content is not None:
                self._content(content, size)
        finally:
            if content is not None:
                os.close(content)

    def add_empty(self, path: bytes) -> None:
        """Write an empty file owned by root, from the beginning of time: a mark of deletion."""
        self._emit(path, _Fields(mode=0o600, flag=b"0"), {})

    def put(self, entry: Entry, content: Iterable[bytes]) -> Entry:
        """Write an entry with its content, as many bytes of it as the entry says, whatever there are.

        Returns the member as a reader of the tar finds it; `InvalidInput` for one that it would refuse.
        """
        entry = self._as_read(entry)
        require_readable(entry)
        fields = _Fields(
            mode=entry.mode,
            flag=_FLAGS_OF_KINDS[entry.kind],
            uid=entry.uid,
            gid=entry.gid,
            size=entry.size,
            mtime=entry.mtime_s,
            link=entry.link,
            device=entry.rdev,
        )
        self._emit(entry.path + b"/" if entry.kind == "dir" else entry.path, fields, entry.xattrs)
        if not entry.size:
            return entry
        begin = self._written
        left = entry.size
        for piece in content:
            self._write(piece if len(piece) <= left else piece[:left])
            left -= min(left, len(piece))
        while left:
            self._write(bytes(min(left, _PIECE)))
            left -= min(left, _PIECE)
        self._write(bytes(-entry.size % _BLOCK))
        return msgspec.structs.replace(entry, extents=(Extent(0, entry.size, begin),))

    def _as_read(self, entry: Entry) -> Entry:
        """What of an entry a tar can say."""
        xattrs = entry.xattrs and {name: value for name, value in entry.xattrs.items() if _is_kept(os.fsdecode(name))}
        return Entry(
            path=entry.path,
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_s=entry.mtime_s if self._newest_s is None else min(entry.mtime_s, self._newest_s),
            mtime_ns=0,
            size=entry.size,
            link=entry.link,
            rdev=entry.rdev,
            xattrs=xattrs,
        )

    def finish(self) -> None:
        """End the archive."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self._written % _RECORD))

    def _header(
        self,
        path: bytes,
        status: os.stat_result,
        flag: bytes,
        *,
        link: bytes = b"",
        size: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        mtime = status.st_mtime_ns // 10**9
        owner = status.st_uid, status.st_gid
        uid, gid = self._ids.inside(*owner) if self._ids else owner
        fields = _Fields(
            mode=stat.S_IMODE(status.st_mode),
            flag=flag,
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime if self._newest_s is None else min(mtime, self._newest_s),
            link=link,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if flag in b"34" else (0, 0),
        )
        self._emit(path, fields, xattrs or {})

    def _emit(self, path: bytes, fields: _Fields, xattrs: dict[bytes, bytes]) -> None:
        records = fields.pax_records(path) + [(b"SCHILY.xattr." + key, value) for key, value in sorted(xattrs.items())]
        if records:
            data = b"".join(_pax_record(key, value) for key, value in records)
            if len(data) > MAX_META:  # nor does Go's archive/tar read more
                raise InvalidInput(f"the extended attributes of {path!r} are too large for an archive")
            extended = _Fields(mode=0o644, flag=b"x", size=len(data))
            self._write(extended.block(b"PaxHeaders/" + path.rpartition(b"/")[2][:80]))
            self._write(data + bytes(-len(data) % _BLOCK))
        self._write(fields.block(path))

    def _content(self, descriptor: int, size: int) -> None:
        """The file's bytes, as many as its header says even if it is written to meanwhile."""
        left = size
        if size >= _SENT_BYTES:
            self._out.flush()
            while left and (sent := os.sendfile(self._out.fileno(), descriptor, None, left)):
                left -= sent
            self._written += size - left
        while left:
            piece = os.read(descriptor, min(left, _PIECE)) or bytes(min(left, _PIECE))
            self._write(piece)
            left -= len(piece)
        self._write(bytes(-size % _BLOCK))

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self._out.write(data)
        self._written += len(data)


class _Fields:
    """The values of one ustar header, and the pax records for those that its fields cannot hold."""

    def __init__(
        self,
        *,
        mode: int,
        flag: bytes,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self.mode, self.flag, self.link, self.device = mode, flag, link, device
        self.numbers = {b"uid": (uid, _SHORT), b"gid": (gid, _SHORT), b"size": (size, _LONG), b"mtime": (mtime, _LONG)}

    def pax_records(self, path: bytes) -> list[tuple[bytes, bytes]]:
        """What must be said in an extended header."""
        records = [(key, b"%d" % value) for key, (value, end) in self.numbers.items() if not 0 <= value < end]
        for key, text in ((b"path", path), (b"linkpath", self.link)):
            if len(text) > 100 or not text.isascii():
                records.append((key, text))
        return records

    def block(self, path: bytes) -> bytes:
        """The 512 bytes of the header; what does not fit is cut or 0, and said in pax records."""
        numbers = [value if 0 <= value < end else 0 for value, end in self.numbers.values()]
        device = [value if 0 <= value < _SHORT else 0 for value in self.device]
        name, link = path[:100].ljust(100, b"\0"), self.link[:100].ljust(100, b"\0")
        block = _HEADER % (name, self.mode, *numbers, b" " * 8, self.flag, link, *device)
        return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest


def _kept_xattrs(path: bytes, file: str) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    if refused := _REFUSED_XATTRS.intersection(names):
        raise Failed(f"{os.fsdecode(path)!r} cannot be kept in a layer: it carries {', '.join(sorted(refused))}")
    return {os.fsencode(n): os.getxattr(file, n, follow_symlinks=False) for n in names if _is_kept(n)}


def _is_kept(xattr: str) -> bool:
    if xattr == CAPABILITY:
        return True
    # A pax record cannot hold a key with an equals sign.
    return xattr.startswith("user.") and not xattr.startswith(_OVERLAY_XATTRS) and "=" not in xattr
