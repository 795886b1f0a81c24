"""A name for several platforms: an index, and which of its manifests are here as which images.

name  docker.io/library/x:1 --+--> image      what the name means where no platform is asked for
                              '--> index I    a blob, byte for byte as it came
                                     manifest M1  linux/amd64  --> image C1, here
                                     manifest M2  linux/arm64  --> image C2, here
                                     manifest M3  linux/s390x  --> not here
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from havre.engine.model import ImageId
from havre.errors import InvalidInput
from havre.oci import mediatypes
from havre.oci.digest import Digest
from havre.oci.manifest import Descriptor, Index, decode_document, describe, render_manifest
from havre.oci.platform import Platform, runnable_on


class IndexRow(msgspec.Struct, frozen=True):
    """What is persisted of an index: images by the digests of their manifests. The key is the index's digest."""

    images: dict[str, str]


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An index that a name stands for. `images` are those that are here, by the digests of their manifests."""

    digest: Digest
    size: int
    document: Index
    images: Mapping[Digest, ImageId]

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


def read_index(digest: Digest, body: bytes, images: Mapping[Digest, ImageId]) -> ImageIndex:
    """The index in `body`; raises `InvalidInput` if it is none, or none of its images is here."""
    document = decode_document(body)
    if not isinstance(document, Index):
        raise InvalidInput(f"{digest} is not an index")
    here = {entry.digest: images[entry.digest] for entry in document.manifests if entry.digest in images}
    if not here:
        raise InvalidInput(f"index {digest} has no image that is here")
    return ImageIndex(digest, len(body), document, here)


def is_attestation(entry: Descriptor) -> bool:
    """Whether an index's entry is no image but what a builder says of one. Source: BuildKit, "attestation storage"."""
    return (entry.annotations or {}).get("vnd.docker.reference.type") == "attestation-manifest"


def local_manifest(config: bytes, layers: Sequence[tuple[Digest, int]]) -> bytes:
    """The manifest of an image as it lies here: OCI, with uncompressed layers (diff IDs, and sizes in bytes)."""
    described = [Descriptor(mediatypes.OCI_LAYER, diff_id, size) for diff_id, size in layers]
    return render_manifest(describe(mediatypes.OCI_CONFIG, config), described, mediatypes.OCI_MANIFEST)
