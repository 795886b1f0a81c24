"""Durations and times as Go's libraries write them, and Go's `%v` for scalars.

Sources: https://pkg.go.dev/time#ParseDuration, https://pkg.go.dev/github.com/docker/go-units#RAMInBytes.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

_SECOND_NS, _MINUTE_NS = 10**9, 60 * 10**9
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:([Tt ])(\d\d?):(\d\d?):(\d\d?)(?:\.(\d+))?(Z|[-+]\d\d:\d\d)?)?$", re.ASCII
)


def format_duration(duration_ns: int) -> str:
    """A duration as Go's `Duration.String` prints it: `1m30s`, `1.5s`, `250ms`."""
    if duration_ns == 0:
        return "0s"
    sign, value = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if value < size * 1_000:
            return f"{sign}{_fraction(value, size)}{unit}"
    minutes, rest = divmod(value, _MINUTE_NS)
    hours, minutes = divmod(minutes, 60)
    text = f"{_fraction(rest, _SECOND_NS)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _fraction(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    return f"{whole}.{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else str(whole)


class Timestamp(str):
    """An unquoted date or time, as Go's `Time.String` prints it; some keys reject it."""

    __slots__ = ()


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def parse_timestamp(text: str) -> Timestamp | None:
    """The time in a YAML scalar such as 2001-01-01 or 2001-12-14T21:59:43.1-05:00, or None."""
    match = _TIMESTAMP.match(text)
    if match is None:
        return None
    year, month, day, between, hour, minute, second, rest, zone = match.groups()
    if not 1 <= int(month) <= 12 or not 1 <= int(day) <= _days(int(year), int(month)):
        return None
    if between and (int(hour) > 23 or int(minute) > 59 or int(second) > 59 or (between == " ") == bool(zone)):
        return None
    fraction = (rest or "")[:9].rstrip("0")
    clock = ":".join(f"{int(part or 0):02}" for part in (hour, minute, second)) + (f".{fraction}" if fraction else "")
    offset = (zone or "Z").replace(":", "")
    where = "+0000 UTC" if offset in ("Z", "+0000", "-0000") else f"{offset} {offset}"
    return Timestamp(f"{year}-{int(month):02}-{int(day):02} {clock} {where}")


def float32(value: float) -> float:
    """`value` as the shortest decimal that the nearest 32-bit float prints as."""
    single: float = struct.unpack("f", struct.pack("f", value))[0]
    for digits in range(1, 10):
        shortest = float(f"{single:.{digits}g}")
        if struct.unpack("f", struct.pack("f", shortest))[0] == single:
            return shortest
    return single


def go_text(value: Any) -> str:
    """A scalar as Go's `fmt.Sprint` prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    return str(value)


def go_float(value: float) -> str:
    """A float as Go's `%v` prints it: the shortest digits, with an exponent below 1e-4 and from 1e6."""
    if value == 0 or not math.isfinite(value):
        return {0.0: "0", math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    if 1e-4 <= abs(value) < 1e6:
        return repr(value).removesuffix(".0") if "e" not in repr(value) else f"{value:.20f}".rstrip("0")
    return next(text for text in (f"{value:.{n}e}" for n in range(18)) if float(text) == value)
