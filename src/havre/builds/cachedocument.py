"""The exported build cache: cache keys of steps, stored in the configuration of an image that has their layers. Pure.

    --cache-to type=inline, BUILDKIT_INLINE_CACHE=1     the image's own configuration + "havre.cache.v0": [record, ...]
    --cache-to type=registry, type=local                the same, in an image made of the steps' layers only
    --cache-from, on any engine                         records whose layers are in that image (`cacheexchange`)

A key is a digest of all inputs of a step and of the layers below (`cache`), so it means the same on every engine. The
step itself is not exported: build arguments of a stage from which only files are copied must not leak. Only the image
states that a step results in a layer, so only images that the user names are used (CVE-2024-24557).

Source: moby/buildkit cache/remotecache, for what users do with it.
Why: docs/decisions/292.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from havre.errors import InvalidInput
from havre.oci.digest import Digest
from havre.oci.image import ImageConfig, RootFs, encode_image
from havre.oci.manifest import MAX_LAYERS
from havre.oci.platform import Platform

ARGUMENT = "BUILDKIT_INLINE_CACHE"
_MEMBER = "havre.cache.v0"
_MAX_RECORDS = 4096
_KEY = re.compile(r"[0-9a-f]{64}")
_MAX_TIME = 1 << 34  # seconds since the epoch: the year 2514


class StepRecord(msgspec.Struct, frozen=True):
    """One step: its key, its layer ("" if it changed no file), and its creation in seconds since the epoch."""

    key: str
    layer: str
    created_at: float


class _Document(msgspec.Struct):
    records: list[StepRecord] = msgspec.field(default_factory=list, name=_MEMBER)


def with_records(document: bytes, records: Sequence[StepRecord]) -> bytes:
    """An image's configuration with these records added."""
    fields = msgspec.json.decode(document)
    fields[_MEMBER] = msgspec.to_builtins(records)
    return msgspec.json.encode(fields)


def cache_document(records: Sequence[StepRecord], platform: Platform) -> bytes:
    """The configuration of a cache image: the distinct layers of these steps, up to the limit of layers."""
    kept = list({record.key: record for record in records}.values())[:_MAX_RECORDS]
    layers = list(dict.fromkeys(Digest(record.layer) for record in kept if record.layer))[:MAX_LAYERS]
    image = ImageConfig(platform.architecture, platform.os, RootFs(diff_ids=tuple(layers)), variant=platform.variant)
    return with_records(encode_image(image), [each for each in kept if not each.layer or each.layer in layers])


def read_records(document: bytes, layers: Collection[Digest]) -> list[StepRecord]:
    """The records in the configuration of an image with these layers.

    Skips records of other layers or with an invalid time. Raises `InvalidInput` if the records cannot be decoded.
    """
    try:
        records = msgspec.json.decode(document, type=_Document).records
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the image's cache cannot be read: {error}") from None
    return [
        record
        for record in records[:_MAX_RECORDS]
        if _KEY.fullmatch(record.key)
        and (not record.layer or Digest(record.layer) in layers)
        and 0 <= record.created_at < _MAX_TIME
    ]
