"""Blobs, layers, snapshots and the database under the data root.

    data_root/            0711, what is in it 0700: no user of the host gets at a container's set-user-ID files
        lock              held by the one daemon that works on this data root
        havre.db          documents: rows of layers, snapshots, images, containers, ...        db
        blobs/            manifests and configurations by digest                               blobs
        layers/HEX/       each layer once: tar and index, or unpacked                          layers
        snapshots/ID/     what a container wrote                                               snapshots
    run_root/             gone after a reboot, and that is all right
        layers/HEX        a mounted layer                                                      mounted
        snapshots/ID      a container's root file system                                       rootfs

`Storage.open` (in `store`) finds out what the kernel can do here and puts the parts together; docs/schema.md draws the
formats. What is exported here is the room's face.
"""

from __future__ import annotations

from havre.storage.blobs import Blobs
from havre.storage.changes import Change
from havre.storage.db import Database, Table
from havre.storage.gc import collect
from havre.storage.ingest import Ingested, LayerIngest
from havre.storage.layers import Layer, Layers, Source
from havre.storage.snapshots import Snapshots
from havre.storage.store import Storage

__all__ = [
    "Blobs", "Change", "Database", "Ingested", "Layer", "LayerIngest", "Layers", "Snapshots", "Source", "Storage",
    "Table", "collect",
]  # fmt: skip
