"""Renders plain values as YAML, as Go's yaml.v3 does with an indentation of two: the output of `config`.

Keys keep their order; callers sort with `natural_key` where Go sorts. Text is plain where that is unambiguous, a
literal
block where it has several lines, else quoted. Lines are never folded.
"""

from __future__ import annotations

import math
import re
from functools import cmp_to_key
from typing import Any

from havre.compose.yamlread import resolve
from havre.golang.scalars import go_float

_OLD_BOOLEANS = frozenset(
    form(word) for word in ("y", "yes", "on", "n", "no", "off") for form in (str, str.title, str.upper)
)
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$")
_ESCAPES = {
    "\0": "\\0", "\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r",
    "\x1b": "\\e", '"': '\\"', "\\": "\\\\", "\x85": "\\N", "\xa0": "\\_", "\u2028": "\\L", "\u2029": "\\P",
}  # fmt: skip


def render(value: Any) -> str:
    """The text of a document."""
    lines: list[str] = []
    if isinstance(value, dict) and value:
        _mapping(value, "", lines)
    elif isinstance(value, list) and value:
        _sequence(value, "", lines)
    else:
        lines.append(_inline(value, ""))
    return "\n".join(lines) + "\n"


def _mapping(value: dict[str, Any], indent: str, lines: list[str]) -> None:
    for key, member in value.items():
        head = f"{indent}{_text(key, key=True)}:"
        if isinstance(member, dict) and member:
            lines.append(head)
            _mapping(member, indent + "  ", lines)
        elif isinstance(member, list) and member:
            lines.append(head)
            _sequence(member, indent + "  ", lines)
        else:
            lines.append(f"{head} {_inline(member, indent)}")


def _sequence(value: list[Any], indent: str, lines: list[str]) -> None:
    for member in value:
        start = len(lines)
        if isinstance(member, dict) and member:
            _mapping(member, indent + "  ", lines)
        elif isinstance(member, list) and member:
            _sequence(member, indent + "  ", lines)
        else:
            lines.append(f"{indent}  {_inline(member, indent)}")
        lines[start] = f"{indent}- {lines[start][len(indent) + 2 :]}"


def _inline(value: Any, indent: str) -> str:
    if isinstance(value, str):
        return _text(value, indent=indent)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value) or go_float(value)
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    return str(value)


def _text(text: str, *, indent: str = "", key: bool = False) -> str:
    special = any(not _printable(c) and c not in "\n\t" for c in text)
    if "\n" in text:
        if key or special or " \n" in text or text.endswith(" "):
            return _double(text)
        return _literal(text, indent)
    if text == "" or type(resolve(text)) is not str or text in _OLD_BOOLEANS or _BASE_60.match(text):
        return _double(text)
    if special or "\t" in text:
        return _double(text)
    if text != text.strip(" ") or _block_indicators(text):
        return "'" + text.replace("'", "''") + "'"
    return text


def _block_indicators(text: str) -> bool:
    if text[:3] in ("---", "...") or text[0] in "#,[]{}&*!|>'\"%@`":
        return True
    if text[0] in "-?:" and (len(text) == 1 or text[1] == " "):
        return True
    return ": " in text or text.endswith(":") or " #" in text


def _literal(text: str, indent: str) -> str:
    hint = "2" if text[0] in " \n" else ""
    chomp = "" if text.endswith("\n") else "-"
    if text == "\n" or text.endswith("\n\n"):
        chomp = "+"
    body = text.removesuffix("\n").split("\n")
    inner = indent + "  "
    return "\n".join([f"|{hint}{chomp}", *(inner + line if line else "" for line in body)])


def _double(text: str) -> str:
    return '"' + "".join(_escape(c) for c in text) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if _printable(char):
        return char
    code = ord(char)
    return f"\\x{code:02X}" if code < 256 else f"\\u{code:04X}" if code < 65536 else f"\\U{code:08X}"


def _printable(char: str) -> bool:
    """Characters that Go writes unescaped: not beyond the basic plane, and no Unicode line separators."""
    if char in "\u2028\u2029\ufeff":
        return False
    return " " <= char <= "~" or "\xa0" <= char < "\ud800" or "\ue000" <= char <= "\ufffd"


def natural_order(one: str, other: str) -> int:
    """The order of two keys in Go's yaml.v3: numbers inside them by value, letters after other characters."""
    digits = False
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a == b:
            digits = a.isdigit()
            continue
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        if a.isalpha() or b.isalpha():
            first = a.isalpha() if digits else b.isalpha()
            return -1 if first else 1
        return _compare_numbers(one, other, i)
    return len(one) - len(other)


def _compare_numbers(one: str, other: str, start: int) -> int:
    a, b = one[start], other[start]
    lead = 0
    if "0" in (a, b):
        for char in reversed(one[:start]):
            if not char.isdigit():
                break
            if char != "0":
                lead = 1
                break
    first, second = _digits(one, start), _digits(other, start)
    a_value, b_value = (int(f"{lead}{d}") if lead or d else 0 for d in (first, second))
    if a_value != b_value:
        return -1 if a_value < b_value else 1
    if len(first) != len(second):
        return len(first) - len(second)
    return -1 if a < b else 1


def _digits(text: str, start: int) -> str:
    end = start
    while end < len(text) and text[end].isdigit():
        end += 1
    return text[start:end]


natural_key = cmp_to_key(natural_order)


def sort_deep(value: Any) -> Any:
    """`value` with the keys of all its mappings in Go's order."""
    if isinstance(value, dict):
        return {key: sort_deep(value[key]) for key in sorted(value, key=natural_key)}
    return [sort_deep(item) for item in value] if isinstance(value, list) else value
