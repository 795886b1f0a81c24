"""Request bodies into structs, as leniently as Go decodes them and as strictly as Docker does.

Docker's clients rely on what Go's JSON decoder forgives: keys in any case, `null` for a field that has a default,
fields nobody knows. `msgspec` forgives only the last. So a body is decoded to plain values, folded by a plan made once
per struct, and converted:

    bytes --msgspec--> plain --fold(plan of struct)--> plain --convert--> struct, or InvalidInput naming the field

What Docker refuses is refused: another content type, no body, a cut body, anything behind the value, numbers that do
not fit in 64 bits.

Source: moby's api/server/httputils (ReadJSON, CheckForJSON); the texts of the 400s are dockerd 26's.
"""

from __future__ import annotations

import functools
import re
import types
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from havre.errors import InvalidInput

T = TypeVar("T")

# What msgspec says of a character that cannot be where it is, in the words of Go's encoding/json.
_MISPLACED = {
    "object keys must be strings": "looking for beginning of object key string",
    "trailing comma in object": "looking for beginning of object key string",
    "trailing comma in array": "looking for beginning of value",
    "invalid character": "looking for beginning of value",
    "expected ':'": "after object key",
    "expected ',' or '}'": "after object key:value pair",
    "expected ',' or ']'": "after array element",
}

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def check_content_type(value: str) -> None:
    """Raise `InvalidInput` unless the header says JSON."""
    if not value.strip():
        raise InvalidInput(f"malformed Content-Type header ({value}): mime: no media type")
    if value.partition(";")[0].strip().lower() != "application/json":
        raise InvalidInput(f"unsupported Content-Type header ({value}): must be 'application/json'")


def decode_body(body: bytes, into: type[T]) -> T:
    """Decode a body that must be there into the struct `into`; `null` counts as an empty object."""
    if not body.strip():
        raise InvalidInput("invalid JSON: got EOF while reading request body")
    plain = _decode_plain(body)
    try:
        return msgspec.convert(_fold({} if plain is None else plain, _plan(into), "$"), into)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"invalid JSON: {_in_words(str(error))}") from error


def _decode_plain(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidInput(_malformed(str(error), body)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"invalid JSON: not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise InvalidInput("invalid JSON: nested too deeply") from error


def _malformed(reason: str, body: bytes) -> str:
    if "trailing characters" in reason:
        return "unexpected content after JSON"
    if "truncated" in reason:
        return "invalid JSON: unexpected EOF"
    found = re.fullmatch(r"JSON is malformed: (.+) \(byte (\d+)\)", reason)
    if not found or found[1] not in _MISPLACED or int(found[2]) >= len(body):
        return f"invalid JSON: {reason}"
    character = chr(body[int(found[2])])
    return f"invalid JSON: invalid character {character!r} {_MISPLACED[found[1]]} (byte {found[2]})"


def _in_words(reason: str) -> str:
    """``Expected `int`, got `str` - at `$.A.B` `` becomes ``A.B: expected int, got str``."""
    text, _, path = reason.partition(" - at ")
    text = text[:1].lower() + text[1:]
    field = path.strip("`").removeprefix("$").lstrip(".")
    return f"{field}: {text}".replace("`", "") if field else text.replace("`", "")


@dataclass(frozen=True)
class _Object:
    """How to fold a JSON object that becomes a struct: lower-cased key to true key, and the plan of each field."""

    names: dict[str, str]
    fields: dict[str, _Plan]


@dataclass(frozen=True)
class _Items:
    """How to fold the items of an array, or the values of a map."""

    item: _Plan


_Plan = _Object | _Items | None


def _plan(of: object) -> _Plan:
    """The plan of a type; None where nothing below it needs folding."""
    return _make_plan(of)


@functools.cache
def _make_plan(of: Any) -> _Plan:
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        fields = msgspec.structs.fields(of)
        return _Object(
            {field.encode_name.lower(): field.encode_name for field in fields},
            {field.encode_name: _plan(field.type) for field in fields},
        )
    if get_origin(of) in (Union, types.UnionType):
        return next((plan for plan in map(_plan, get_args(of)) if plan is not None), None)
    if get_origin(of) in (list, dict, tuple) and (item := _plan(get_args(of)[-1])) is not None:
        return _Items(item)
    return None


def _fold(value: Any, plan: _Plan, path: str) -> Any:
    if isinstance(value, dict):
        return _fold_object(value, plan, path) if isinstance(plan, _Object) else _fold_map(value, plan, path)
    if isinstance(value, list):
        inner = plan.item if isinstance(plan, _Items) else None
        return [_fold(item, inner, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        raise InvalidInput(f"invalid JSON: {path.removeprefix('$.')}: {value} does not fit in 64 bits")
    return value


def _fold_object(value: dict[str, Any], plan: _Object, path: str) -> dict[str, Any]:
    folded: dict[str, Any] = {}
    for key, item in value.items():
        name = plan.names.get(key.lower())
        if name is not None and item is not None:  # unknown fields and nulls are as good as absent
            folded[name] = _fold(item, plan.fields[name], f"{path}.{name}")
    return folded


def _fold_map(value: dict[str, Any], plan: _Plan, path: str) -> dict[str, Any]:
    inner = plan.item if isinstance(plan, _Items) else None
    return {key: _fold(item, inner, f"{path}.{key}") for key, item in value.items()}
