"""Garbage collection of layers and blobs.

A layer is live if an image (given by the caller), a snapshot, or a hold of a running pull or build refers to it; a blob
if an image or a hold refers to it. Everything else is removed.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from havre.oci.digest import Digest

if TYPE_CHECKING:
    from havre.storage.store import Storage


def plan_garbage(present: Set[Digest], *needed: Set[Digest]) -> list[Digest]:
    """The digests in `present` that are in none of `needed`, sorted."""
    return sorted(set(present).difference(*needed))


def plan_collection(storage: Storage, live_layers: Set[Digest], live_blobs: Set[Digest]) -> list[tuple[Digest, int]]:
    """What `collect` would remove now, with the bytes of each."""
    busy = storage.held() | storage.snapshots.layers_in_use()
    sizes = {layer.diff_id: layer.size for layer in storage.layers.all()}
    layers = [(diff_id, sizes[diff_id]) for diff_id in plan_garbage(sizes.keys(), live_layers, busy)]
    blobs = plan_garbage(set(storage.blobs.all()), live_blobs, storage.held())
    return layers + [(digest, storage.blobs.path(digest).stat().st_size) for digest in blobs]


async def collect(storage: Storage, live_layers: Set[Digest], live_blobs: Set[Digest]) -> int:
    """Remove layers and blobs that nothing refers to; returns the bytes freed. `live_*`: those that images refer to."""
    freed = 0
    present = {layer.diff_id for layer in storage.layers.all()} | storage.layers.damaged
    for diff_id in plan_garbage(present, live_layers):
        await storage.snapshots.unmount_layer(diff_id)
        # Checked again for each one just before its removal: a hold may be taken while others are being removed.
        if diff_id not in storage.held() | storage.snapshots.layers_in_use():
            freed += await storage.layers.remove(diff_id)
    for digest in plan_garbage(set(storage.blobs.all()), live_blobs):
        if digest not in storage.held():
            freed += await storage.blobs.remove(digest)
    return freed
