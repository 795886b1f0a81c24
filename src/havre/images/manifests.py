"""The manifests of a name, as `manifests=1` shows them: platforms, which are present, containers using them. Pure.

The content size of an image is that of its manifest and configuration; compressed layers are not kept.

Source: Docker Engine API 1.48, "ImageManifestSummary".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from havre.images.catalog import Image
from havre.images.index import ImageIndex
from havre.oci.attestation import subject_of
from havre.oci.digest import Digest
from havre.oci.manifest import Descriptor
from havre.oci.platform import Platform
from havre.wire.images import Identity
from havre.wire.values import ImageId, Value


class ContentSize(Value):
    """Bytes of documents, and of documents and layers together."""

    content: int
    total: int


class UnpackedSize(Value):
    """Bytes of layers."""

    unpacked: int


class ImageData(Value):
    """Details of an image manifest; `containers` are the IDs of its containers, the identity only where asked for."""

    platform: Platform
    containers: list[str]
    size: UnpackedSize
    identity: Identity | UnsetType = UNSET


class AttestationData(Value):
    """The manifest that the attestations describe."""

    subject: Digest = msgspec.field(name="For")


class ManifestSummary(Value, omit_defaults=True):
    """One manifest; `kind` is image, attestation or unknown."""

    id: Digest = msgspec.field(name="ID")
    descriptor: Descriptor
    available: bool
    size: ContentSize
    kind: str
    image_data: ImageData | None = None
    attestation_data: AttestationData | None = None


class Facts(msgspec.Struct, frozen=True):
    """Lookups for a summary: images, sizes in bytes of layers and documents, containers and origin of an image."""

    find: Callable[[ImageId], Image]
    layer_size: Callable[[Digest], int]
    document_size: Callable[[Digest], int]
    users: Callable[[ImageId], Sequence[str]]
    identity: Callable[[ImageId], Identity | UnsetType]


def summarize_index(index: ImageIndex, facts: Facts) -> list[ManifestSummary]:
    """The manifests of an index, in its order."""
    return [_summarize(entry, index, facts) for entry in index.document.manifests]


def _summarize(entry: Descriptor, index: ImageIndex, facts: Facts) -> ManifestSummary:
    if entry.digest in index.images:
        return summarize_image(entry, facts.find(index.images[entry.digest]), facts)
    missing = ManifestSummary(entry.digest, entry, False, ContentSize(0, 0), "unknown")
    if (subject := subject_of(entry)) is not None:
        documents = index.attested.get(entry.digest, ())
        content = sum(map(facts.document_size, documents))
        return msgspec.structs.replace(
            missing,
            available=bool(documents),
            size=ContentSize(content, content),
            kind="attestation",
            attestation_data=AttestationData(subject),
        )
    if entry.platform is None or entry.platform.os == "unknown":
        return missing
    return msgspec.structs.replace(missing, kind="image", image_data=ImageData(entry.platform, [], UnpackedSize(0)))


def summarize_image(manifest: Descriptor, image: Image, facts: Facts) -> ManifestSummary:
    """The summary of a manifest whose image is present."""
    content = manifest.size + facts.document_size(Digest(image.id))
    unpacked = sum(map(facts.layer_size, image.layers))
    data = ImageData(
        platform=manifest.platform or image.config.platform,
        containers=list(facts.users(image.id)),
        size=UnpackedSize(unpacked=unpacked),
        identity=facts.identity(image.id),
    )
    size = ContentSize(content, content + unpacked)
    return ManifestSummary(manifest.digest, manifest, True, size, "image", image_data=data)
