"""Unpacks a layer into a directory, for drivers that cannot mount an index and for layers that no index can represent.

Takes the same entries as `erofs`. Whiteouts are converted to overlayfs' form (see `whiteouts`) at the end, because they
hide lower layers only. Directories without an entry in the tar get time 0, so that the same layer always gives the same
tree.

Blocking; runs as root. Raises `InvalidInput` for invalid layers, `OSError` for disk errors.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from havre.errors import InvalidInput
from havre.linux.openat2 import openat_in_root, syncfs
from havre.linux.trees import make_whiteout, open_directory
from havre.storage import whiteouts
from havre.tar.reader import Entry
from havre.tar.tree import TreeWriter, describe, name_of, nanoseconds, pinned, set_xattrs


class Unpacker(TreeWriter):
    """Fills the existing, empty directory `root` with one layer."""

    def __init__(self, root: Path) -> None:
        super().__init__(open_directory(root), "layer")
        self._times[b""] = 0
        self._hidden: list[bytes] = []  # paths that whiteouts hide
        self.root_entry: Entry | None = None
        """The layer's entry of the root directory, if any."""

    def add(self, entry: Entry) -> None:
        """Create `entry`; replaces what exists, merges directories."""
        self._begin_entry()
        self._note()
        if whiteouts.is_bookkeeping(entry.path):
            return
        directory, _, name = entry.path.rpartition(b"/")
        if not entry.path:
            self._set_root(entry)
        elif name == whiteouts.OPAQUE_MARKER:
            set_xattrs(name_of(self._parent(directory)), whiteouts.OPAQUE_XATTRS)
        elif (hidden := whiteouts.hidden_name(name)) is not None:
            self._parent(directory)
            self._hidden.append(directory + b"/" + hidden)
        else:
            super().add(entry)

    def finish(self) -> None:
        """Apply whiteouts and times."""
        self._begin_entry()
        for path in self._hidden:
            self._hide(path)
        super().finish()

    def sync(self) -> None:
        """Make everything durable (syncfs(2))."""
        syncfs(self._root)

    def _made_parent(self, path: bytes) -> None:
        self._note()
        self._times[path] = 0

    def _set_root(self, entry: Entry) -> None:
        if entry.kind != "dir":
            raise InvalidInput(f"layer has a {entry.kind} for its root directory")
        self.root_entry = entry
        describe(name_of(self._root), entry)
        self._times[b""] = nanoseconds(entry)

    def _hide(self, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        try:
            parent = openat_in_root(self._root, directory.lstrip(b"/"), os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return  # replaced by a later member
            raise
        try:
            make_whiteout(name, parent)
            os.utime(name, ns=(0, 0), dir_fd=parent, follow_symlinks=False)
            set_xattrs(name_of(parent), whiteouts.ORIGIN_XATTRS)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                with pinned(parent, name) as path:
                    set_xattrs(path, whiteouts.OPAQUE_XATTRS)
        finally:
            os.close(parent)
