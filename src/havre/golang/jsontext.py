"""JSON with the interpreter's C scanner alone: `import json` would take longer than a request.

Decodes with `_json.make_scanner`, which the standard `json` package uses, too. Encodes in Python, because requests are
small and output must look as Go's `encoding/json` writes it (no ASCII escapes, optional escaping of `<`, `>` and `&`,
four-space indentation in `inspect`).
"""

from __future__ import annotations

from _json import encode_basestring, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\r\n"
_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


class _Settings:
    """The attributes that `make_scanner` reads, with the values of `json.JSONDecoder`."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant: Callable[[str], float] = float
    memo: dict[str, str] = {}


_scan = make_scanner(_Settings())  # type: ignore[arg-type]


def decode(data: bytes | str) -> Any:
    """The value of one JSON document. Raises ValueError if it is malformed or followed by anything but white space."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    value, end = decode_prefix(text, 0)
    if text[end:].strip(_SPACE):
        raise ValueError(f"unexpected text after JSON at offset {end}")
    return value


def decode_prefix(text: str, start: int) -> tuple[Any, int]:
    """The JSON value at `start` (leading white space allowed) and the offset after it."""
    while start < len(text) and text[start] in _SPACE:
        start += 1
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"no JSON value at offset {stop.value}") from None
    return value, end


def encode(value: Any, *, indent: str = "", escape_html: bool = False, sort_keys: bool = False) -> str:
    """`value` as JSON text, keys in their order; with `indent`, one member per line, as Go's `json.Indent`."""
    return _Encoder(indent, escape_html, sort_keys).render(value, "\n")


class _Encoder:
    def __init__(self, indent: str, escape_html: bool, sort_keys: bool) -> None:
        self.indent = indent
        self.escape_html = escape_html
        self.sort_keys = sort_keys

    def render(self, value: Any, newline: str) -> str:
        if isinstance(value, str):
            return self.string(value)
        if value is None:
            return "null"
        if value is True:
            return "true"
        if value is False:
            return "false"
        if isinstance(value, dict):
            keys = sorted(value) if self.sort_keys else value
            colon = ": " if self.indent else ":"
            inner = newline + self.indent
            return self.group("{}", [self.string(str(k)) + colon + self.render(value[k], inner) for k in keys], newline)
        if isinstance(value, list | tuple):
            inner = newline + self.indent
            return self.group("[]", [self.render(item, inner) for item in value], newline)
        return self.number(value)

    def group(self, brackets: str, members: list[str], newline: str) -> str:
        if not members or not self.indent:
            return brackets[0] + ",".join(members) + brackets[1]
        inner = newline + self.indent
        return brackets[0] + inner + ("," + inner).join(members) + newline + brackets[1]

    def string(self, text: str) -> str:
        quoted = encode_basestring(text)
        return quoted.translate(_HTML) if self.escape_html else quoted

    @staticmethod
    def number(value: Any) -> str:
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
            return str(int(value))
        return repr(value)
