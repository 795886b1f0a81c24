"""JSON that strangers wrote: decoded to what it should be, or refused in words."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from havre.errors import InvalidInput

T = TypeVar("T")


def decode_foreign(body: bytes, type: type[T], what: str) -> T:
    """`body` as a `type`; raises `InvalidInput` with `what` it should have been."""
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"invalid {what}: {error}") from error
