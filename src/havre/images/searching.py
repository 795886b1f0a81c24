"""Queries to registries: search for repositories, and describe the image of a name.

Pure, except for `describe_remote`. Source: Docker Engine API, "ImageSearch", "DistributionInspect".
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from havre.errors import InvalidInput
from havre.oci.digest import Digest
from havre.oci.image import decode_image
from havre.oci.manifest import MAX_CONFIG, Index, decode_document
from havre.oci.platform import Platform
from havre.oci.reference import Reference
from havre.registry import Auth, FoundRepository, Registry
from havre.wire.filters import Filters, boolean, check_keys
from havre.wire.values import Value

DEFAULT_LIMIT = 25
MAX_LIMIT = 100
_FILTERS = frozenset({"is-automated", "is-official", "stars"})


class RemoteDescriptor(msgspec.Struct, frozen=True, rename="camel"):
    """The descriptor of a name; `size` is of the manifest or index, in bytes."""

    media_type: str
    digest: Digest
    size: int


class RemoteImage(Value):
    """An image as its registry describes it, with its platforms."""

    descriptor: RemoteDescriptor
    platforms: list[Platform]


def check_limit(limit: int | None) -> int:
    """The number of results wanted. Raises `InvalidInput` with dockerd's message."""
    wanted = limit or DEFAULT_LIMIT
    if not 1 <= wanted <= MAX_LIMIT:
        raise InvalidInput(f"limit {wanted} is outside the range of [1, {MAX_LIMIT}]")
    return wanted


def select_found(found: Sequence[FoundRepository], filters: Filters) -> list[FoundRepository]:
    """The results that match the filters `is-official`, `is-automated` and `stars` (at least that many)."""
    check_keys(filters, _FILTERS)
    official, automated = boolean(filters, "is-official"), boolean(filters, "is-automated")
    stars = max((_stars(text) for text in filters.get("stars", ())), default=0)
    return [
        one
        for one in found
        if official in (None, one.is_official) and automated in (None, one.is_automated) and one.star_count >= stars
    ]


def _stars(text: str) -> int:
    if not text.isdecimal():
        raise InvalidInput(f"invalid filter 'stars={text}'", "expected a number")
    return int(text)


async def describe_remote(registry: Registry, ref: Reference, auth: Auth | None) -> RemoteImage:
    """Ask the registry of `ref`; fetches documents only."""
    fetched = await registry.manifest(ref, auth)
    document = decode_document(fetched.body, fetched.media_type)
    if isinstance(document, Index):
        platforms = [entry.platform for entry in document.manifests if entry.platform is not None]
    else:
        platforms = [decode_image(await registry.document(ref, document.config, auth, MAX_CONFIG)).platform]
    return RemoteImage(
        descriptor=RemoteDescriptor(document.media_type, fetched.digest, len(fetched.body)), platforms=platforms
    )
