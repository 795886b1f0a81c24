"""The layer store: layers arrive as streams, are stored by diff ID, and are read back as the exact tar.

    stream --ingest--> files in layers/tmp-* --digests verified, rename, fsync--> layers/HEX --> database row

`ingest` receives a layer, `layerfiles` defines its files. The row is written last and deleted first: files without a
row
do not count, and `load` removes them at start. A damaged row is rebuilt from the files; if these do not match the diff
ID either, they stay until the layer arrives again or no image needs it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Set
from contextlib import suppress
from pathlib import Path

import msgspec

from havre.aio import in_thread, spawn
from havre.errors import Failed, HavreError, NotFound
from havre.failpoints import failpoint
from havre.linux.trees import remove_tree, sync_directory
from havre.oci.digest import Digest, hex_of
from havre.storage.db import Table
from havre.storage.erofs import Unindexable, read_uuid
from havre.storage.ingest import LayerIngest
from havre.storage.layerfiles import (
    Form,
    LayerWriter,
    RootEntry,
    Sealed,
    build_index,
    examine,
    read_tar,
    uuid_of,
    write_durably,
)
from havre.storage.making import LayerOut, make_layer
from havre.storage.salvage import readable_fields

_TMP = "tmp-"
_INDEX_HEAD = 1536
LAYER_LIMIT = 256 << 30

log = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True):
    """A compressed form of a layer that a registry has: a push there mounts or skips it."""

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
    """A layer's row, keyed by its diff ID."""

    size: int
    form: Form
    root: RootEntry | None = None
    sources: list[Source] = []


