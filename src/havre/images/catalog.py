"""The images and names in memory, and how a user's input is resolved to them. Pure: `store` reads and writes.

    names:   docker.io/library/busybox:1            \
             docker.io/library/busybox@sha256:M      +--> image sha256:C  --> rootfs.diff_ids --> layers
             host:5000/mine:dev                     /        |  = digest of its configuration, a blob
                                                             +--> the manifest M it was pulled with, a blob

An image is its configuration: the ID is the digest of that document. A name may refer to several images, one for
each platform of an index (`index`). Layers belong to `storage`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from havre.errors import InvalidInput, NotFound
from havre.images.index import ImageIndex, IndexRow
from havre.oci.digest import Digest
from havre.oci.image import ImageConfig
from havre.oci.platform import Platform
from havre.oci.reference import Reference, parse_reference
from havre.wire.values import ImageId

_ID = re.compile(r"(?:sha256:)?([a-f0-9]{64})")
ID_PREFIX = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")


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


class Catalog:
    """Finds images by what users write, and names by images. `platform` is the host's."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._images: dict[ImageId, Image] = {}
        self._names: dict[Reference, NameRow] = {}
        self._indexes: dict[Digest, ImageIndex] = {}
        self._index_rows: dict[Digest, IndexRow] = {}

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

    def named(self, ref: Reference) -> ImageId | None:
        """The image that `ref` refers to; a digest takes precedence over a tag."""
        row = self._names.get(exact(ref))
        return ImageId(row.image) if row is not None else None

    def index(self, digest: Digest) -> ImageIndex | None:
        """The index with this digest, if a name refers to it."""
        return self._indexes.get(digest)

    def index_of(self, ref: Reference) -> ImageIndex | None:
        """The index that `ref` refers to, if any."""
        row = self._names.get(exact(ref))
        return self._indexes.get(Digest(row.index)) if row is not None else None

    def all_of(self, ref: Reference) -> list[Image]:
        """The images that a name refers to, the one it resolves to first; empty for an unknown name."""
        id, index = self.named(ref), self.index_of(ref)
        if id is None:
            return []
        ids = dict.fromkeys([id, *(index.images.values() if index is not None else ())])
        return [self._images[each] for each in ids]

    def platforms_of(self, text: str) -> list[ImageId]:
        """The IDs of all images that `text` refers to, the one it resolves to first. Raises as `find`."""
        ref = self.named_text(text)
        return [image.id for image in (self.all_of(ref) if ref is not None else [self.find(text)])]

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
        if (prefix := ID_PREFIX.fullmatch(text)) is not None:
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

    def find_for(self, text: str, platform: Platform) -> Image:
        """As `find`, where an image that is not one of several platforms is found for any."""
        image = self.find(text)
        return self.find(text, platform) if self.indexes_with(image.id) else image

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
        ref = exact(ref)
        return ref if ref in self._names else None


def exact(ref: Reference) -> Reference:
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
