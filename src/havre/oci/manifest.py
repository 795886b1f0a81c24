"""Manifests and indexes: the documents that a registry serves for an image.

    index ("manifest list")          manifest                         blobs
    +--------------------------+     +---------------------------+    +---------------+
    | manifests: descriptor ---+---> | config: descriptor -------+--> | configuration |
    |   platform linux/amd64   |     | layers: descriptor, ... --+--> | layer tars    |
    +--------------------------+     +---------------------------+    +---------------+

Docker's schema 2 and OCI differ only in media types. Rejected: schema 1 (its layers are not content-addressed),
documents that are both manifest and index (CVE-2021-41190: two readers would see different images), and sizes or counts
above the limits.

Source: OCI image specification, "descriptor.md", "manifest.md", "image-index.md".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from havre.errors import InvalidInput, NotFound, Unsupported
from havre.golang import gojson
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of, parse_digest
from havre.oci.platform import Platform, runnable_on

MAX_DOCUMENT = 4 << 20
MAX_CONFIG = 8 << 20
MAX_BLOB = 1 << 42
MAX_LAYERS = 500
MAX_MANIFESTS = 1000


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A typed pointer to content: `size` in bytes, `urls` other places to fetch it from."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image: its configuration and its layers, base first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """The images of one name for several platforms."""

    media_type: str
    manifests: tuple[Descriptor, ...]


class _Document(msgspec.Struct, rename="camel"):
    """Any of the above, before its kind is known."""

    schema_version: int = 0
    media_type: str = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    fs_layers: Any = None


def decode_document(
    body: bytes, media_type: str = "", parse: Callable[[str], Digest] = parse_digest
) -> Manifest | Index:
    """Decode a manifest or index with the media type declared by a registry ("" for none).

    `parse` decides which digests are accepted. Raises `InvalidInput` for malformed or ambiguous documents and
    `Unsupported`
    for schema 1.
    """
    if len(body) > MAX_DOCUMENT:
        raise InvalidInput(f"manifest of {len(body)} bytes", f"at most {MAX_DOCUMENT} are accepted")
    document = gojson.decode(body, _Document, "invalid manifest")
    declared = media_type.partition(";")[0].strip()
    if document.schema_version == 1 or document.fs_layers is not None or declared in mediatypes.SCHEMA1:
        raise Unsupported(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported",
            "push the image again with a current client to convert it",
        )
    for entry in (document.config, *(document.layers or ()), *(document.manifests or ())):
        if entry is not None:
            parse(entry.digest)
    return _decide(document, declared)


def choose_manifest(index: Index, wanted: Platform) -> Descriptor:
    """The entry of `index` that runs best on `wanted`. Raises `NotFound` in Docker's words."""
    for platform in runnable_on(wanted):
        for entry in index.manifests:
            if entry.platform is not None and entry.platform.same_as(platform):
                return entry
    offered = sorted({str(m.platform) for m in index.manifests if m.platform and m.platform.os != "unknown"})
    raise NotFound(
        f"no matching manifest for {wanted} in the manifest list entries",
        f"the image is offered for {', '.join(offered)}" if offered else None,
    )


def render_manifest(
    config: Descriptor, layers: Sequence[Descriptor], media_type: str, annotations: Mapping[str, str] | None = None
) -> bytes:
    """Encode a manifest as dockerd does (indented by three spaces), so that digests equal those of its pushes."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config,
        "layers": list(layers),
    } | ({"annotations": dict(annotations)} if annotations else {})
    return msgspec.json.format(msgspec.json.encode(document), indent=3)


def render_index(
    manifests: Sequence[Descriptor], media_type: str, annotations: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of an index, in the form of `render_manifest`."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": list(manifests),
    } | ({"annotations": dict(annotations)} if annotations else {})
    return msgspec.json.format(msgspec.json.encode(document), indent=3)


def describe(media_type: str, content: bytes) -> Descriptor:
    """The descriptor of `content`."""
    return Descriptor(media_type, digest_of(content), len(content))


def _decide(document: _Document, declared: str) -> Manifest | Index:
    if document.manifests is not None and (document.layers is not None or document.config is not None):
        raise InvalidInput("ambiguous manifest: it has both layers and manifests")
    if declared and document.media_type and declared != document.media_type and _known(declared):
        raise InvalidInput(f"manifest declared as {declared} says it is {document.media_type}")
    said = document.media_type or declared
    if document.manifests is not None:
        if said in mediatypes.MANIFESTS:
            raise InvalidInput(f"a document of type {said} must not have manifests")
        return Index(said if _known(said) else mediatypes.OCI_INDEX, _checked(document.manifests, MAX_MANIFESTS))
    if document.config is None or document.layers is None:
        raise InvalidInput("invalid manifest: neither config and layers nor manifests")
    if said in mediatypes.INDEXES:
        raise InvalidInput(f"a document of type {said} must not have layers")
    _checked((document.config,), 1)
    media_type = said if _known(said) else mediatypes.OCI_MANIFEST
    return Manifest(media_type, document.config, _checked(document.layers, MAX_LAYERS))


def _known(media_type: str) -> bool:
    return media_type in mediatypes.MANIFESTS or media_type in mediatypes.INDEXES


def _checked(descriptors: tuple[Descriptor, ...], limit: int) -> tuple[Descriptor, ...]:
    if len(descriptors) > limit:
        raise InvalidInput(f"manifest with {len(descriptors)} entries", f"at most {limit} are accepted")
    for descriptor in descriptors:
        if not 0 <= descriptor.size <= MAX_BLOB:
            raise InvalidInput(f"invalid size {descriptor.size} of {descriptor.digest} in a manifest")
    return descriptors