class Layers:
    """The layers under `root` (data_root/layers). `unpacks`: new ones are stored as directories.

    `layer_limit`: maximum unpacked bytes of an incoming layer.
    """

    def __init__(self, root: Path, rows: Table[LayerRow], unpacks: bool, layer_limit: int = LAYER_LIMIT) -> None:
        self.layer_limit = layer_limit
        self.root = root
        self._table = rows
        self._unpacks = unpacks
        self._rows: dict[Digest, LayerRow] = {}
        self.damaged: set[Digest] = set()  # row and files are damaged: not in `all`, but kept on disk
        self._commit_lock = asyncio.Lock()
        self._sweeping = asyncio.Lock()
        self._sweeps: set[asyncio.Task[None]] = set()
        self.arriving: Counter[Digest] = Counter()  # being committed, or not yet held by the caller

    async def load(self) -> None:
        """Read the rows and reconcile them with the disk: removes incomplete layers, drops lost ones. Call first."""
        rows = {Digest(key): row for key, row in (await self._table.all()).items()}
        suspect = {Digest(key): readable_fields(value, LayerRow) for key, value in self._table.damaged.items()}
        self.damaged = set(suspect)
        try:
            for diff_id in await in_thread(self._unsound, rows):
                suspect[diff_id] = {"sources": rows.pop(diff_id).sources}
            for diff_id, fields in suspect.items():
                if (row := await self._mend(diff_id, fields.get("sources", []))) is not None:
                    rows[diff_id] = row
            await in_thread(self._sweep_unknown, rows.keys() | self.damaged)
        except OSError as error:
            raise Failed(f"checking the layers in {self.root}: {error}") from error
        self._rows = rows

    async def _mend(self, diff_id: Digest, sources: list[Source]) -> LayerRow | None:
        """Rebuild a layer's row from its files; None if they do not match. Hashes the layer: 2 s for 1 GB."""
        try:
            row = await in_thread(self._examined, diff_id)
        except (HavreError, OSError, ValueError) as error:
            if diff_id in self.damaged:
                log.error("layer %s is damaged: %s; pull or build its images again, or remove them", diff_id, error)
            else:
                log.warning("layer %s is damaged and was dropped; pull its images again: %s", diff_id, error)
                await self._table.delete(diff_id)
            return None
        row.sources = sources
        self.damaged.discard(diff_id)
        log.warning("the row of layer %s was damaged and has been rebuilt from its files", diff_id)
        try:
            await self._table.put(diff_id, row)
        except Failed as error:  # a full disk: the next start tries again
            log.error("%s", error)
        return row

    def path(self, diff_id: Digest) -> Path:
        """The directory of the layer's files."""
        return self.root / hex_of(diff_id)

    def get(self, diff_id: Digest) -> Layer | None:
        """The layer, or None."""
        row = self._rows.get(diff_id)
        return None if row is None else Layer(diff_id, row.size, row.form, row.root)

    def all(self) -> list[Layer]:
        """Every stored layer."""
        return [Layer(diff_id, row.size, row.form, row.root) for diff_id, row in self._rows.items()]

    def ingest(self, *, digest: Digest | None = None, diff_id: Digest | None = None) -> LayerIngest:
        """Receive a layer: tar, gzip, zstd, xz or bzip2. The given digests (of the stream, of the tar) are verified."""
        return LayerIngest(self, digest, diff_id)

    async def make(self, work: Callable[[LayerOut], None], hold: Callable[[Digest], None]) -> Digest | None:
        """Store the layer whose tar `work` writes in a thread; None if it is empty. Calls `hold` before it is
        stored."""
        return await make_layer(self, work, hold)

    async def open_tar(self, diff_id: Digest) -> AsyncIterator[bytes]:
        """Yield the exact uncompressed tar; `NotFound`, or `Failed` at the end if it was damaged on disk.

        The next piece is read and hashed while the caller processes the current one.
        """
        row = self._row(diff_id)
        pieces = read_tar(self.path(diff_id), row.form, diff_id)
        ahead = asyncio.ensure_future(in_thread(next, pieces, b""))
        try:
            while piece := await ahead:
                ahead = asyncio.ensure_future(in_thread(next, pieces, b""))
                yield piece
        except OSError as error:
            raise Failed(f"reading layer {diff_id}: {error.strerror}") from error
        finally:
            await asyncio.wait([ahead])
            if not ahead.cancelled():
                ahead.exception()  # marks it as retrieved
            # after a cancellation the thread may still be reading; it closes the file when it ends
            with suppress(ValueError):
                pieces.close()

    async def remove(self, diff_id: Digest) -> int:
        """Remove an unmounted layer; returns the bytes that will be freed, 0 when it is not stored."""
        async with self._commit_lock:
            row = self._rows.pop(diff_id, None)
            if row is None and diff_id not in self.damaged:
                return 0
            await self._table.delete(diff_id, lazily=True)  # if the row reappears, it is dropped for lack of files
            failpoint("layer.unrecorded")
            self.damaged.discard(diff_id)
            doomed = await in_thread(self._set_aside, diff_id)
        sweep = spawn(self._sweep(doomed), f"remove the files of layer {diff_id}")
        self._sweeps.add(sweep)
        sweep.add_done_callback(self._sweeps.discard)
        return 0 if row is None else row.size

    async def swept(self) -> None:
        """Wait until the files of removed layers are deleted."""
        if self._sweeps:
            await asyncio.wait(self._sweeps)

    async def _sweep(self, doomed: Path) -> None:
        """Delete files in the background, one layer at a time: freeing 500 MB takes 0.1 s."""
        async with self._sweeping:
            await in_thread(remove_tree, doomed)

    def sources(self, diff_id: Digest) -> list[Source]:
        """The compressed forms in registries, in the order in which they were seen; `NotFound`."""
        return list(self._row(diff_id).sources)

    async def add_source(self, diff_id: Digest, source: Source) -> None:
        """Record another source, as the last; duplicates are removed."""
        row = self._row(diff_id)
        if row.sources[-1:] != [source]:
            row.sources = [*(other for other in row.sources if other != source), source]
            await self._table.put(diff_id, row, lazily=True)

    def _row(self, diff_id: Digest) -> LayerRow:
        row = self._rows.get(diff_id)
        if row is None:
            raise NotFound(f"layer {diff_id} is not in the store", "pull its image again")
        return row

    # -- for LayerIngest (`ingest.Keeper`)

    def new_writer(self) -> LayerWriter:
        """A writer for the files of an incoming layer."""
        return LayerWriter(self.root / f"{_TMP}{secrets.token_hex(8)}", unpacks=self._unpacks)

    async def commit(self, writer: LayerWriter, sealed: Sealed) -> None:
        """Add a sealed layer to the store. Idempotent."""
        async with self._commit_lock:
            if sealed.diff_id in self._rows:
                await in_thread(writer.discard)
                return
            await in_thread(self._publish, writer, sealed)
            row = LayerRow(size=sealed.size, form=sealed.form, root=sealed.root)
            await self._table.put(sealed.diff_id, row, lazily=True)  # lazy: its image's row is written durably
            failpoint("layer.recorded")
            self._rows[sealed.diff_id] = row
            self.damaged.discard(sealed.diff_id)

    # -- disk, in threads

    def _publish(self, writer: LayerWriter, sealed: Sealed) -> None:
        failpoint("layer.sealed")
        remove_tree(self.path(sealed.diff_id))  # left by a commit that was aborted before its row
        writer.release()
        writer.directory.rename(self.path(sealed.diff_id))
        sync_directory(self.root)
        failpoint("layer.renamed")

    def _set_aside(self, diff_id: Digest) -> Path:
        """Rename a layer's files to a name that `load` removes if the daemon dies before they are deleted."""
        doomed = self.root / f"{_TMP}{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            self.path(diff_id).rename(doomed)
        failpoint("layer.aside")
        return doomed

    def _unsound(self, rows: dict[Digest, LayerRow]) -> list[Digest]:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [diff_id for diff_id, row in rows.items() if not self._is_sound(diff_id, row)]

    def _examined(self, diff_id: Digest) -> LayerRow:
        found = examine(self.path(diff_id), diff_id)
        row = LayerRow(size=found.size, form=found.form, root=found.root)
        if not self._is_sound(diff_id, row):
            raise Failed(f"no index can be built over the files of layer {diff_id}")
        return row

    def _sweep_unknown(self, known: Set[Digest]) -> None:
        """Remove incomplete or partly deleted files."""
        names = set(map(hex_of, known))
        for directory in self.root.iterdir():
            if directory.name not in names:
                remove_tree(directory)

    def _is_sound(self, diff_id: Digest, row: LayerRow) -> bool:
        """Report whether the files exist with the right sizes; rebuilds a missing index."""
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
