"""Reads a damaged row field by field, so that one invalid value breaks neither a list nor the start. Pure."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def readable_fields(value: bytes, type: type[T]) -> dict[str, Any]:
    """The fields of the document `value` that are valid for `type`."""
    try:
        plain = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    found = {}
    for field in msgspec.structs.fields(type) if isinstance(plain, dict) else ():
        try:
            found[field.name] = msgspec.convert(plain[field.encode_name], field.type)
        except (KeyError, msgspec.ValidationError):
            continue
    return found
