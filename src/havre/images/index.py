"""Names of several platforms: the index, and which of its manifests are present as which images.

    name  docker.io/library/x:1 --+--> image      the host's platform, used where none is asked for
                                  '--> index I    a blob, unchanged from the registry
                                         manifest M1  linux/amd64  --> image C1, present
                                         manifest M2  linux/arm64  --> image C2, present
                                         manifest M3  linux/s390x  --> not present
                         manifest A1  of M1        --> attestation of M1, present: stored as blobs

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
    """The row of an index, keyed by its digest: images, and blobs of attestations, by the digests of their
    manifests."""

    images: dict[str, str]
    attested: dict[str, list[str]] = {}

    def documents(self) -> set[Digest]:
        """The manifests that are present, and the blobs of their attestations."""
        return {Digest(each) for each in (*self.images, *(each for part in self.attested.values() for each in part))}


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An index that a name refers to. `images` are those present, by the digests of their manifests.

    `attested` has the blobs of each attestation that is present, its manifest last.
    """

    digest: Digest
    size: int
    document: Index
    images: Mapping[Digest, ImageId]
    attested: Mapping[Digest, Sequence[Digest]] = field(default_factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the index."""
        return Descriptor(self.document.media_type, self.digest, self.size)

    def here(self) -> Iterator[tuple[Descriptor, ImageId]]:
        """The manifests whose images are present, in the index's order."""
        for entry in self.document.manifests:
            if entry.digest in self.images:
                yield entry, self.images[entry.digest]

    def manifest_of(self, image: ImageId) -> Descriptor:
        """The manifest of an image of this index."""
        return next(entry for entry, id in self.here() if id == image)

    def attestations_of(self, manifest: Digest) -> Iterator[Descriptor]:
        """The attestations that the index lists for one of its images, present or not."""
        return (entry for entry in self.document.manifests if subject_of(entry) == manifest)

    def documents_of(self, image: ImageId) -> set[Digest]:
        """The blobs present for one image: manifests and attestations."""
        manifests = {manifest for manifest, id in self.images.items() if id == image}
        entries = [entry.digest for manifest in manifests for entry in self.attestations_of(manifest)]
        return manifests.union(*(self.attested.get(entry, ()) for entry in entries))

    def without(self, image: ImageId) -> ImageIndex:
        """The index without an image and its attestations."""
        left = {manifest: id for manifest, id in self.images.items() if id != image}
        return replace(self, images=left, attested=_of_images(self.document, left, self.attested))

    def choose(self, wanted: Platform) -> ImageId | None:
        """The best image for `wanted`, of those present."""
        for platform in runnable_on(wanted):
            for entry, id in self.here():
                if entry.platform is not None and entry.platform.same_as(platform):
                    return id
        return None

    def preferred(self, host: Platform) -> ImageId:
        """The image that the name resolves to: the host's platform, otherwise the first one present."""
        return self.choose(host) or next(id for _, id in self.here())


@dataclass(frozen=True, slots=True)
class Rewritten:
    """An index whose images have new manifests, and the attestations of these."""

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
    """`index`, whose bytes are `body`, with the present manifests of its images, and their attestations.

    Entries with neither are kept if they exist `elsewhere`. Without a change the bytes are the same.
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
    """The index in `body`. Raises `InvalidInput` if it is not an index, or none of its images is present."""
    document = decode_document(body)
    if not isinstance(document, Index):
        raise InvalidInput(f"{digest} is not an index")
    here = {entry.digest: images[entry.digest] for entry in document.manifests if entry.digest in images}
    if not here:
        raise InvalidInput(f"no image of index {digest} is present")
    return ImageIndex(digest, len(body), document, here, _of_images(document, here, attested or {}))


def _of_images(
    document: Index, images: Mapping[Digest, ImageId], attested: Mapping[Digest, Sequence[Digest]]
) -> dict[Digest, Sequence[Digest]]:
    """The attestations of these images."""
    entries = [entry for entry in document.manifests if subject_of(entry) in images]
    return {entry.digest: attested[entry.digest] for entry in entries if entry.digest in attested}


def local_manifest(config: bytes, layers: Sequence[tuple[Digest, int]]) -> bytes:
    """The OCI manifest of a stored image: uncompressed layers (diff IDs, sizes in bytes)."""
    described = [Descriptor(mediatypes.OCI_LAYER, diff_id, size) for diff_id, size in layers]
    return render_manifest(describe(mediatypes.OCI_CONFIG, config), described, mediatypes.OCI_MANIFEST)
