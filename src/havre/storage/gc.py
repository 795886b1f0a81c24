"""Garbage: what is in the store and needed by nothing.

A layer is needed by an image (the caller says which), by a snapshot made from it, or by someone who holds it while a
pull or a build is under way; a blob by an image or a holder. The rest goes.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from havre.oci.digest import Digest

if TYPE_CHECKING:
    from havre.storage.store import Storage


def plan_garbage(present: Set[Digest], *needed: Set[Digest]) -> list[Digest]:
    """What of `present` is in none of `needed`, in a fixed order."""
    return sorted(set(present).difference(*needed))


def plan_collection(storage: Storage, live_layers: Set[Digest], live_blobs: Set[Digest]) -> list[tuple[Digest, int]]:
    """What `collect` would remove now, and the bytes of each."""
    busy = storage.held() | storage.snapshots.layers_in_use()
    sizes = {layer.diff_id: layer.size for layer in storage.layers.all()}
    layers = [(diff_id, sizes[diff_id]) for diff_id in plan_garbage(sizes.keys(), live_layers, busy)]
    blobs = plan_garbage(set(storage.blobs.all()), live_blobs, storage.held())
    return layers + [(digest, storage.blobs.path(digest).stat().st_size) for digest in blobs]


async def collect(storage: Storage, live_layers: Set[Digest], live_blobs: Set[Digest]) -> int:
    """Remove what is needed by nothing and return the bytes freed. `live_*` are what the images need."""
    freed = 0
    present = {layer.diff_id for layer in storage.layers.all()}
    for diff_id in plan_garbage(present, live_layers):
        await storage.snapshots.unmount_layer(diff_id)
        # Asked anew for each, at the last moment: someone may take hold of it while others are being removed.
        if diff_id not in storage.held() | storage.snapshots.layers_in_use():
            freed += await storage.layers.remove(diff_id)
    for digest in plan_garbage(set(storage.blobs.all()), live_blobs):
        if digest not in storage.held():
            freed += await storage.blobs.remove(digest)
    return freed
