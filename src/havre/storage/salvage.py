"""Reads a damaged row field by field, so that one invalid value breaks neither a list nor the start. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def readable_fields(value: bytes, type: type[T]) -> dict[str, Any]:
    """The fields of the document `value` that are valid for `type`."""
    return valid_fields(readable_document(value), type)


def readable_document(value: bytes) -> dict[str, Any]:
    """The JSON object `value`, {} if it is none."""
    try:
        plain = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def valid_fields(document: Mapping[str, Any], type: type[T]) -> dict[str, Any]:
    """The fields of `document` that are valid for `type`."""
    found = {}
    for field in msgspec.structs.fields(type):
        try:
            found[field.name] = msgspec.convert(document[field.encode_name], field.type)
        except (KeyError, msgspec.ValidationError):
            continue
    return found
