"""Verifies a stored layer by reading all of it, and rebuilds its index.

    tar, or tar.zst   hashed
    index             compared with one built from the tar: indexes are deterministic
    root/             of an unpacked layer: every name with its kind, mode, owner, size and time compared with the tar

The content of unpacked files is not read, and layers that no index can represent are not compared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from havre.aio import in_thread
from havre.errors import Failed, HavreError
from havre.oci.digest import Digest
from havre.storage.erofs import Index, Node, Unindexable
from havre.storage.layerfiles import Form, add_entries, build_index, read_tar, uuid_of, write_durably
from havre.storage.layers import Layers
from havre.tar.reader import TarParser

_TIMES = range(1 << 31)
"""Seconds that every file system can store; others may have been clamped."""


async def verify_layer(layers: Layers, diff_id: Digest) -> tuple[str, bool]:
    """The defect of a layer ("" for none), and whether `rebuild_index` repairs it. Reads the whole layer."""
    layer = layers.get(diff_id)
    if layer is None:
        return f"layer {diff_id} is missing", False
    return await in_thread(_look, layers.path(diff_id), layer.form, diff_id, layer.size)


async def rebuild_index(layers: Layers, diff_id: Digest) -> None:
    """Rebuild the index of a valid tar. Existing mounts keep the old one."""
    await in_thread(_rebuild, layers.path(diff_id), diff_id)


def _look(directory: Path, form: Form, diff_id: Digest, size: int) -> tuple[str, bool]:
    try:
        index = _indexed(read_tar(directory, form, diff_id))
        if form == "dir":
            return difference(directory / "root", index), False
        if index is None:
            return "no index can represent its tar", False
        file = directory / "index"
        sound = file.is_file() and file.read_bytes() == index.render(uuid_of(diff_id), size)
    except HavreError as error:
        return error.message, False
    except OSError as error:
        return f"its data cannot be read: {error.strerror}", False
    return ("", False) if sound else ("its index is damaged or missing", True)


def _indexed(pieces: Iterable[bytes]) -> Index | None:
    """The index of a tar, all of whose pieces are read; None if it cannot be indexed or is damaged."""
    index, parser = Index(), TarParser()
    sound = True
    for piece in pieces:
        try:
            if sound:
                add_entries(index, parser, piece)
        except (Unindexable, HavreError):
            sound = False
    return index if sound else None


def difference(root: Path, index: Index | None) -> str:
    """A difference between the directory `root` and the layer's `index`, "" if there is none: names first."""
    if not root.is_dir():
        return "its files are gone"
    if index is None:
        return ""
    expected, changed = dict(index.files()), ""
    for path, status in _files(os.fsencode(root)):
        node = expected.pop(path, None)
        shown = os.fsdecode(path)
        if node is None:
            return f"{shown!r} is in its directory and not in its tar"
        if (what := _changed(node, status)) and not changed:
            changed = f"the {what} of {shown!r} in its directory differs from its tar"
    return f"{os.fsdecode(min(expected))!r} is missing in its directory" if expected else changed


def _changed(node: Node, status: os.stat_result) -> str:
    """The attribute in which a file differs from its layer, "" for none."""
    if stat.S_IFMT(node.mode) != stat.S_IFMT(status.st_mode):
        return "kind"
    if node.mode != status.st_mode:
        return "mode"
    if (node.uid, node.gid) != (status.st_uid, status.st_gid):
        return "owner"
    if node.children is None and node.size != status.st_size:
        return "size"
    if node.mtime_s in _TIMES and node.mtime_s != status.st_mtime_ns // 10**9:
        return "time"
    return ""


def _files(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield everything below `root`, without following links, by relative path; directories after their content."""
    for directory, directories, files in os.walk(root, topdown=False, onerror=_raise):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            yield path[len(root) + 1 :], os.lstat(path)


def _raise(error: OSError) -> None:
    raise Failed(f"its directory cannot be read: {error.strerror}") from error


def _rebuild(directory: Path, diff_id: Digest) -> None:
    fresh = directory / "index.new"
    fresh.unlink(missing_ok=True)
    write_durably(fresh, build_index(directory / "tar", diff_id))
    os.replace(fresh, directory / "index")
