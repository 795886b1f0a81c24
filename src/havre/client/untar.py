"""Extracts an archive from a container, which is hostile, into a directory of the user's.

`tar.tree` confines it; in addition, no link is followed, not even the user's own. Existing entries are replaced, but a
directory only by a directory; directories merge. Set-user-ID, set-group-ID and sticky bits and extended attributes are
dropped: the container's root is not the user.

Source: docker's documentation of `cp`.
"""

from __future__ import annotations

import os

from havre.errors import InvalidInput
from havre.linux.openat2 import openat_without_links
from havre.tar.reader import Data, TarParser
from havre.tar.tree import TreeWriter, nanoseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from havre.tar.reader import Entry

_PERMISSIONS = 0o777


def untar(
    chunks: Iterable[bytes], directory: str, place: Callable[[Entry], Entry | None], *, keep_owner: bool = False
) -> int:
    """Write the archive's members below `directory`, each as returned by `place` (None: skip it).

    Returns the number of bytes read. Raises `InvalidInput` for an invalid archive, OSError.
    """
    parser = TarParser(data=True)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    writer = _Writer(root, keep_owner)
    count = 0
    try:
        for chunk in chunks:
            count += len(chunk)
            for event in parser.feed(chunk):
                if isinstance(event, Data):
                    writer.data(event)
                elif (entry := place(event)) is not None:
                    writer.add(entry)
                else:
                    writer.skip()
        parser.finish()
        if not parser.ended:
            raise InvalidInput("unexpected end of archive")
        writer.finish()
    finally:
        writer.close()
    return count


def renaming(name: str | None) -> Callable[[Entry], Entry]:
    """A function that replaces an archive's topmost name (`.` for content only) by `name`, unless that is None."""
    new = os.fsencode(name) if name is not None else b""
    top: list[bytes] = []

    def rename(path: bytes) -> bytes:
        first, slash, rest = path.partition(b"/")
        if top[0]:
            return new + slash + rest if first == top[0] else path
        return new + b"/" + path if path else new

    def place(entry: Entry) -> Entry:
        if name is None:
            return entry
        if not top:
            top.append(entry.path.partition(b"/")[0])
        link = rename(entry.link) if entry.kind == "hardlink" else entry.link
        return entry._replace(path=rename(entry.path), link=link)

    return place


class _Writer(TreeWriter):
    """A tree of a user who may not be root: directories' modes are set last, when they are complete."""

    _open_below = staticmethod(openat_without_links)

    def __init__(self, root: int, keep_owner: bool) -> None:
        super().__init__(root, "archive")
        self._keep_owner = keep_owner
        self._directories: dict[bytes, Entry] = {}

    def add(self, entry: Entry) -> None:
        """As in the base class; also accepts an entry of the root itself."""
        if entry.path:
            super().add(entry)
            return
        self.skip()
        self._directories[b""] = entry

    def skip(self) -> None:
        """The next data belongs to no entry."""
        self._begin_entry()

    def finish(self) -> None:
        """End the last file; set the directories' metadata, deepest first."""
        self._end_file()
        for path in sorted(self._directories, reverse=True):
            entry = self._directories[path]
            directory = openat_without_links(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.utime(directory, ns=(nanoseconds(entry), nanoseconds(entry)))
                self._give(directory, entry)
            finally:
                os.close(directory)

    def _describe(self, file: bytes | int, entry: Entry) -> None:
        if entry.kind == "dir":
            self._directories[entry.path] = entry
        else:
            self._give(file, entry)

    def _give(self, file: bytes | int, entry: Entry) -> None:
        if self._keep_owner:
            os.chown(file, entry.uid, entry.gid)
        if entry.kind != "symlink":
            os.chmod(file, entry.mode & _PERMISSIONS)

    def _remove(self, parent: int, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        self._stale = True
