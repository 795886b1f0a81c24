"""Renders sizes, durations, and quoted and shortened text as Docker prints them.

Source: github.com/docker/go-units for sizes and durations, Go's `strconv.Quote`.
"""

from __future__ import annotations

import time

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_HOUR_S = 3600
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"',
            "\\": "\\\\"}  # fmt: skip


def human_size(size: float, digits: int = 4) -> str:
    """Bytes in powers of 1000 with `digits` significant digits: 1.234MB."""
    return _scaled(size, 1000.0, _DECIMAL, digits)


def binary_size(size: float, digits: int = 4) -> str:
    """Bytes in powers of 1024: 1.234MiB."""
    return _scaled(size, 1024.0, _BINARY, digits)


def _scaled(size: float, base: float, units: tuple[str, ...], digits: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return f"{size:.{digits}g}{units[index]}"


def human_duration(seconds: float) -> str:
    """A duration in words: "4 minutes", "About an hour"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    return _long_duration(seconds)


def _long_duration(seconds: float) -> str:
    hours = int(seconds / _HOUR_S + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / _HOUR_S) // 24 // 365} years"


def ago(seconds: float) -> str:
    """The age of something that happened at `seconds` since the epoch: "4 minutes ago"."""
    return human_duration(time.time() - seconds) + " ago"


def go_quote(text: str) -> str:
    """`text` in double quotes with Go's escapes."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def ellipsis(text: str, columns: int) -> str:
    """`text`, truncated with an ellipsis to `columns` characters."""
    return text if len(text) <= columns else text[: columns - 1] + "…"


def short_id(identifier: str) -> str:
    """The first 12 digits of an ID, without its algorithm."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]
