"""The images that are here, their names, and finding one by what a user typed.

    names:   docker.io/library/busybox:1            \
             docker.io/library/busybox@sha256:M      +--> image sha256:C  --> rootfs.diff_ids --> layers
             host:5000/mine:dev                     /        |  = digest of its configuration, a blob
                                                             +--> manifest M it came with, a blob

An image is its configuration: the ID is the digest of that document. Rows live in the tables `images` and
`image_names`; memory holds all of them, a change is written before it is seen. Owns no layers.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from havre.engine.model import ImageId
from havre.errors import HavreError, InvalidInput, NotFound
from havre.oci.digest import Digest, digest_of
from havre.oci.image import ImageConfig, decode_image
from havre.oci.reference import Reference, parse_reference

log = logging.getLogger(__name__)

_ID = re.compile(r"(?:sha256:)?([a-f0-9]{64})")
_PREFIX = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")

T = TypeVar("T", bound=msgspec.Struct)


class Table(Protocol[T]):
    """A document table keyed by text."""

    async def all(self) -> dict[str, T]: ...
    async def put(self, key: str, value: T) -> None: ...
    async def delete(self, key: str) -> None: ...


class BlobStore(Protocol):
    """Where configurations and manifests are kept."""

    async def add(self, data: bytes) -> Digest: ...
    async def read(self, digest: Digest) -> bytes: ...
    async def remove(self, digest: Digest) -> int: ...


class Hold(Protocol):
    """Spares digests from garbage collection while they are worked with."""

    def __call__(self, *digests: Digest) -> AbstractContextManager[object]: ...


class ImageRow(msgspec.Struct, frozen=True):
    """What is persisted of an image beside its configuration; times are seconds since the epoch, 0 for never."""

    added_at: float
    parent: str = ""
    manifest: str = ""
    last_tagged_at: float = 0.0


class NameRow(msgspec.Struct, frozen=True):
    """What a name stands for; the key is the canonical name."""

    image: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is here."""

    id: ImageId
    config: ImageConfig
    row: ImageRow

    @property
    def layers(self) -> tuple[Digest, ...]:
        """Its layers' diff IDs, base first."""
        return self.config.rootfs.diff_ids


