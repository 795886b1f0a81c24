"""Protocol Buffers for BuildKit's messages: fields declared on a dataclass, an encoder and a decoder.

    @dataclass
    class StatusRequest(Message):
        ref: str = text(1)

Implements the wire format only: no reflection, no .proto files, no groups, no packed numbers (BuildKit's messages
have none). Unknown fields are skipped, as the format demands. Numbers are int64; enums are plain integers.

Strings need not be UTF-8, because they carry file names: other bytes become surrogates, as with `os.fsdecode`.

Source: Protocol Buffers documentation, "Encoding".
Why: docs/decisions/170.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeVar

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_SIGN, _WRAP = 1 << 63, 1 << 64
_SHAPE = "protobuf"


class Message:
    """Base of all messages; every field has a default, which is not encoded."""


M = TypeVar("M", bound=Message)


class _Kind(NamedTuple):
    """The encoding of a value: `wire` is its wire type, `of` the class of an embedded message."""

    wire: int
    default: Any
    of: type[Message] | None = None


class _Field(NamedTuple):
    """A declared field: `value` is set for a map from strings, whose entries are messages {1: key, 2: value}."""

    number: int
    kind: _Kind
    repeated: bool = False
    value: _Kind | None = None


class _Slot(NamedTuple):
    """A field for encoding: its attribute, its tag as bytes."""

    name: str
    tag: bytes
    field: _Field


_TEXT, _DATA, _NUMBER, _FLAG = _Kind(_BYTES, ""), _Kind(_BYTES, b""), _Kind(_VARINT, 0), _Kind(_VARINT, False)
_SCALARS = {str: _TEXT, bytes: _DATA, int: _NUMBER, bool: _FLAG}


def text(number: int) -> Any:
    """A string field."""
    return _declare(_Field(number, _TEXT))


def data(number: int) -> Any:
    """A bytes field."""
    return _declare(_Field(number, _DATA))


def number(number: int) -> Any:
    """A field of any of the integer types, or an enum."""
    return _declare(_Field(number, _NUMBER))


def flag(number: int) -> Any:
    """A boolean field."""
    return _declare(_Field(number, _FLAG))


def embedded(number: int, of: type[Message]) -> Any:
    """A message field; None when absent."""
    return _declare(_Field(number, _Kind(_BYTES, None, of)))


def repeated(number: int, of: type[Any]) -> Any:
    """A list of str, bytes or a message class."""
    return _declare(_Field(number, _kind(of), repeated=True))


def mapping(number: int, to: type[Any]) -> Any:
    """A dict from str to str, bytes or a message class."""
    return _declare(_Field(number, _TEXT, value=_kind(to)))


def _kind(of: type[Any]) -> _Kind:
    return _SCALARS[of] if of in _SCALARS else _Kind(_BYTES, None, of)


def _declare(declared: _Field) -> Any:
    metadata = {_SHAPE: declared}
    if declared.value is not None:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    if declared.repeated:
        return dataclasses.field(default_factory=list, metadata=metadata)
    return dataclasses.field(default=declared.kind.default, metadata=metadata)


_slots_of: dict[type[Message], dict[int, _Slot]] = {}


def _slots(of: type[Message]) -> dict[int, _Slot]:
    """The fields of a class by number; cached."""
    if (known := _slots_of.get(of)) is not None:
        return known
    found: dict[int, _Slot] = {}
    for each in dataclasses.fields(of):  # type: ignore[arg-type]
        declared: _Field = each.metadata[_SHAPE]
        wire = _BYTES if declared.value is not None else declared.kind.wire
        found[declared.number] = _Slot(each.name, _render_varint(declared.number << 3 | wire), declared)
    _slots_of[of] = found
    return found


# -- writing


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    out: list[bytes] = []
    for name, tag, declared in _slots(type(message)).values():
        value = getattr(message, name)
        if declared.value is not None:
            for key, item in value.items():
                entry = _render_entry(key, item, declared.value)
                out += (tag, _render_varint(len(entry)), entry)
        elif declared.repeated:
            for item in value:
                out += (tag, _render(item, declared.kind))
        elif value != declared.kind.default:
            out += (tag, _render(value, declared.kind))
    return b"".join(out)


def _render_entry(key: str, value: Any, kind: _Kind) -> bytes:
    tag = b"\x10" if kind.wire == _VARINT else b"\x12"
    return b"\x0a" + _render(key, _TEXT) + tag + _render(value, kind)


def _render(value: Any, kind: _Kind) -> bytes:
    if kind.wire == _VARINT:
        return _render_varint(int(value))
    if kind.of is not None:
        body = encode(value)
    else:
        body = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return _render_varint(len(body)) + body


def _render_varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((value,))
    value %= _WRAP
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# -- reading


def decode(of: type[M], encoded: bytes) -> M:
    """Decode a message; `ValueError` if invalid."""
    message = of()
    slots = _slots(of)
    at, end = 0, len(encoded)
    while at < end:
        tag, at = _read_varint(encoded, at)
        value, at = _read_value(encoded, at, tag & 7)
        slot = slots.get(tag >> 3)
        if slot is not None:
            _store(message, slot, tag & 7, value)
    return message


def _read_varint(encoded: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for each in encoded[at : at + _MAX_VARINT_BYTES]:
        at += 1
        value |= (each & 0x7F) << shift
        if each < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is cut off or too long")


def _read_value(encoded: bytes, at: int, wire: int) -> tuple[bytes | int, int]:
    if wire == _VARINT:
        return _read_varint(encoded, at)
    if wire == _BYTES:
        size, at = _read_varint(encoded, at)
    elif wire in (_FIXED64, _FIXED32):
        size = 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"wire type {wire} is not known")
    if at + size > len(encoded):
        raise ValueError("a field is cut off")
    return encoded[at : at + size], at + size


def _store(message: Message, slot: _Slot, wire: int, value: bytes | int) -> None:
    declared = slot.field
    expected = _BYTES if declared.value is not None else declared.kind.wire
    if wire != expected:
        raise ValueError(f"field {declared.number} of {type(message).__name__} has wire type {wire}")
    if declared.value is not None:
        key, item = _parse_entry(_bytes(value), declared.value)
        getattr(message, slot.name)[key] = item
    elif declared.repeated:
        getattr(message, slot.name).append(_parse(value, declared.kind))
    else:
        setattr(message, slot.name, _parse(value, declared.kind))


def _parse_entry(encoded: bytes, kind: _Kind) -> tuple[str, Any]:
    key: str = ""
    item = kind.of() if kind.of is not None else kind.default
    at = 0
    while at < len(encoded):
        tag, at = _read_varint(encoded, at)
        value, at = _read_value(encoded, at, tag & 7)
        if tag == 1 << 3 | _BYTES:
            key = _parse(value, _TEXT)
        elif tag == 2 << 3 | kind.wire:
            item = _parse(value, kind)
    return key, item


def _parse(value: bytes | int, kind: _Kind) -> Any:
    if isinstance(value, int):
        signed = value % _WRAP
        return bool(value) if kind is _FLAG else signed - _WRAP if signed >= _SIGN else signed
    if kind.of is not None:
        return decode(kind.of, value)
    return value.decode("utf-8", "surrogateescape") if kind is _TEXT else value


def _bytes(value: bytes | int) -> bytes:
    assert isinstance(value, bytes)
    return value
