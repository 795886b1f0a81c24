"""Dates and times among YAML's scalars, as Go prints them.

Source: https://yaml.org/type/timestamp.html, as go-yaml reads it; Go's time.Time.String.
"""

from __future__ import annotations

import re

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:([Tt ])(\d\d?):(\d\d?):(\d\d?)(?:\.(\d+))?(Z|[-+]\d\d:\d\d)?)?$", re.ASCII
)


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
