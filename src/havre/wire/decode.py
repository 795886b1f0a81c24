"""Decodes request bodies into structs, as leniently as Go does (`gojson`), with dockerd's checks.

dockerd rejects other content types, a missing or truncated body, and data after the value.

Source: moby's api/server/httputils (ReadJSON, CheckForJSON); the texts of the 400s are dockerd 26's.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, TypeVar

from havre.errors import InvalidInput
from havre.golang import gojson

T = TypeVar("T")


def is_json(content_type: str) -> bool:
    """Report whether this content type is JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def check_content_type(value: str) -> None:
    """Raise `InvalidInput` unless the header says JSON."""
    if not value.strip():
        raise InvalidInput(f"malformed Content-Type header ({value}): mime: no media type")
    if not is_json(value):
        raise InvalidInput(f"unsupported Content-Type header ({value}): must be 'application/json'")


def decode_body(body: bytes, into: type[T]) -> T:
    """Decode a required body into the struct `into`; `null` counts as an empty object."""
    if not body.strip():
        raise InvalidInput("invalid JSON: got EOF while reading request body")
    plain = gojson.decode_plain(body)
    if b"\\u0000" in body:  # JSON can express a NUL only in this way
        _refuse_nul(plain, "", gojson.MAX_DEPTH)
    return gojson.convert(plain, into)


def refuse_repeated(body: bytes) -> None:
    """Raise InvalidInput for an object with a repeated key. Parsers differ: ours uses the last value, Go's
    encoding/json
    merges it into the first.
    """
    gojson.decode_plain(body)  # rejects invalid JSON with its own message
    try:
        json.loads(body, object_pairs_hook=_make_object, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"invalid JSON: {error}") from error


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise InvalidInput(f"invalid JSON: an object has the key {key!r} more than once", "leave one of them")
        made[key] = value
    return made


def _refuse_nul(value: Any, path: str, depth: int) -> None:
    """Reject NUL characters in values for the kernel, where they would end the string. Labels are exempt."""
    if depth == 0 and isinstance(value, list | dict):
        raise InvalidInput("invalid JSON: nested too deeply")
    if isinstance(value, str) and "\0" in value:
        raise InvalidInput(f"{path}: it contains a NUL character", "remove it")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_nul(item, f"{path}[{index}]", depth - 1)
    if isinstance(value, dict):
        for key, item in value.items():
            if "\0" in key:
                raise InvalidInput(f"{path}: {key!r} contains a NUL character", "remove it")
            if key.lower() not in ("labels", "annotations"):
                _refuse_nul(item, f"{path}.{key}" if path else key, depth - 1)


def decode_header(text: str, into: type[T]) -> T | None:
    """Decode base64url JSON, as in headers with credentials; like dockerd, invalid data counts as absent."""
    try:
        body = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return gojson.decode(body, into) if body else None
    except (binascii.Error, ValueError, InvalidInput):
        return None
