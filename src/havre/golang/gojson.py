"""Decodes JSON into structs as leniently as Go's encoding/json: what Docker's clients, plugins and registries send.

They depend on Go's leniency: keys in any case, `null` for a zero value, unknown fields. `msgspec` accepts only the
last. So a document is decoded to plain values, normalised (folded) by a plan made once per type, and converted:

    bytes --msgspec--> plain --fold(plan of the type)--> plain --convert--> value, or InvalidInput naming the field

    key of a struct     in any case, by Unicode case folding; null means absent
    item of a list      null is the item's zero value, and so in maps; unless the type allows None
    `Words`             a string is a list of one (moby's strslice)

Refused with a clear message: malformed documents, text after the value, numbers beyond 64 bits, nesting so deep that an
encoder would hit the recursion limit, and a field given twice in different cases: in Go the second overrides the first,
and another reader of the document (an authorization plugin, a scanner) could see a different value.

Source: Go's documentation of encoding/json, "Unmarshal"; moby's api/types/strslice.
Why: docs/decisions/365.
"""

from __future__ import annotations

import functools
import re
import types
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec

from havre.errors import InvalidInput

T = TypeVar("T")

Words: TypeAlias = Annotated[list[str], msgspec.Meta(extra={"words": True})]
"""A list of strings that may be written as a single string."""

_NO_JSON = "invalid JSON"
Unsigned: TypeAlias = Annotated[int, msgspec.Meta(extra={"unsigned": True})]
"""An unsigned number of 64 bits."""

MAX_DEPTH = 200  # nesting of values of unknown shape; encoders are bound by the interpreter's recursion limit

# msgspec's messages for an unexpected character, and those of Go's encoding/json.
_MISPLACED = {
    "object keys must be strings": "looking for beginning of object key string",
    "trailing comma in object": "looking for beginning of object key string",
    "trailing comma in array": "looking for beginning of value",
    "invalid character": "looking for beginning of value",
    "expected ':'": "after object key",
    "expected ',' or '}'": "after object key:value pair",
    "expected ',' or ']'": "after array element",
}

_PLAIN = (str, bool)  # types that need no conversion

_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1


def decode(document: bytes | str, into: type[T], what: str = _NO_JSON) -> T:
    """The document as `into` (a type, or any annotation that msgspec supports); `null` counts as an empty object.

    Raises `InvalidInput` with a message that begins with `what`.
    """
    return convert(decode_plain(document, what), into, what)


def convert(plain: Any, into: type[T], what: str = _NO_JSON) -> T:
    """A plain value as `into`. Raises `InvalidInput`; the message begins with `what` and names the field."""
    try:
        return msgspec.convert(_fold({} if plain is None else plain, _plan(into), MAX_DEPTH), into)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{what}: {_in_words(str(error))}") from error
    except _Unfit as error:
        raise InvalidInput(f"{what}: {error.in_words()}") from error


def decode_plain(document: bytes | str, what: str = _NO_JSON) -> Any:
    """The document as dicts, lists and scalars, not folded. Raises `InvalidInput`; its message begins with `what`."""
    try:
        return msgspec.json.decode(document)
    except msgspec.DecodeError as error:
        raise InvalidInput(_malformed(what, str(error), document)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what}: not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:  # a lone surrogate in a `str`
        raise InvalidInput(f"{what}: not Unicode at character {error.start}") from error
    except RecursionError as error:
        raise InvalidInput(f"{what}: nested too deeply") from error


def _malformed(what: str, reason: str, document: bytes | str) -> str:
    if "trailing characters" in reason:
        return "unexpected content after JSON" if what == _NO_JSON else f"{what}: unexpected content after JSON"
    if "truncated" in reason:
        return f"{what}: unexpected EOF"
    body = document.encode() if isinstance(document, str) else document
    found = re.fullmatch(r"JSON is malformed: (.+) \(byte (\d+)\)", reason)
    if not found or found[1] not in _MISPLACED or int(found[2]) >= len(body):
        return f"{what}: {reason}"
    character = chr(body[int(found[2])])
    return f"{what}: invalid character {character!r} {_MISPLACED[found[1]]} (byte {found[2]})"


def _in_words(reason: str) -> str:
    """``Expected `int`, got `str` - at `$.A.B` `` becomes ``A.B: expected int, got str``."""
    text, _, path = reason.partition(" - at ")
    text = text[:1].lower() + text[1:]
    field = path.strip("`").removeprefix("$").lstrip(".")
    return f"{field}: {text}".replace("`", "") if field else text.replace("`", "")


