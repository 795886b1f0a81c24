"""The stored images and their names: the catalog that is read from the database and written to it.

Rows are in the tables `images`, `image_indexes` and `image_names` and are all held in memory (`catalog`); a change is
written before it becomes visible. Configurations, manifests and indexes are blobs.

Why: docs/decisions/020.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from havre.errors import HavreError, InvalidInput
from havre.images.catalog import ID_PREFIX, Catalog, Image, ImageRow, NameRow, exact
from havre.images.documents import read_config, read_image
from havre.images.index import ImageIndex, IndexRow, read_index
from havre.oci.attestation import Attested, subject_of
from havre.oci.digest import Digest, digest_of, parse_digest
from havre.oci.image import ImageConfig, decode_image
from havre.oci.manifest import Descriptor
from havre.oci.platform import Platform
from havre.oci.reference import Reference, parse_reference
from havre.wire.values import ImageId

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)


class Table(Protocol[T]):
    """A document table keyed by text; `damaged` are the rows that the last `all` could not read."""

    @property
    def damaged(self) -> Mapping[str, bytes]: ...
    async def all(self) -> dict[str, T]: ...
    async def put(self, key: str, value: T, *, urgent: bool = False, lazily: bool = False) -> None: ...
    async def delete(self, key: str) -> None: ...


class BlobStore(Protocol):
    """Stores configurations and manifests."""

    async def add(self, data: bytes) -> Digest: ...
    async def read(self, digest: Digest) -> bytes: ...
    async def remove(self, digest: Digest) -> int: ...


class Hold(Protocol):
    """Protects digests from garbage collection during a block."""

    def __call__(self, *digests: Digest) -> AbstractContextManager[object]: ...


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of the store."""

    images: Table[ImageRow]
    names: Table[NameRow]
    indexes: Table[IndexRow]


