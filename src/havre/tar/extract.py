"""Copies a tar into a container's file system, as `cp` and `PUT /containers/{id}/archive` want it.

Unlike a layer, the archive says nothing of deletions, a directory that it does not speak of keeps its times, and what
is there already may be in the way:

    the archive has    there is         no_overwrite             else
    a directory        a directory      merged                   merged
    a directory        something else   Failed                   replaced
    something else     a directory      Failed                   replaced
    something else     something else   replaced                 replaced

The tree may belong to a running container that works against us; see `tree`.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from havre.errors import Failed
from havre.linux.idmap import CAPABILITY, IdRange, as_root_of
from havre.linux.mounts import is_mount_point
from havre.tar.compress import Buffer, Decompressor
from havre.tar.reader import Data, Entry, TarParser
from havre.tar.tree import TreeWriter

_CAPABILITY = CAPABILITY.encode()


class Extractor(TreeWriter):
    """Fills the directory `target` (a path with `root` as its root) from a tar, compressed or not; takes `root` over.

    `owner` (UID, GID) owns what is written in place of whom the archive names. Where the tree is mounted for `ids`, all
    owners are those that they are inside.
    """

    def __init__(
        self,
        root: int,
        target: str,
        owner: tuple[int, int] | None,
        *,
        no_overwrite: bool,
        ids: IdRange | None = None,
    ) -> None:
        super().__init__(root, "archive")
        self._target = os.fsencode(target).strip(b"/")
        self._owner = owner
        self._ids = ids
        self._no_overwrite = no_overwrite
        self._decompressor = Decompressor()
        self._parser = TarParser(data=True)

    def write(self, chunk: Buffer) -> None:
        """Take the next bytes of the archive; they may change once this returns."""
        with as_root_of(self._ids):
            if self._decompressor.kind == "":  # not compressed, and nothing waits in the decompressor any more
                self._consume(chunk)
                return
            self._decompressor.feed(chunk)
            while piece := self._decompressor.read():
                self._consume(piece)

    def seal(self) -> None:
        """The archive has ended; `InvalidInput` when it is cut short."""
        with as_root_of(self._ids):
            self._consume(self._decompressor.finish())
            self._parser.finish()
            self.finish()

    def global_records(self) -> dict[str, str]:
        """What the archive said of itself, in a global pax header."""
        return self._parser.global_records()

    def _consume(self, piece: Buffer) -> None:
        for event in self._parser.feed(piece):
            if isinstance(event, Data):
                self.data(event)
            elif event.path:
                self.add(self._placed(event))
            else:
                self._begin_entry()  # the root stays what it is; what data it may have is nobody's

    def _placed(self, entry: Entry) -> Entry:
        """The entry as it is to be in the container."""
        if not self._target and self._owner is None and self._ids is None:
            return entry
        uid, gid = self._owner or (entry.uid, entry.gid)
        xattrs = entry.xattrs
        if self._ids is not None:
            uid, gid = self._ids.outside(uid, gid)
            if _CAPABILITY in xattrs:
                xattrs = {**xattrs, _CAPABILITY: self._ids.capability_outside(xattrs[_CAPABILITY])}
        link = self._place(entry.link) if entry.kind == "hardlink" else entry.link
        return entry._replace(path=self._place(entry.path), link=link, uid=uid, gid=gid, xattrs=xattrs)

    def _place(self, path: bytes) -> bytes:
        return self._target + b"/" + path if self._target else path

    def _clear_way(self, parent: int, name: bytes, entry: Entry) -> None:
        if self._no_overwrite:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            if is_directory != (entry.kind == "dir"):
                there, new = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
                shown, into = os.fsdecode(entry.path), os.fsdecode(self._target)
                raise Failed(f'cannot overwrite {there} "/{shown}" with {new} "/{into}"')
        super()._clear_way(parent, name, entry)

    def _remove(self, parent: int, name: bytes) -> None:
        """Never a mount point: the kernel lets whoever is in another mount namespace, and takes the mount away."""
        with suppress(FileNotFoundError):
            if is_mount_point(parent, name):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fsdecode(name))
            super()._remove(parent, name)
