"""JSON that strangers wrote: decoded to what it should be, or refused in words."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from havre.errors import InvalidInput

T = TypeVar("T")


def decode_foreign(body: bytes, type: type[T], what: str) -> T:
    """`body` as a `type`; raises `InvalidInput` with `what` it should have been. A null member is as good as absent."""
    try:
        try:
            return msgspec.json.decode(body, type=type)
        except msgspec.ValidationError:
            return msgspec.convert(_without_nulls(msgspec.json.decode(body)), type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"invalid {what}: {error}") from error


def _without_nulls(value: Any) -> Any:
    """Go writes null for an empty list, and reads it as one."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
