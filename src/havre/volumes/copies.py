"""Copies whole volumes: clone, export as a tar, import from a tar.

Labels are stored as JSON in the record `HAVRE.volume.labels` of a global pax header, which other tools ignore. A new
volume is filled in a temporary directory and renamed when complete, so an aborted copy leaves nothing. The source
cannot be removed meanwhile, but it is not frozen: files being written are copied as they are at that moment.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO

import msgspec

from havre.aio import feed, in_thread
from havre.errors import Failed
from havre.golang import gojson
from havre.linux import trees
from havre.storage.pipe import stream_from
from havre.storage.recompress import zstd_stream
from havre.tar.extract import Extractor
from havre.tar.headers import global_header
from havre.tar.whole import write_tree
from havre.volumes.spec import ANONYMOUS, Volume
from havre.volumes.volumes import Volumes

_LABELS = "HAVRE.volume.labels"


class VolumeCopies:
    """Copies of the volumes in `volumes`."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    async def clone(self, name: str, new: str) -> Volume:
        """Create the volume `new` with the content and labels of `name`, by reflinks where the file system supports
        them."""
        labels = self._volumes.get(name).labels
        async with self._volumes.reading(name) as source, self._volumes.making(new, labels) as target:
            await in_thread(_copy, str(source), str(target))
        return self._volumes.get(new)

    @asynccontextmanager
    async def exporting(self, name: str, *, zstd: bool = False) -> AsyncIterator[AsyncIterator[bytes]]:
        """The tar of a volume with its labels, zstd-compressed if `zstd`; paths are relative to its root."""
        labels = self._volumes.get(name).labels or {}
        async with self._volumes.reading(name) as source:
            root = trees.open_directory(source)
            try:
                pieces = stream_from(partial(_write_volume, root, labels))
                try:
                    yield zstd_stream(pieces) if zstd else pieces
                finally:
                    await pieces.aclose()
            finally:
                os.close(root)

    async def import_(self, name: str, chunks: AsyncIterator[bytes]) -> Volume:
        """Create the volume `name` from a tar, compressed or not, with the labels stored in it.

        Conflict if it exists; InvalidInput for an invalid archive.
        """
        labels: dict[str, str] = {}  # filled before the block ends
        async with self._volumes.making(name, labels) as target:
            extractor = Extractor(trees.open_directory(target), "", None, no_overwrite=False)
            try:
                await feed(chunks, extractor.write)
                await in_thread(extractor.seal)
                labels |= _read_labels(extractor.global_records())
            except OSError as error:
                raise Failed(f"import volume {name}: {error}") from error
            finally:
                extractor.close()
        return self._volumes.get(name)


def _write_volume(root: int, labels: Mapping[str, str], out: BinaryIO) -> None:
    if labels:
        records = {_LABELS: msgspec.json.encode(labels).decode()}
        out.write(global_header(records))
    write_tree(out, root)


def _read_labels(records: Mapping[str, str]) -> dict[str, str]:
    labels = gojson.decode(records.get(_LABELS, "{}"), dict[str, str], f"{_LABELS} in the archive")
    return {key: value for key, value in labels.items() if key != ANONYMOUS}


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
