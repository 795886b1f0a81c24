"""The attestations of a stored image, as `GET /images/NAME/attestations` shows them.

Source: Docker Engine API 1.55, "ImageAttestations"; moby/buildkit docs/attestations/attestation-storage.md.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec import UNSET, UnsetType

from havre.errors import Failed, HavreError
from havre.images.catalog import Image
from havre.images.index import ImageIndex
from havre.images.store import BlobStore, ImageStore
from havre.oci.attestation import predicate_type_of
from havre.oci.digest import Digest
from havre.oci.manifest import Descriptor, Manifest, decode_document
from havre.wire.values import Value


class AttestationStatement(Value):
    """One in-toto statement; its JSON only where asked for."""

    descriptor: Descriptor
    predicate_type: str
    statement: msgspec.Raw | UnsetType = UNSET


async def read_statements(
    image: Image, store: ImageStore, blobs: BlobStore, types: Collection[str] = (), *, whole: bool = False
) -> list[AttestationStatement]:
    """What is attested of an image, of these `types` of predicates or of all; `whole`: with the statements' JSON.

    `Failed` if a document is damaged.
    """
    found = []
    for index in store.indexes_with(image.id):
        for digest in _manifests(index, image):
            for layer in await _read_layers(blobs, digest):
                type = predicate_type_of(layer)
                if type and (not types or type in types):
                    body = msgspec.Raw(await _read(blobs, layer.digest)) if whole else UNSET
                    found.append(AttestationStatement(descriptor=layer, predicate_type=type, statement=body))
        if found:
            break  # another name's index says the same of the same manifest
    return found


def _manifests(index: ImageIndex, image: Image) -> list[Digest]:
    """The manifests of an image's attestations that are present."""
    manifest = index.manifest_of(image.id)
    entries = index.attestations_of(manifest.digest)
    return [entry.digest for entry in entries if entry.digest in index.attested]


async def _read_layers(blobs: BlobStore, digest: Digest) -> tuple[Descriptor, ...]:
    document = decode_document(await _read(blobs, digest))
    return document.layers if isinstance(document, Manifest) else ()


async def _read(blobs: BlobStore, digest: Digest) -> bytes:
    try:
        return await blobs.read(digest)
    except HavreError as error:
        raise Failed(f"failed to read attestation statement {digest}: {error}", error.hint) from error
