"""Reading a stored layer whole, to see whether the disk still holds what was put there; and making its index anew.

The tar is hashed, the index compared with the one that the tar gives (it is the same to the byte each time). Of a layer
that lies unpacked the compressed tar is hashed; its directory is not compared.
"""

from __future__ import annotations

import os
from pathlib import Path

from havre.aio import in_thread
from havre.errors import HavreError
from havre.oci.digest import Digest
from havre.storage.layerfiles import Form, build_index, read_tar, write_durably
from havre.storage.layers import Layers


async def verify_layer(layers: Layers, diff_id: Digest) -> tuple[str, bool]:
    """What is wrong with a layer ("" for nothing), and whether `rebuild_index` mends it; the layer is read whole."""
    layer = layers.get(diff_id)
    if layer is None:
        return f"layer {diff_id} is missing", False
    return await in_thread(_look, layers.path(diff_id), layer.form, diff_id)


async def rebuild_index(layers: Layers, diff_id: Digest) -> None:
    """Write the index of a sound tar anew. What is mounted now goes on with the old one."""
    await in_thread(_rebuild, layers.path(diff_id), diff_id)


def _look(directory: Path, form: Form, diff_id: Digest) -> tuple[str, bool]:
    try:
        for _ in read_tar(directory, form, diff_id):
            pass
        if form == "dir":
            return ("", False) if (directory / "root").is_dir() else ("its files are gone", False)
        expected = build_index(directory / "tar", diff_id)
    except HavreError as error:
        return error.message, False
    except OSError as error:
        return f"its data cannot be read: {error.strerror}", False
    index = directory / "index"
    if not index.is_file() or index.read_bytes() != expected:
        return "its index is damaged or missing", True
    return "", False


def _rebuild(directory: Path, diff_id: Digest) -> None:
    fresh = directory / "index.new"
    fresh.unlink(missing_ok=True)
    write_durably(fresh, build_index(directory / "tar", diff_id))
    os.replace(fresh, directory / "index")