class ImageStore:
    """Images and names, in memory and in the database.

    Whoever decides on what there is and then changes it (removing, tagging) holds `changing` meanwhile; `keep` does.
    """

    def __init__(self, blobs: BlobStore, images: Table[ImageRow], names: Table[NameRow], hold: Hold) -> None:
        self._hold = hold
        self._blobs = blobs
        self._image_table = images
        self._name_table = names
        self._images: dict[ImageId, Image] = {}
        self._names: dict[Reference, ImageId] = {}
        self.changing = asyncio.Lock()
        self.unreadable: set[ImageId] = set()

    async def load(self) -> None:
        """Read everything. An image whose configuration is damaged is reported and left out, and so are its names.

        May be called again once something was mended.
        """
        self.unreadable.clear()
        for key, row in (await self._image_table.all()).items():
            try:
                config = decode_image(await self._blobs.read(Digest(key)))
            except HavreError as error:
                log.error("image %s cannot be used: %s", key, error)
                self.unreadable.add(ImageId(key))
                continue
            self._images[ImageId(key)] = Image(ImageId(key), config, row)
        for name, row_of_name in (await self._name_table.all()).items():
            if row_of_name.image in self._images:
                self._names[parse_reference(name)] = ImageId(row_of_name.image)

    def __contains__(self, id: ImageId) -> bool:
        return id in self._images

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def get(self, id: ImageId) -> Image:
        """The image of exactly this ID; raises `NotFound`."""
        try:
            return self._images[id]
        except KeyError:
            raise NotFound(f"No such image: {id}") from None

    async def keep(
        self, body: bytes, names: Sequence[Reference] = (), *, parent: str = "", manifest: bytes | None = None
    ) -> Image:
        """Store the image of this configuration, with the manifest it came by, and let `names` stand for it.

        One that is here already is kept. No removal comes between storing and naming.
        """
        config = decode_image(body)
        documents = [digest_of(document) for document in (body, manifest) if document is not None]
        async with self.changing:
            with self._hold(*documents):
                image = await self._add(body, config, parent, manifest)
            for name in names:
                await self.set_name(name, image.id)
            return self.get(image.id)

    async def _add(self, body: bytes, config: ImageConfig, parent: str, manifest: bytes | None) -> Image:
        id = ImageId(await self._blobs.add(body))
        manifest_digest = "" if manifest is None else await self._blobs.add(manifest)
        known = self._images.get(id)
        row = known.row if known else ImageRow(added_at=time.time(), parent=parent)
        if manifest_digest and row.manifest != manifest_digest:
            row = msgspec.structs.replace(row, manifest=manifest_digest)
        if known is None or known.row != row:
            await self._image_table.put(id, row)
        image = self._images[id] = Image(id, config, row)
        return image

    async def delete(self, id: ImageId) -> None:
        """Forget the image and its names. Hold `changing`."""
        image = self.get(id)
        for ref in self.names_of(id):
            await self.remove_name(ref)
        await self._image_table.delete(id)
        del self._images[id]
        kept = {other.row.manifest for other in self._images.values()}
        await self._blobs.remove(Digest(id))
        if image.row.manifest and image.row.manifest not in kept:
            await self._blobs.remove(Digest(image.row.manifest))

    async def digests_of(self, id: ImageId) -> list[Reference]:
        """The names by digest of an image, be it readable or not: by these a registry can be asked for it again."""
        rows = await self._name_table.all()
        refs = [parse_reference(name) for name, row in rows.items() if row.image == id]
        return sorted((ref for ref in refs if ref.digest is not None), key=Reference.canonical)

    async def forget_unreadable(self, id: ImageId) -> None:
        """Forget an image that `load` could not read, and its names."""
        for name, row in (await self._name_table.all()).items():
            if row.image == id:
                await self._name_table.delete(name)
        await self._image_table.delete(id)
        self.unreadable.discard(id)

    async def set_name(self, ref: Reference, id: ImageId) -> None:
        """Let `ref` (with a tag or a digest) stand for the image, whatever it stood for before. Hold `changing`."""
        image = self.get(id)
        await self._name_table.put(ref.canonical(), NameRow(id))
        self._names[ref] = id
        if ref.tag is not None:
            row = msgspec.structs.replace(image.row, last_tagged_at=time.time())
            await self._image_table.put(id, row)
            self._images[id] = Image(id, image.config, row)

    async def remove_name(self, ref: Reference) -> None:
        """Let `ref` stand for nothing. Hold `changing`."""
        await self._name_table.delete(ref.canonical())
        self._names.pop(ref, None)

    def named(self, ref: Reference) -> ImageId | None:
        """The image that `ref` stands for; a digest counts more than a tag."""
        if ref.digest is not None:
            return self._names.get(ref.with_digest(ref.digest))
        return self._names.get(ref.with_default_tag())

    def names_of(self, id: ImageId) -> list[Reference]:
        """The names of an image, sorted as Docker lists them."""
        return sorted((ref for ref, image in self._names.items() if image == id), key=Reference.canonical)

    def names_in(self, repository: Reference) -> list[Reference]:
        """The tagged names of one repository."""
        found = (ref for ref in self._names if ref.name == repository.name and ref.tag is not None)
        return sorted(found, key=Reference.canonical)

    def children_of(self, id: ImageId) -> list[Image]:
        """The images that were made from this one, here."""
        return [image for image in self._images.values() if image.row.parent == id]

    def find(self, text: str) -> Image:
        """The image that `text` means: an ID, a name, or an unambiguous beginning of an ID.

        Raises `NotFound` in Docker's words, `InvalidInput` for what is neither.
        """
        if (exact := _ID.fullmatch(text)) is not None:
            id = ImageId(f"sha256:{exact.group(1)}")
            if id in self._images:
                return self._images[id]
            raise NotFound(f"No such image: {id}")
        ref = parse_reference(text)
        if (named := self.named(ref)) is not None:
            return self._images[named]
        if (prefix := _PREFIX.fullmatch(text)) is not None:
            found = [image for id, image in self._images.items() if id.startswith(f"sha256:{prefix.group(1)}")]
            if len(found) == 1:
                return found[0]
        raise NotFound(f"No such image: {ref.with_default_tag().familiar()}")

    def names_meant(self, text: str) -> list[Reference]:
        """The tagged names that `text` means: itself, or every one of a bare repository; none for an ID or a digest."""
        try:
            ref = parse_reference(text)
        except InvalidInput:
            return []
        if ref.digest is not None:
            return []
        return [ref] if ref in self._names else self.names_in(ref) if ref.tag is None else []

    def is_id(self, text: str, id: ImageId) -> bool:
        """Whether `text` means the image by its ID, not by a name."""
        if self.named_text(text) is not None:
            return False
        return id.startswith(text) or id.removeprefix("sha256:").startswith(text)

    def named_text(self, text: str) -> Reference | None:
        """The name in `text` if it is one that stands for an image."""
        try:
            ref = parse_reference(text).with_default_tag()
        except InvalidInput:
            return None
        ref = ref if ref.digest is None else ref.with_digest(ref.digest)
        return ref if ref in self._names else None
