"""Writes a tar of a whole directory tree, for `cp`, `export` and copies of volumes. Blocking."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from havre.errors import Failed
from havre.linux import trees
from havre.linux.idmap import IdRange
from havre.linux.openat2 import openat_in_root
from havre.tar.writer import TarWriter


def write_tree(out: BinaryIO, root: int, ids: IdRange | None = None) -> None:
    """Write a tar of everything below the open directory `root`, which may be an O_PATH descriptor.

    Raises `Failed` if a file cannot be read.
    """
    tar = TarWriter(out, ids=ids)
    try:
        directory = openat_in_root(root, "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for entry in trees.walk(directory):
                add_entry(tar, b"", entry)
        finally:
            os.close(directory)
    except OSError as error:
        raise Failed(f"reading /: {(error.strerror or str(error)).lower()}") from error
    tar.finish()


def add_entry(tar: TarWriter, top: bytes, entry: trees.Entry) -> None:
    """Add an entry. Sockets are skipped, and so are files that were removed or replaced meanwhile."""
    if stat.S_ISSOCK(entry.stat.st_mode):
        return
    try:
        tar.add(top + os.fsencode(entry.path), entry.stat, entry.parent, entry.name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
