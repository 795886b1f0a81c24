"""The build cache that travels in an image: what each of its steps would be found by, in the image's own document.

    build with BUILDKIT_INLINE_CACHE=1 or --cache-to type=inline      configuration + "havre.cache.v0": [record, ...]
    build with --cache-from IMAGE, on whatever engine                 records whose layers are in that image --> Cache

A key is a digest of all that a step is given and of the layers below (`cache`), so it means the same on every engine.
That a layer is what the step makes is the image's word: only images that the user names are asked (CVE-2024-24557).
Pure.

Source: moby/buildkit cache/remotecache/inline, for what users do with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from havre.errors import InvalidInput
from havre.oci.digest import Digest

ARGUMENT = "BUILDKIT_INLINE_CACHE"
_MEMBER = "havre.cache.v0"
_MAX_RECORDS = 4096
_KEY = re.compile(r"[0-9a-f]{64}")


class InlineRecord(msgspec.Struct, frozen=True):
    """One step: its key, its layer ("" when it changed no file), what it was, seconds since the epoch of its making."""

    key: str
    layer: str
    description: str
    created_at: float


class _Document(msgspec.Struct):
    records: list[InlineRecord] = msgspec.field(default_factory=list, name=_MEMBER)


def with_records(document: bytes, records: Sequence[InlineRecord]) -> bytes:
    """An image's document that also tells how its steps are found."""
    fields = msgspec.json.decode(document)
    fields[_MEMBER] = msgspec.to_builtins(records)
    return msgspec.json.encode(fields)


def read_records(document: bytes, layers: Collection[Digest]) -> list[InlineRecord]:
    """The records in the document of an image with these layers; those that name any other layer are left out."""
    try:
        records = msgspec.json.decode(document, type=_Document).records
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the image's cache cannot be read: {error}") from None
    return [
        record
        for record in records[:_MAX_RECORDS]
        if _KEY.fullmatch(record.key) and (not record.layer or Digest(record.layer) in layers)
    ]
