"""The stored images and their names, and how a user's input is resolved.

    names:   docker.io/library/busybox:1            \
             docker.io/library/busybox@sha256:M      +--> image sha256:C  --> rootfs.diff_ids --> layers
             host:5000/mine:dev                     /        |  = digest of its configuration, a blob
                                                             +--> the manifest M it was pulled with, a blob

An image is its configuration: the ID is the digest of that document. A name may refer to several images, one for
each platform of an index (`index`). Rows are in the tables `images`, `image_indexes` and `image_names` and are all
held in memory; a change is written before it becomes visible. Layers belong to `storage`.

Why: docs/decisions/020.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from havre.errors import HavreError, InvalidInput, NotFound
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

_ID = re.compile(r"(?:sha256:)?([a-f0-9]{64})")
_PREFIX = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")

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


class ImageRow(msgspec.Struct, frozen=True):
    """The row of an image beside its configuration; times are seconds since the epoch, 0 for never."""

    added_at: float
    parent: str = ""
    manifest: str = ""
    last_tagged_at: float = 0.0


class NameRow(msgspec.Struct, frozen=True):
    """The image of a name, and the digest of the index it belongs to; the key is the canonical name."""

    image: str
    index: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A stored image."""

    id: ImageId
    config: ImageConfig
    row: ImageRow

    @property
    def layers(self) -> tuple[Digest, ...]:
        """The diff IDs of its layers, base first."""
        return self.config.rootfs.diff_ids


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of the store."""

    images: Table[ImageRow]
    names: Table[NameRow]
    indexes: Table[IndexRow]


class ImageStore:
    """Images and names, in memory and in the database. `platform` is the host's.

    Hold `changing` while deciding on and making a change (remove, tag). `keep` and `keep_index` take it themselves.
    """

    def __init__(self, blobs: BlobStore, tables: Tables, hold: Hold, platform: Platform) -> None:
        self._hold = hold
        self._blobs = blobs
        self._tables = tables
        self.platform = platform
        self._images: dict[ImageId, Image] = {}
        self._names: dict[Reference, NameRow] = {}
        self._indexes: dict[Digest, ImageIndex] = {}
        self._index_rows: dict[Digest, IndexRow] = {}
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

    def __contains__(self, id: ImageId) -> bool:
        return id in self._images

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def get(self, id: ImageId) -> Image:
        """The image with exactly this ID. Raises `NotFound`."""
        try:
            return self._images[id]
        except KeyError:
            raise NotFound(f"No such image: {id}") from None

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

    def documents(self) -> set[Digest]:
        """The blobs that images and indexes refer to."""
        manifests = {Digest(image.row.manifest) for image in self._images.values() if image.row.manifest}
        members = set[Digest]().union(*(row.documents() for row in self._index_rows.values()))
        return {Digest(id) for id in self._images} | manifests | members | self._index_rows.keys()

    def documents_of(self, id: ImageId) -> set[Digest]:
        """The blobs of one image: configuration, manifests, and the indexes it belongs to."""
        found = {Digest(id)}
        if id in self._images and self._images[id].row.manifest:
            found.add(Digest(self._images[id].row.manifest))
        for digest, row in self._index_rows.items():
            manifests = {Digest(manifest) for manifest, image in row.images.items() if image == id}
            found |= {digest, *manifests} if manifests else set()
        return found.union(*(index.documents_of(id) for index in self.indexes_with(id)))

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
        if (prefix := _PREFIX.fullmatch(text)) is not None:
            found = [id for id in self.unreadable if id.startswith(f"sha256:{prefix.group(1)}")]
            if len(found) == 1:
                return found[0]
        try:
            wanted = _exact(parse_reference(text)).canonical()
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

    def named(self, ref: Reference) -> ImageId | None:
        """The image that `ref` refers to; a digest takes precedence over a tag."""
        row = self._names.get(_exact(ref))
        return ImageId(row.image) if row is not None else None

    def index(self, digest: Digest) -> ImageIndex | None:
        """The index with this digest, if a name refers to it."""
        return self._indexes.get(digest)

    def index_of(self, ref: Reference) -> ImageIndex | None:
        """The index that `ref` refers to, if any."""
        row = self._names.get(_exact(ref))
        return self._indexes.get(Digest(row.index)) if row is not None else None

    def all_of(self, ref: Reference) -> list[Image]:
        """The images that a name refers to, the one it resolves to first; empty for an unknown name."""
        id, index = self.named(ref), self.index_of(ref)
        if id is None:
            return []
        ids = dict.fromkeys([id, *(index.images.values() if index is not None else ())])
        return [self._images[each] for each in ids]

    def names_of(self, id: ImageId) -> list[Reference]:
        """The names that resolve to an image where no platform is asked for, sorted as Docker lists them."""
        return sorted((ref for ref, row in self._names.items() if row.image == id), key=Reference.canonical)

    def names_with(self, id: ImageId) -> list[Reference]:
        """The names that refer to an image, alone or as one of their platforms."""
        having = {index.digest for index in self.indexes_with(id)}
        found = (ref for ref, row in self._names.items() if row.image == id or row.index in having)
        return sorted(found, key=Reference.canonical)

    def siblings_of(self, id: ImageId) -> list[Image]:
        """The other platforms of the names that resolve to an image."""
        digests = {Digest(self._names[ref].index) for ref in self.names_of(id)}
        indexes = [self._indexes[digest] for digest in digests if digest in self._indexes]
        ids = dict.fromkeys(image for index in indexes for image in index.images.values() if image != id)
        return [self._images[image] for image in ids]

    def is_sibling(self, image: Image) -> bool:
        """Report whether an image has no tag of its own, but is a platform of a tag that resolves to another image."""
        own = any(ref.tag is not None for ref in self.names_of(image.id))
        return not own and any(ref.tag is not None for ref in self.names_with(image.id))

    def layers_of(self, image: Image) -> list[Digest]:
        """The layers of an image and of the other platforms of its names."""
        siblings = self.siblings_of(image.id)
        more = dict.fromkeys(layer for sibling in siblings for layer in sibling.layers if layer not in image.layers)
        return [*image.layers, *more]

    def _names_of_index(self, digest: Digest) -> list[Reference]:
        return [ref for ref, row in self._names.items() if row.index == digest]

    def indexes_with(self, id: ImageId) -> list[ImageIndex]:
        """The indexes that an image belongs to."""
        return [index for index in self._indexes.values() if id in index.images.values()]

    def names_in(self, repository: Reference) -> list[Reference]:
        """The tagged names of one repository."""
        found = (ref for ref in self._names if ref.name == repository.name and ref.tag is not None)
        return sorted(found, key=Reference.canonical)

    def made_from(self, ids: Collection[ImageId]) -> list[ImageId]:
        """These images and those committed or built from them, recognized by layers and history that extend a
        base's."""
        bases = [self._images[id] for id in ids]
        return [image.id for image in self if image.id in ids or any(_is_made_from(image, base) for base in bases)]

    def children_of(self, id: ImageId) -> list[Image]:
        """The images whose parent is this one."""
        return [image for image in self._images.values() if image.row.parent == id]

    def find(self, text: str, platform: Platform | None = None) -> Image:
        """The image that `text` refers to: a name, an ID or an unambiguous ID prefix; for `platform`, if given.

        Raises `NotFound` with dockerd's messages, `InvalidInput` if it is neither.
        """
        if (exact := _ID.fullmatch(text)) is not None:
            id = ImageId(f"sha256:{exact.group(1)}")
            if id in self._images:
                return _of_platform(text, [self._images[id]], platform)
            manifest = next((ref for ref in self._names if ref.digest == Digest(id)), None)
            # buildx since 0.30 prints the manifest's digest of an image that it pushed through us
            if manifest is not None:
                return self.find_named(manifest, platform)
            raise NotFound(f"No such image: {id}")
        ref = parse_reference(text)
        if self.named(ref) is not None:
            return self.find_named(ref, platform)
        if (prefix := _PREFIX.fullmatch(text)) is not None:
            found = [image for id, image in self._images.items() if id.startswith(f"sha256:{prefix.group(1)}")]
            if len(found) == 1:
                return _of_platform(text, found, platform)
        raise NotFound(f"No such image: {ref.with_default_tag().familiar()}")

    def find_named(self, ref: Reference, platform: Platform | None = None) -> Image:
        """The image of a name, for `platform` if given. Raises `NotFound`."""
        index, id = self.index_of(ref), self.named(ref)
        if id is None:
            raise NotFound(f"No such image: {ref.with_default_tag().familiar()}")
        if index is None or platform is None:
            return _of_platform(ref.familiar(), [self._images[id]], platform)
        if (chosen := index.choose(platform)) is not None:
            return self._images[chosen]
        return _of_platform(ref.familiar(), [self._images[id] for id in index.images.values()], platform)

    def names_meant(self, text: str) -> list[Reference]:
        """The tagged names that `text` refers to: itself, or all of a bare repository; none for an ID or a digest."""
        try:
            ref = parse_reference(text)
        except InvalidInput:
            return []
        if ref.digest is not None:
            return []
        return [ref] if ref in self._names else self.names_in(ref) if ref.tag is None else []

    def is_id(self, text: str, id: ImageId) -> bool:
        """Report whether `text` refers to the image by ID, not by name."""
        if self.named_text(text) is not None:
            return False
        return id.startswith(text) or id.removeprefix("sha256:").startswith(text)

    def named_text(self, text: str) -> Reference | None:
        """The name in `text`, if it exists."""
        try:
            ref = parse_reference(text).with_default_tag()
        except InvalidInput:
            return None
        ref = _exact(ref)
        return ref if ref in self._names else None


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


def _exact(ref: Reference) -> Reference:
    """The key of a name: a digest takes precedence over a tag; the default tag is `latest`."""
    return ref.with_default_tag() if ref.digest is None else ref.with_digest(ref.digest)


def _of_platform(text: str, images: Sequence[Image], wanted: Platform | None) -> Image:
    """The image for the platform wanted, otherwise the first; raises `NotFound` with dockerd's message."""
    for image in images:
        if wanted is None or image.config.platform.same_as(wanted):
            return image
    actual = ", ".join(str(image.config.platform) for image in images)
    raise NotFound(
        f"image with reference {text} was found but does not match the specified platform: "
        f"wanted {wanted}, actual: {actual}"
    )


def _is_made_from(image: Image, base: Image) -> bool:
    """Report whether the image extends the base. An image that only sets a variable has a longer history only."""
    layers, before = image.layers, base.layers
    steps, earlier = image.config.history or (), base.config.history or ()
    is_longer = len(layers) > len(before) or len(steps) > len(earlier)
    return bool(before) and is_longer and layers[: len(before)] == before and steps[: len(earlier)] == earlier
