"""Whole volumes copied: to another volume, out as a tar, in from one.

A new volume is filled aside and put in place when it is whole: a copy that is cut off, by a signal or by a bad archive,
leaves nothing, and its source is only read. What is read is kept from being removed meanwhile, but not frozen: while a
container writes into it, each file is taken as it is found.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from havre.aio import in_thread
from havre.engine.copying import feed, write_tree
from havre.engine.volume import Volume
from havre.engine.volumes import Volumes
from havre.errors import Failed
from havre.linux import trees
from havre.storage.extract import Extractor
from havre.storage.pipe import stream_from


class VolumeCopies:
    """Copies of the volumes in `volumes`."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    async def clone(self, name: str, new: str) -> Volume:
        """Make the volume `new` with the content and the labels of `name`, sharing blocks where the file system can."""
        labels = self._volumes.get(name).labels
        async with self._volumes.reading(name) as source, self._volumes.making(new, labels) as target:
            await in_thread(_copy, str(source), str(target))
        return self._volumes.get(new)

    @asynccontextmanager
    async def exporting(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The tar of a volume, uncompressed; paths are relative to its root."""
        async with self._volumes.reading(name) as source:
            root = trees.open_directory(source)
            try:
                pieces = stream_from(lambda out: write_tree(out, root))
                try:
                    yield pieces
                finally:
                    await pieces.aclose()
            finally:
                os.close(root)

    async def import_(self, name: str, chunks: AsyncIterator[bytes]) -> Volume:
        """Make the volume `name` of a tar, compressed or not. Conflict if it exists; InvalidInput for a bad archive."""
        async with self._volumes.making(name, None) as target:
            extractor = Extractor(trees.open_directory(target), "", None, no_overwrite=False)
            try:
                await feed(chunks, extractor.write)
                await in_thread(extractor.seal)
            except OSError as error:
                raise Failed(f"import volume {name}: {error}") from error
            finally:
                extractor.close()
        return self._volumes.get(name)


def _copy(source: str, target: str) -> None:
    from_ = trees.open_directory(source)
    try:
        to = trees.open_directory(target)
        try:
            trees.copy_tree(from_, to)
        finally:
            os.close(to)
    except OSError as error:
        raise Failed(f"copy a volume: {error}") from error
    finally:
        os.close(from_)
