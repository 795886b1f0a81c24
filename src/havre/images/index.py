"""A name for several platforms: an index, and which of its manifests are here as which images.

name  docker.io/library/x:1 --+--> image      what the name means where no platform is asked for
                              '--> index I    a blob, byte for byte as it came
                                     manifest M1  linux/amd64  --> image C1, here
                                     manifest M2  linux/arm64  --> image C2, here
                                     manifest M3  linux/s390x  --> not here
                     manifest A1  of M1        --> what is attested of it, here: documents beside M1's

Why: docs/decisions/280.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from havre.errors import InvalidInput
from havre.oci import mediatypes
from havre.oci.attestation import Attested, restate, subject_of
from havre.oci.digest import Digest
from havre.oci.manifest import Descriptor, Index, decode_document, describe, render_index, render_manifest
from havre.oci.platform import Platform, runnable_on
from havre.wire.values import ImageId


class IndexRow(msgspec.Struct, frozen=True):
    """What is persisted of an index: images, and documents of attestations, by the digests of their manifests.

    The key is the index's digest.
    """

    images: dict[str, str]
    attested: dict[str, list[str]] = {}

    def documents(self) -> set[Digest]:
        """The manifests that are here, and what attestations consist of."""
        return {Digest(each) for each in (*self.images, *(each for part in self.attested.values() for each in part))}


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An index that a name stands for. `images` are those that are here, by the digests of their manifests.

    `attested` has the documents of the attestations of these that are here, the manifest's own last.
    """

    digest: Digest
    size: int
    document: Index
    images: Mapping[Digest, ImageId]
    attested: Mapping[Digest, Sequence[Digest]] = field(default_factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        """The index as something to point at."""
        return Descriptor(self.document.media_type, self.digest, self.size)

    def here(self) -> Iterator[tuple[Descriptor, ImageId]]:
        """The manifests whose images are here, in the index's order."""
        for entry in self.document.manifests:
            if entry.digest in self.images:
                yield entry, self.images[entry.digest]

    def manifest_of(self, image: ImageId) -> Descriptor:
        """The manifest by which an image belongs to the index."""
        return next(entry for entry, id in self.here() if id == image)

    def attestations_of(self, manifest: Digest) -> Iterator[Descriptor]:
        """The index's entries for what is attested of one of its images, here or not."""
        return (entry for entry in self.document.manifests if subject_of(entry) == manifest)

    def documents_of(self, image: ImageId) -> set[Digest]:
        """The documents that are here for one image: manifests and attestations."""
        manifests = {manifest for manifest, id in self.images.items() if id == image}
        entries = [entry.digest for manifest in manifests for entry in self.attestations_of(manifest)]
        return manifests.union(*(self.attested.get(entry, ()) for entry in entries))

    def without(self, image: ImageId) -> ImageIndex:
        """The index once an image, and with it its attestations, are here no more."""
        left = {manifest: id for manifest, id in self.images.items() if id != image}
        return replace(self, images=left, attested=_of_images(self.document, left, self.attested))

    def choose(self, wanted: Platform) -> ImageId | None:
        """The image that runs best on `wanted`, of those that are here."""
        for platform in runnable_on(wanted):
            for entry, id in self.here():
                if entry.platform is not None and entry.platform.same_as(platform):
                    return id
        return None

    def preferred(self, host: Platform) -> ImageId:
        """What the name means: the host's platform, else the first that is here."""
        return self.choose(host) or next(id for _, id in self.here())


@dataclass(frozen=True, slots=True)
class Rewritten:
    """An index whose images have other manifests now, and what is attested of these."""

    entries: Sequence[Descriptor]
    body: bytes
    attested: Sequence[Attested]


def rewrite_index(
    index: Index,
    body: bytes,
    moved: Mapping[Digest, Descriptor],
    attested: Mapping[Digest, Attested],
    *,
    elsewhere: bool = True,
) -> Rewritten:
    """`index`, whose bytes are `body`, with its images' manifests as they are by now, and attestations of these.

    Entries of neither stay, if they are to be had `elsewhere`. The bytes are the same if nothing has changed.
    """
    entries, restated = [], []
    for entry in index.manifests:
        now, statements = moved.get(entry.digest), attested.get(entry.digest)
        subject = moved.get(subject_of(entry) or entry.digest)
        if now is not None:
            entries.append(msgspec.structs.replace(entry, media_type=now.media_type, digest=now.digest, size=now.size))
        elif statements is not None and subject is not None:
            if (said := restate(statements, subject.digest)) is not None:
                restated.append(said)
                entries.append(said.manifest)
        elif elsewhere:
            entries.append(entry)
    unchanged = entries == list(index.manifests)
    return Rewritten(entries, body if unchanged else render_index(entries, index.media_type), restated)


def read_index(
    digest: Digest,
    body: bytes,
    images: Mapping[Digest, ImageId],
    attested: Mapping[Digest, Sequence[Digest]] | None = None,
) -> ImageIndex:
    """The index in `body`; raises `InvalidInput` if it is none, or none of its images is here."""
    document = decode_document(body)
    if not isinstance(document, Index):
        raise InvalidInput(f"{digest} is not an index")
    here = {entry.digest: images[entry.digest] for entry in document.manifests if entry.digest in images}
    if not here:
        raise InvalidInput(f"index {digest} has no image that is here")
    return ImageIndex(digest, len(body), document, here, _of_images(document, here, attested or {}))


def _of_images(
    document: Index, images: Mapping[Digest, ImageId], attested: Mapping[Digest, Sequence[Digest]]
) -> dict[Digest, Sequence[Digest]]:
    """Of attestations, those of the images."""
    entries = [entry for entry in document.manifests if subject_of(entry) in images]
    return {entry.digest: attested[entry.digest] for entry in entries if entry.digest in attested}


def local_manifest(config: bytes, layers: Sequence[tuple[Digest, int]]) -> bytes:
    """The manifest of an image as it lies here: OCI, with uncompressed layers (diff IDs, and sizes in bytes)."""
    described = [Descriptor(mediatypes.OCI_LAYER, diff_id, size) for diff_id, size in layers]
    return render_manifest(describe(mediatypes.OCI_CONFIG, config), described, mediatypes.OCI_MANIFEST)
