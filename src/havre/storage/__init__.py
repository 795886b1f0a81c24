"""Blobs, layers, snapshots and the database under the data root."""