class ImageStore(Catalog):
    """Images and names, in memory and in the database.

    Hold `changing` while deciding on and making a change (remove, tag). `keep` and `keep_index` take it themselves.
    """

    def __init__(self, blobs: BlobStore, tables: Tables, hold: Hold, platform: Platform) -> None:
        super().__init__(platform)
        self._hold = hold
        self._blobs = blobs
        self._tables = tables
        self.changing = asyncio.Lock()
        self.unreadable: set[ImageId] = set()

    async def load(self) -> None:
        """Read everything. An image with a damaged configuration is logged and left out, with its names. One whose
        container defaults are invalid is logged and kept, so that it can be listed and removed.

        May be called again after a repair.
        """
        self.unreadable.clear()
        rows = await self._tables.images.all()
        rows |= {key: ImageRow(added_at=time.time()) for key in self._tables.images.damaged}
        for key, row in rows.items():
            try:
                config = decode_image(await self._blobs.read(parse_digest(key)))
            except HavreError as error:
                log.error(
                    "image %s cannot be used (`system check --repair` may fetch it, `rmi` removes it): %s", key, error
                )
                self.unreadable.add(ImageId(key))
                continue
            self._images[ImageId(key)] = Image(ImageId(key), config, row)
            try:
                read_config(config, key)
            except HavreError as error:
                log.warning("%s", error)
        names = _with_sound_names(await self._tables.names.all())
        await self._load_indexes({Digest(row.index) for row in names.values() if row.index})
        for name, named in names.items():
            if (index := self._indexes.get(Digest(named.index))) is not None:
                self._names[name] = NameRow(index.preferred(self.platform), named.index)
            elif named.image in self._images:
                self._names[name] = named

    async def _load_indexes(self, named: set[Digest]) -> None:
        """Read the indexes that names refer to. A damaged one is logged; its names keep their image."""
        self._indexes.clear()
        self._index_rows.clear()
        for key, row in (await self._tables.indexes.all()).items():
            digest = Digest(key)
            if digest not in named:  # a crash between the removal of its last name and of its row
                await self._tables.indexes.delete(digest)
                continue
            self._index_rows[digest] = row
            try:
                body = await self._blobs.read(digest)
                self._indexes[digest] = read_index(digest, body, self._members(row), _attested(row))
            except HavreError as error:
                log.error("index %s cannot be read, its names refer to one image each: %s", digest, error)

    def _members(self, row: IndexRow) -> dict[Digest, ImageId]:
        found = {Digest(manifest): ImageId(image) for manifest, image in row.images.items()}
        return {manifest: image for manifest, image in found.items() if image in self._images}

    async def keep(
        self,
        body: bytes,
        names: Sequence[Reference] = (),
        *,
        parent: str = "",
        manifest: bytes | None = None,
        dated: bool = True,
    ) -> Image:
        """Store the image of this configuration, with the manifest it was pulled with, and point `names` at it.

        An image that exists is kept. Atomic with respect to removals. `dated` as for `set_name`.
        """
        config = read_image(body)
        documents = [digest_of(document) for document in (body, manifest) if document is not None]
        async with self.changing:
            with self._hold(*documents):
                image = await self._add(body, config, parent, manifest, lazily=bool(names))
            for name in names:
                await self.set_name(name, image.id, dated=dated)
            return self.get(image.id)

    async def keep_index(
        self,
        body: bytes,
        members: Sequence[tuple[bytes, bytes]],
        names: Sequence[Reference],
        attested: Sequence[Attested] = (),
        *,
        dated: bool = True,
    ) -> list[Image]:
        """Store images (each a configuration and a manifest of the index `body`) and point `names` at the index.

        `attested` are the attestations of these images. Platforms of the index that are already present stay.
        """
        configs = [read_image(config) for config, _ in members]
        parts = [*members, *(each.documents for each in attested)]
        documents = [digest_of(document) for part in parts for document in part]
        async with self.changing:
            with self._hold(digest_of(body), *documents):
                images = []
                digest = await self._blobs.add(body)
                before = self._index_rows.get(digest, IndexRow({}))
                here, said = self._members(before), _attested(before)
                for config, (document, manifest) in zip(configs, members, strict=True):
                    known = self._images.get(ImageId(digest_of(document)))
                    own = known is not None and known.row.manifest  # keep the manifest that it was pulled with
                    images.append(await self._add(document, config, "", None if own else manifest, lazily=True))
                    here[await self._blobs.add(manifest)] = images[-1].id
                for each in (one for one in attested if subject_of(one.manifest) in here):
                    said[each.manifest.digest] = [await self._blobs.add(document) for document in each.documents]
                await self._set_members(read_index(digest, body, here, said))
                for name in names:
                    await self.set_name(name, images[0].id, digest, dated=dated)
            return [self.get(image.id) for image in images]

    async def _add(
        self, body: bytes, config: ImageConfig, parent: str, manifest: bytes | None, *, lazily: bool
    ) -> Image:
        """Store an image; `lazily`: without a commit of its own, as its index or a name is written next."""
        id = ImageId(await self._blobs.add(body))
        manifest_digest = "" if manifest is None else await self._blobs.add(manifest)
        known = self._images.get(id)
        row = known.row if known else ImageRow(added_at=time.time(), parent=parent)
        before = row.manifest
        if manifest_digest and before != manifest_digest:
            row = msgspec.structs.replace(row, manifest=manifest_digest)
        if known is None or known.row != row:
            await self._tables.images.put(id, row, lazily=lazily)
        image = self._images[id] = Image(id, config, row)
        if before not in ("", row.manifest):
            await self._drop({Digest(before)})
        return image

    async def _set_members(self, index: ImageIndex) -> None:
        """Write which platforms of an index are present, and point its names at the best of them."""
        attested = {str(manifest): list(map(str, documents)) for manifest, documents in index.attested.items()}
        row = IndexRow({str(manifest): str(image) for manifest, image in index.images.items()}, attested)
        # urgent: must also work on a full disk, when an image is removed
        await self._tables.indexes.put(index.digest, row, urgent=True)
        self._index_rows[index.digest], self._indexes[index.digest] = row, index
        for ref in self._names_of_index(index.digest):
            await self._put_name(ref, index.preferred(self.platform), index.digest, urgent=True)

    async def delete(self, id: ImageId) -> None:
        """Delete the image, its names, and its entries in indexes. Hold `changing`."""
        documents = self.documents_of(id)
        for ref in self.names_of(id):
            await self.remove_name(ref)
        for index in self.indexes_with(id):
            await self.leave(index, id)
        await self._tables.images.delete(id)
        del self._images[id]
        await self._drop(documents)

    async def leave(self, index: ImageIndex, id: ImageId) -> None:
        """Remove an image from an index; with the last one its names are removed. Hold `changing`."""
        if (left := index.without(id)).images:
            await self._set_members(left)
            await self._drop(index.documents_of(id))
        else:
            for ref in self._names_of_index(index.digest):
                await self.remove_name(ref)

    async def _drop(self, documents: set[Digest]) -> None:
        """Remove the documents that are no longer referenced."""
        for digest in documents - self.documents():
            await self._blobs.remove(digest)

    async def attested(self, index: ImageIndex) -> dict[Digest, Attested]:
        """The attestations of an index's images, by manifests; damaged ones count as missing."""
        found = {}
        for entry in index.document.manifests:
            if entry.digest in index.attested and (read := await self._read_attested(index, entry)) is not None:
                found[entry.digest] = read
        return found

    async def _read_attested(self, index: ImageIndex, entry: Descriptor) -> Attested | None:
        try:
            return Attested(entry, tuple([await self._blobs.read(each) for each in index.attested[entry.digest]]))
        except HavreError as error:
            log.warning("the attestation %s is left out: %s", entry.digest, error)
            return None

    async def digests_of(self, id: ImageId) -> list[Reference]:
        """The digest references of an image, readable or not, by which a registry can be asked for it again."""
        names = await self._tables.names.all()
        having = {digest for digest, row in self._index_rows.items() if id in row.images.values()}
        refs = [parse_reference(name) for name, row in names.items() if row.image == id or row.index in having]
        return sorted((ref for ref in refs if ref.digest is not None), key=Reference.canonical)

    async def find_unreadable(self, text: str) -> ImageId | None:
        """The image that `load` could not read and that `text` refers to: a name, an ID or an unambiguous ID prefix."""
        if (prefix := ID_PREFIX.fullmatch(text)) is not None:
            found = [id for id in self.unreadable if id.startswith(f"sha256:{prefix.group(1)}")]
            if len(found) == 1:
                return found[0]
        try:
            wanted = exact(parse_reference(text)).canonical()
        except InvalidInput:
            return None
        row = (await self._tables.names.all()).get(wanted) if self.unreadable else None
        return ImageId(row.image) if row is not None and row.image in self.unreadable else None

    async def forget_unreadable(self, id: ImageId) -> None:
        """Delete the rows of an image that `load` could not read, and its names."""
        for name, row in (await self._tables.names.all()).items():
            if row.image == id:
                await self._tables.names.delete(name)
        await self._tables.images.delete(id)
        self.unreadable.discard(id)

    async def set_name(self, ref: Reference, id: ImageId, index: Digest | None = None, *, dated: bool = True) -> None:
        """Point `ref` (with a tag or a digest) at the image or index. Hold `changing`.

        `dated` records the time as that of the last tagging: for tags set by users, not for pulls and archives.
        """
        before = self._names.get(ref)
        if index is not None:
            id = self._indexes[index].preferred(self.platform)
        image = self.get(id)
        dated = dated and ref.tag is not None
        await self._put_name(ref, id, index, lazily=dated)
        if dated:
            row = msgspec.structs.replace(image.row, last_tagged_at=time.time())
            await self._tables.images.put(id, row)
            self._images[id] = Image(id, image.config, row)
        if before is not None:
            await self._release(before.index)

    async def _put_name(
        self, ref: Reference, id: ImageId, index: Digest | None, *, urgent: bool = False, lazily: bool = False
    ) -> None:
        row = NameRow(id, index or "")
        await self._tables.names.put(ref.canonical(), row, urgent=urgent, lazily=lazily)
        self._names[ref] = row

    async def remove_name(self, ref: Reference) -> None:
        """Remove a name. Hold `changing`."""
        await self._tables.names.delete(ref.canonical())
        row = self._names.pop(ref, None)
        if row is not None:
            await self._release(row.index)

    async def _release(self, index: str) -> None:
        """Delete an index that no name refers to."""
        digest = Digest(index)
        if digest in self._index_rows and not self._names_of_index(digest):
            row = self._index_rows.pop(digest)
            self._indexes.pop(digest, None)
            await self._tables.indexes.delete(digest)
            await self._drop({digest, *row.documents()})


def _with_sound_names(rows: Mapping[str, NameRow]) -> dict[Reference, NameRow]:
    found = {}
    for name, row in rows.items():
        try:
            found[parse_reference(name)] = row
        except InvalidInput as error:
            log.error("the name %r of image %s is left out: %s", name, row.image, error)
    return found


def _attested(row: IndexRow) -> dict[Digest, Sequence[Digest]]:
    return {Digest(manifest): list(map(Digest, documents)) for manifest, documents in row.attested.items()}
