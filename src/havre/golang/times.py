"""Moments in time as Docker's clients and daemon write and read them.

Source: RFC 3339; Go's `time.Time.String`; the layouts of moby's api/types/time.

No `datetime` and no `re`: the command line reads times in commands that take milliseconds.
"""

from __future__ import annotations

import time

_DAY_S = 86400
_HOUR_S = 3600


def go_time(seconds: int, nanoseconds: int = 0, *, utc: bool = False) -> str:
    """A time as Go prints it: 2006-01-02 15:04:05.123 +0000 UTC."""
    broken = time.gmtime(seconds) if utc else time.localtime(seconds)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    zone = "+0000 UTC" if utc else time.strftime("%z %Z", broken)
    return time.strftime("%Y-%m-%d %H:%M:%S", broken) + fraction + " " + zone


def parse_time(text: str) -> tuple[int, int]:
    """Seconds since the epoch, and nanoseconds, of an RFC 3339 time. Raises ValueError, also without a zone."""
    seconds, nanoseconds, offset_s = parse_civil(text)
    if offset_s is None:
        raise ValueError(f"a time needs a zone: {text!r}")
    return seconds - offset_s, nanoseconds


def parse_civil(text: str) -> tuple[int, int, int | None]:
    """Take a date, or a date and a clock, with or without a zone, apart: `2006-01-02[T15[:04[:05[.999]]]][Z|+01:00]`.

    Returns seconds since the epoch as if the zone were UTC, nanoseconds (further digits are cut off), and the zone's
    offset in seconds east of UTC, None without a zone. Raises ValueError.
    """
    date, clock = text[:10], text[10:]
    if len(date) != 10 or date[4] != "-" or date[7] != "-":
        raise ValueError(f"not a date: {text!r}")
    days = _days(_number(date[:4]), _number(date[5:7]), _number(date[8:]))
    clock, offset_s = _split_zone(clock)
    seconds, nanoseconds = _clock(clock[1:]) if clock[:1] in ("T", "t") else (0, 0)
    if clock and clock[0] not in "Tt":
        raise ValueError(f"not a time: {text!r}")
    return days * _DAY_S + seconds, nanoseconds, offset_s


def _number(digits: str, below: int = 10_000) -> int:
    if not (digits.isascii() and digits.isdecimal()) or int(digits) >= below:
        raise ValueError(f"not a number below {below}: {digits!r}")
    return int(digits)


def _clock(text: str) -> tuple[int, int]:
    """Seconds since midnight, and nanoseconds, of `15`, `15:04`, `15:04:05` or `15:04:05.999`."""
    whole, point, fraction = text.partition(".")
    parts = whole.split(":")
    if not all(len(part) == 2 for part in parts) or len(parts) > 3 or (point and len(parts) < 3):
        raise ValueError(f"not a clock: {text!r}")
    bounds = zip(parts, (24, 60, 60), (_HOUR_S, 60, 1), strict=False)
    seconds = sum(_number(part, below) * unit_s for part, below, unit_s in bounds)
    if point and not (fraction.isascii() and fraction.isdecimal()):
        raise ValueError(f"not a fraction of a second: {fraction!r}")
    return seconds, int(fraction[:9].ljust(9, "0")) if point else 0


def _split_zone(clock: str) -> tuple[str, int | None]:
    """The clock without its zone, and the zone's offset in seconds."""
    if clock.endswith(("Z", "z")):
        return clock[:-1], 0
    zone = clock[-6:]
    if len(zone) < 6 or zone[0] not in "+-" or zone[3] != ":":
        return clock, None
    offset_s = _number(zone[1:3], 24) * _HOUR_S + _number(zone[4:], 60) * 60
    return clock[:-6], offset_s if zone[0] == "+" else -offset_s


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, from year 1 (Go's zero time)."""
    if not 1 <= month <= 12 or not 1 <= day <= _days_of(year, month):
        raise ValueError(f"no such day: {year:04}-{month:02}-{day:02}")
    if month <= 2:
        year -= 1
    era_years = year % 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return year // 400 * 146097 + era_years * 365 + era_years // 4 - era_years // 100 + day_of_year - 719468


def _days_of(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31
