"""Blobs, layers, snapshots and the database under the data root.

    data_root/            mode 0711, its content 0700: users of the host cannot reach containers' set-user-ID files
      lock                held by the one daemon that uses this data root
      havre.db            documents: rows of layers, snapshots, images, containers, ...        db
      blobs/              manifests and configurations by digest                               blobs
      layers/HEX/         each layer once: tar and index, or unpacked                          layers
      snapshots/ID/       files written by a container                                         snapshots
    run_root/             lost at a reboot, by design
      layers/HEX          a mounted layer                                                      mounted
      snapshots/ID        a container's root file system                                       rootfs

`Storage.open` (in `store`) probes the kernel and connects the parts; docs/schema.md draws the formats. The names
exported here are the room's face.
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
