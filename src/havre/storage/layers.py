"""The layers of images: taken in as streams, kept by diff ID, given back as the exact tar.

                                                       +-> [ write, parse ] -> files in layers/tmp-*
    network -> write() -> [ hash, decompress ] -> piece +
                                                       +-> [ hash ]
                            one thread at a time           two others, one piece behind

    finish(): both digests hold -> rename to layers/HEX -> fsync -> database row

`layerfiles` says how a layer lies on disk. The row is written last and removed first: what has no row is not there, and
`load` sweeps it away at start. Nothing of a refused, cut short or abandoned stream stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

import msgspec

from havre.aio import in_thread, spawn
from havre.errors import Failed, HavreError, NotFound
from havre.linux.trees import remove_tree, sync_directory
from havre.oci.digest import Digest, hex_of
from havre.storage.compress import Decompressor
from havre.storage.db import Table
from havre.storage.erofs import Unindexable, read_uuid
from havre.storage.layerfiles import (
    Form,
    LayerWriter,
    RootEntry,
    Sealed,
    build_index,
    read_tar,
    uuid_of,
    write_durably,
)

_GATHER = 1 << 20  # compressed bytes that are worth a hop to a thread
_TMP = "tmp-"
_INDEX_HEAD = 1536

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True):
    """A compressed form of a layer that a registry is known to hold: a push there mounts it or skips it."""

    digest: Digest
    size: int
    media_type: str
    registry: str = ""
    repository: str = ""


class Layer(msgspec.Struct, frozen=True):
    """A stored layer. `size`: bytes of its uncompressed tar; `root`: its entry for the root directory."""

    diff_id: Digest
    size: int
    form: Form = "tar"
    root: RootEntry | None = None


class LayerRow(msgspec.Struct):
    """A layer as the database keeps it, under its diff ID."""

    size: int
    form: Form
    root: RootEntry | None = None
    sources: list[Source] = []


class Ingested(msgspec.Struct, frozen=True):
    """What came in: the digests and sizes of the uncompressed tar and of the stream as it was received."""

    diff_id: Digest
    digest: Digest
    size: int
    compressed_size: int


class Layers:
    """The layers under `root` (data_root/layers). `unpacks`: new ones are stored as directories."""

    def __init__(self, root: Path, rows: Table[LayerRow], unpacks: bool) -> None:
        self._root = root
        self._table = rows
        self._unpacks = unpacks
        self._rows: dict[Digest, LayerRow] = {}
        self._commit_lock = asyncio.Lock()
        self.arriving: Counter[Digest] = Counter()  # being committed, or not yet in the hands of who brought them

    async def load(self) -> None:
        """Read the rows and make disk and rows agree: removes half-written layers, drops damaged ones. At start."""
        rows = {Digest(key): row for key, row in (await self._table.all()).items()}
        try:
            damaged = await in_thread(self._reconcile, rows)
        except OSError as error:
            raise Failed(f"checking the layers in {self._root}: {error}") from error
        for diff_id in damaged:
            log.warning("layer %s is damaged and was dropped; pull its images again", diff_id)
            del rows[diff_id]
            await self._table.delete(diff_id)
        self._rows = rows

    def path(self, diff_id: Digest) -> Path:
        """Where the layer's files lie."""
        return self._root / hex_of(diff_id)

    def get(self, diff_id: Digest) -> Layer | None:
        """The layer, None when it is not stored."""
        row = self._rows.get(diff_id)
        return None if row is None else Layer(diff_id, row.size, row.form, row.root)

    def all(self) -> list[Layer]:
        """Every stored layer."""
        return [Layer(diff_id, row.size, row.form, row.root) for diff_id, row in self._rows.items()]

    def ingest(self, *, digest: Digest | None = None, diff_id: Digest | None = None) -> LayerIngest:
        """Take in a layer: tar, gzip, zstd, xz or bzip2. The digests given (of the stream, of the tar) must hold."""
        return LayerIngest(self, digest, diff_id)

    async def open_tar(self, diff_id: Digest) -> AsyncIterator[bytes]:
        """The exact uncompressed tar; `NotFound`, or `Failed` at the end when the disk changed it."""
        row = self._row(diff_id)
        pieces = read_tar(self.path(diff_id), row.form, diff_id)
        try:
            while piece := await in_thread(next, pieces, b""):
                yield piece
        except OSError as error:
            raise Failed(f"reading layer {diff_id}: {error.strerror}") from error
        finally:
            with suppress(ValueError):  # a cancelled caller: the thread is still inside, and closes the file on its way
                pieces.close()

    async def remove(self, diff_id: Digest) -> int:
        """Remove a layer that nobody has mounted; returns the bytes freed, 0 when it was not there."""
        async with self._commit_lock:
            row = self._rows.pop(diff_id, None)
            if row is None:
                return 0
            await self._table.delete(diff_id)
            await in_thread(self._remove_files, diff_id)
            return row.size

    def sources(self, diff_id: Digest) -> list[Source]:
        """The compressed forms that registries are known to hold; `NotFound`."""
        return list(self._row(diff_id).sources)

    async def add_source(self, diff_id: Digest, source: Source) -> None:
        """Remember one more; the same form at the same place is remembered once."""
        row = self._row(diff_id)
        if source not in row.sources:
            row.sources = [*row.sources, source]
            await self._table.put(diff_id, row)

    def _row(self, diff_id: Digest) -> LayerRow:
        row = self._rows.get(diff_id)
        if row is None:
            raise NotFound(f"layer {diff_id} is not in the store", "pull its image again")
        return row

    # -- for LayerIngest

    def _new_writer(self) -> LayerWriter:
        return LayerWriter(self._root / f"{_TMP}{secrets.token_hex(8)}", unpacks=self._unpacks)

    async def _commit(self, writer: LayerWriter, sealed: Sealed) -> None:
        """Make a sealed layer one of the store's, unless it is already."""
        async with self._commit_lock:
            if sealed.diff_id in self._rows:
                await in_thread(writer.discard)
                return
            await in_thread(self._publish, writer, sealed)
            row = LayerRow(size=sealed.size, form=sealed.form, root=sealed.root)
            await self._table.put(sealed.diff_id, row)
            self._rows[sealed.diff_id] = row

    # -- disk, in threads

    def _publish(self, writer: LayerWriter, sealed: Sealed) -> None:
        remove_tree(self.path(sealed.diff_id))  # of a commit that was cut off before its row
        writer.release()
        writer.directory.rename(self.path(sealed.diff_id))
        sync_directory(self._root)

    def _remove_files(self, diff_id: Digest) -> None:
        doomed = self._root / f"{_TMP}{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            self.path(diff_id).rename(doomed)
        remove_tree(doomed)

    def _reconcile(self, rows: dict[Digest, LayerRow]) -> list[Digest]:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        damaged = [diff_id for diff_id, row in rows.items() if not self._is_sound(diff_id, row)]
        wanted = {hex_of(diff_id) for diff_id in rows.keys() - set(damaged)}
        for directory in self._root.iterdir():
            if directory.name not in wanted:
                remove_tree(directory)
        return damaged

    def _is_sound(self, diff_id: Digest, row: LayerRow) -> bool:
        """Whether the files are there with the right sizes; a lost index is built anew."""
        directory = self.path(diff_id)
        if row.form == "dir":
            return (directory / "root").is_dir() and (directory / "tar.zst").is_file()
        tar, index = directory / "tar", directory / "index"
        if not tar.is_file() or tar.stat().st_size != row.size:
            return False
        if not index.is_file() or _head_uuid(index) != uuid_of(diff_id):
            index.unlink(missing_ok=True)
            try:
                write_durably(index, build_index(tar, diff_id))
            except (HavreError, Unindexable):
                return False
        return True