class _Unfit(ValueError):
    """A value refused while folding; each caller on the stack adds its key to the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self._reason = reason
        self._path: list[str | int] = []

    def below(self, key: str | int) -> _Unfit:
        self._path.append(key)
        return self

    def in_words(self) -> str:
        steps = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in reversed(self._path[-8:]))
        return f"{''.join(steps).lstrip('.')}: {self._reason}"


@dataclass(frozen=True)
class _Object:
    """How to fold a JSON object that becomes a struct: keys by lower-cased key, and the plan of each field."""

    names: dict[str, str]
    fields: dict[str, _Plan]


@dataclass(frozen=True)
class _Items:
    """How to fold the items of an array, or the values of a map, and the zero value for a null item."""

    item: _Plan
    zero: Any
    words: bool = False


@dataclass(frozen=True)
class _Natural:
    """An integer that may need all 64 bits."""


_Plan = _Object | _Items | _Natural | None


def _plan(of: object) -> _Plan:
    """The plan of a type; None if nothing in it needs folding."""
    return _make_plan(of)


@functools.cache
def _make_plan(of: Any) -> _Plan:
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        fields = msgspec.structs.fields(of)
        return _Object(
            {field.encode_name.lower(): field.encode_name for field in fields},
            {field.encode_name: _plan(field.type) for field in fields},
        )
    origin, arguments = get_origin(of), get_args(of)
    if origin is Annotated:
        if of == Unsigned:
            return _Natural()
        return _Items(None, "", words=True) if of == Words else _plan(arguments[0])
    if origin in (Union, types.UnionType):
        return next((plan for plan in map(_plan, arguments) if plan is not None), None)
    if origin in (list, dict, tuple) and arguments:
        item = arguments[0] if origin in (list, tuple) else arguments[1]
        return _Items(_plan(item), _zero(item))
    return None


def _zero(of: Any) -> Any:
    """Go's zero value of a type, as a plain value; None if the type allows it."""
    if get_origin(of) is Annotated:
        return _zero(get_args(of)[0])
    if type(None) in get_args(of) or of is Any:
        return None
    origin = get_origin(of) or getattr(of, "__supertype__", of)
    if origin in (str, bool, int, float, list, dict, tuple):
        return origin()
    return {} if isinstance(origin, type) and issubclass(origin, msgspec.Struct) else None


def _fold(value: Any, plan: _Plan, depth: int) -> Any:
    if isinstance(value, dict):
        if depth == 0:
            raise _Unfit("nested too deeply")
        if isinstance(plan, _Object):
            return _fold_object(value, plan, depth - 1)
        return {key: _fold_item(item, plan, depth - 1, key) for key, item in value.items()}
    if isinstance(value, list):
        if depth == 0:
            raise _Unfit("nested too deeply")
        return [_fold_item(item, plan, depth - 1, index) for index, item in enumerate(value)]
    if isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        if isinstance(plan, _Natural) and 0 <= value <= _UINT64_MAX:
            return value
        raise _Unfit(f"{value} does not fit in 64 bits")
    if isinstance(value, str) and isinstance(plan, _Items) and plan.words:
        return [value]
    return value


def _fold_object(value: dict[str, Any], plan: _Object, depth: int) -> dict[str, Any]:
    folded: dict[str, Any] = {}
    named = set[str]()
    for key, item in value.items():
        name = plan.names.get(_fold_key(key))
        if name is None:
            continue
        if name in named:
            raise _Unfit("named more than once, in different cases").below(name)
        named.add(name)
        if item is None:
            continue
        below = plan.fields[name]
        if below is None and item.__class__ in _PLAIN:
            folded[name] = item
            continue
        try:
            folded[name] = _fold(item, below, depth)
        except _Unfit as error:
            raise error.below(name) from None
    return folded


def _fold_key(key: str) -> str:
    """A key in the case used for lookups. By Unicode case folding, U+017F counts as `s` and U+212A as `k`."""
    lowered = key.lower()
    return lowered if lowered.isascii() else lowered.replace("\u017f", "s")


def _fold_item(value: Any, plan: _Plan, depth: int, key: str | int) -> Any:
    try:
        if not isinstance(plan, _Items):
            return _fold(value, None, depth)
        return _fold(plan.zero if value is None else value, plan.item, depth)
    except _Unfit as error:
        raise error.below(key) from None
