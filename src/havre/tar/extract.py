"""Extracts a tar into a container's file system, for `docker cp` and `PUT /containers/{id}/archive`.

Unlike a layer, the archive has no whiteouts, a directory without an entry keeps its times, and existing files may
conflict with an entry:

    entry              existing file    no_overwrite             else

    directory          directory        merged                   merged
    directory          not a directory  Failed                   replaced
    not a directory    directory        Failed                   replaced
    not a directory    not a directory  replaced                 replaced

The tree may belong to a running container that changes it concurrently; see `tree`.
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
    """Extracts a tar, compressed or not, into the directory `target` (resolved with `root` as its root).

    Takes ownership of the descriptor `root`. `owner` (UID, GID) overrides the archive's owners. With `ids`, the tree is
    on an ID-mapped mount and all owners are IDs inside the user namespace.
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
        """Extract the next bytes of the archive; the buffer may be reused after the call."""
        with as_root_of(self._ids):
            if self._decompressor.kind == "":  # not compressed, and the decompressor holds nothing back
                self._consume(chunk)
                return
            self._decompressor.feed(chunk)
            while piece := self._decompressor.read():
                self._consume(piece)

    def seal(self) -> None:
        """End the archive. Raises `InvalidInput` if it is truncated."""
        with as_root_of(self._ids):
            self._consume(self._decompressor.finish())
            self._parser.finish()
            self.finish()

    def global_records(self) -> dict[str, str]:
        """The records of the archive's global pax header."""
        return self._parser.global_records()

    def _consume(self, piece: Buffer) -> None:
        for event in self._parser.feed(piece):
            if isinstance(event, Data):
                self.data(event)
            elif event.path:
                self.add(self._placed(event))
            else:
                self._begin_entry()  # the root is left as it is; data of such an entry is skipped

    def _placed(self, entry: Entry) -> Entry:
        """The entry with the path and the owners that it gets in the container."""
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
        """Remove `name` unless it is a mount point (EBUSY).

        Since Linux 3.18 a directory that is a mount point in another mount namespace only can be removed, and the
        kernel detaches the mount there: umount(2), mount_namespaces(7).
        """
        with suppress(FileNotFoundError):
            if is_mount_point(parent, name):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fsdecode(name))
            super()._remove(parent, name)