def _head_uuid(index: Path) -> bytes | None:
    with index.open("rb") as file:
        return read_uuid(file.read(_INDEX_HEAD))


class LayerIngest:
    """One layer coming in: `async with` it, `write` the chunks, `finish`. Left without finish, it leaves nothing."""

    def __init__(self, layers: Layers, digest: Digest | None, diff_id: Digest | None) -> None:
        self._layers = layers
        self._wanted_digest = digest
        self._wanted_diff_id = diff_id
        self._name = digest or diff_id or "of unknown digest"
        self._stream_hash, self._tar_hash = hashlib.sha256(), hashlib.sha256()
        self._received = 0
        self._gathered = bytearray()
        self._decompressor = Decompressor()
        self._writer = layers._new_writer()
        self._storing: asyncio.Future[tuple[None, None]] | None = None
        self._committing: asyncio.Future[None] | None = None
        self._arrived: list[Digest] = []

    async def __aenter__(self) -> LayerIngest:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A commit that has begun is seen through even if the caller is cancelled: the layer then stays, whole.
        for running in (self._storing, self._committing):
            if running is not None:
                await asyncio.wait([running])
                if not running.cancelled():
                    running.exception()  # retrieved: the first failure is already on its way
        await in_thread(self._writer.discard)
        self._layers.arriving -= Counter(self._arrived)

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes of the stream as received; raises `HavreError` as soon as they cannot be right."""
        self._gathered += chunk
        if len(self._gathered) >= _GATHER:
            await self._drain()

    async def finish(self) -> Ingested:
        """The stream is over; the layer is in the store once this returns."""
        await self._drain()
        if rest := self._decompressor.finish():
            await self._store(rest)
        await self._stored()
        digest = Digest(f"sha256:{self._stream_hash.hexdigest()}")
        diff_id = Digest(f"sha256:{self._tar_hash.hexdigest()}")
        _require(self._wanted_digest, digest)
        _require(self._wanted_diff_id, diff_id)
        sealed = await self._in_thread(self._writer.seal, diff_id)
        self._arrived.append(diff_id)
        self._layers.arriving += Counter(self._arrived)
        self._committing = spawn(self._layers._commit(self._writer, sealed), f"commit layer {sealed.diff_id}")
        with self._failures():
            await asyncio.shield(self._committing)
        return Ingested(sealed.diff_id, digest, sealed.size, self._received)

    async def _drain(self) -> None:
        chunk, self._gathered = bytes(self._gathered), bytearray()
        self._received += len(chunk)
        piece = await self._in_thread(self._inflate, chunk)
        while piece:
            await self._store(piece)
            piece = await self._in_thread(self._inflate)

    def _inflate(self, chunk: bytes = b"") -> bytes:
        if chunk:
            self._stream_hash.update(chunk)
            self._decompressor.feed(chunk)
        return self._decompressor.read()

    async def _store(self, piece: bytes) -> None:
        """Have `piece` written and hashed while the next one is being decompressed."""
        await self._stored()
        written, hashed = in_thread(self._writer.write, piece), in_thread(self._tar_hash.update, piece)
        self._storing = asyncio.gather(written, hashed)

    async def _stored(self) -> None:
        if self._storing is not None:
            with self._failures():
                await self._storing
            self._storing = None

    async def _in_thread(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._failures():
            return await in_thread(work, *args, **kwargs)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Say what the disk refused, and for which layer."""
        try:
            yield
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT):
                raise Failed(
                    f"no space left on device while writing layer {self._name}", "free some with `havre system prune`"
                ) from error
            named = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
            raise Failed(f"writing layer {self._name}: {error.strerror}{named}") from error


def _require(wanted: Digest | None, got: Digest) -> None:
    if wanted not in (None, got):
        raise Failed(f"layer {wanted} does not match: got {got}", "the registry or the archive is damaged; try again")
