"""Writes tar archives: entries given as values, and files read below an open directory.

Of the extended attributes `user.*` and `security.capability` are written, overlayfs' own never. Files that only
overlayfs can interpret (redirected directories, metacopy files without data) are refused; the mount options that havre
uses never create such files. Blocking.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import BinaryIO

from havre.errors import Failed
from havre.linux import trees
from havre.linux.idmap import CAPABILITY, IdRange
from havre.tar.headers import FLAGS, HARD_LINK, end, header, padding
from havre.tar.reader import Entry, Extent, require_readable

_PIECE = 1 << 20
_SENT_BYTES = 128 << 10  # files of this size and more are copied by sendfile(2)
_FLAGS_OF_KINDS = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
_CAPABILITY = CAPABILITY.encode()
_REFUSED_XATTRS = {"trusted.overlay.redirect", "trusted.overlay.metacopy"}
_OVERLAY_XATTRS = "user.overlay."


class TarWriter:
    """Writes entries to a tar stream; each has its path in the layer and is read through an open parent directory.

    `out` is a buffered file, pipe or socket. With `ids`, the tree is on an ID-mapped mount and owners are written as
    IDs inside the user namespace.
    """

    def __init__(self, out: BinaryIO, newest_s: int | None = None, ids: IdRange | None = None) -> None:
        self._ids = ids
        self._out = out
        self._newest_s = newest_s
        self._written = 0
        self._links: dict[tuple[int, int], bytes] = {}  # first path of each inode with hard links

    def add(self, path: bytes, status: os.stat_result, parent: int, name: str) -> None:
        """Write the entry `name` of the open directory `parent` as `path`.

        Raises OSError ENOENT, ENOTDIR or ELOOP, and writes nothing, if the file was removed or replaced since `status`
        was read.
        """
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if inode in self._links:
                self._header(path, status, HARD_LINK, link=self._links[inode])
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
            self._header(shown, status, FLAGS[kind], link=link, size=size, xattrs=xattrs)
            if content is not None:
                self._content(content, size)
        finally:
            if content is not None:
                os.close(content)

    def add_empty(self, path: bytes) -> None:
        """Write an empty file owned by root, modified at the epoch: a whiteout."""
        self._write(header(path, mode=0o600))

    def put(self, entry: Entry, content: Iterable[bytes]) -> Entry:
        """Write an entry and exactly as many bytes of `content` as its size says.

        Returns the member as a reader of the tar sees it. Raises `InvalidInput` for a member that readers would refuse.
        """
        entry = self._as_read(entry)
        require_readable(entry)
        block = header(
            entry.path + b"/" if entry.kind == "dir" else entry.path,
            _FLAGS_OF_KINDS[entry.kind],
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=entry.size,
            mtime=entry.mtime_s,
            link=entry.link,
            device=entry.rdev,
            xattrs=entry.xattrs,
        )
        self._write(block)
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
        self._write(padding(entry.size))
        return entry._replace(extents=(Extent(0, entry.size, begin),))

    def _as_read(self, entry: Entry) -> Entry:
        """The part of an entry that a tar can represent."""
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
        self._write(end(self._written))

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
        block = header(
            path,
            flag,
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime if self._newest_s is None else min(mtime, self._newest_s),
            link=link,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if flag in b"34" else (0, 0),
            xattrs=xattrs,
        )
        self._write(block)

    def _content(self, descriptor: int, size: int) -> None:
        """Write exactly `size` bytes of the file, as its header says, even if it changes meanwhile."""
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
        self._write(padding(size))

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self._out.write(data)
        self._written += len(data)


def _kept_xattrs(path: bytes, file: str) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    if refused := _REFUSED_XATTRS.intersection(names):
        attributes = ", ".join(sorted(refused))
        raise Failed(f"{os.fsdecode(path)!r} cannot be stored in a layer: it has the extended attributes {attributes}")
    return {os.fsencode(n): os.getxattr(file, n, follow_symlinks=False) for n in names if _is_kept(n)}


def _is_kept(xattr: str) -> bool:
    if xattr == CAPABILITY:
        return True
    # A pax record cannot hold a key with an equals sign: pax(1), "pax Extended Header".
    return xattr.startswith("user.") and not xattr.startswith(_OVERLAY_XATTRS) and "=" not in xattr
