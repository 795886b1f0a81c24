"""Writes a container's changes, its overlay's upper directory, as the tar of a layer.

    in the upper directory            in the tar
    --------------------------------  ---------------------------------------------
    character device 0:0 NAME         an empty file .wh.NAME
    ...overlay.opaque=y on DIR        DIR, then an empty file DIR/.wh..wh..opq
    second name of an inode           a hard link to the first
    socket                            nothing: it is useless without its process

Deterministic: names sorted, whole seconds. Parents are always written, since a removal changes their times. Blocking.

Source: OCI image specification "layer.md".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from havre.errors import Failed
from havre.linux import trees
from havre.storage import whiteouts
from havre.storage.changes import bare_mount_points
from havre.tar.writer import TarWriter


def write_diff(upper: Path, out: BinaryIO, newest_s: int | None = None) -> None:
    """Write the tar of the changes in `upper` to `out`; `Failed` for an impossible name, `OSError` for disk errors.

    Mount points created by the OCI runtime are omitted. Times after `newest_s`, in seconds since the epoch, are clamped
    to
    it (https://reproducible-builds.org/specs/source-date-epoch).
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
