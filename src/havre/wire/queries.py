"""Values of query parameters: booleans, integers, times, durations.

Source: moby's api/server/httputils/form.go for booleans, api/types/time for times, Go's time.ParseDuration.
"""

from __future__ import annotations

import contextlib
import re

import msgspec

from havre.errors import InvalidInput
from havre.golang import gojson
from havre.golang.times import parse_civil
from havre.golang.units import parse_duration

_FALSE = frozenset({"", "0", "no", "false", "none"})
_SECONDS = re.compile(r"(-?[0-9]+)(?:\.([0-9]{1,9}))?")


def parse_bool(value: str | None) -> bool:
    """Docker's booleans: anything but "", 0, no, false and none is true."""
    return value is not None and value.strip().lower() not in _FALSE


def parse_int(value: str, name: str) -> int:
    """Parse a decimal 64-bit integer; `name` is the parameter's, for the message."""
    digits = value[1:] if value[:1] in ("-", "+") else value
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19 or not -(2**63) <= int(value) < 2**63:
        raise InvalidInput(f'invalid value "{value}" for {name}: expected an integer')
    return int(value)


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


def parse_platform_parameter(value: str, name: str) -> str:
    """Parse a platform, as `os/architecture[/variant]` or as an OCI platform in JSON, which Docker's clients send."""
    if not value.startswith("{"):
        return value
    asked = gojson.decode(value, _Platform, f"failed to parse {name}")
    parts = [asked.os, asked.architecture, asked.variant]
    if not parts[0] or not parts[1]:
        raise InvalidInput("both OS and Architecture must be provided", f"{name} is a platform such as linux/arm64")
    return "/".join(part for part in parts if part)


def parse_time(value: str, name: str, now: float) -> float:
    """Parse a time, to seconds since the epoch.

    Accepts what Docker's clients and users send: seconds with a fraction, RFC 3339 or a part of it (a missing zone
    means UTC), or a duration such as `10m`, which is subtracted from `now`.
    """
    if match := _SECONDS.fullmatch(value):
        return int(match[1]) + int((match[2] or "0").ljust(9, "0")) / 1e9
    for read in (_date, lambda text: now - parse_duration(text) / 1e9):
        with contextlib.suppress(ValueError):  # another form of a time
            return read(value)
    expected = "expected seconds since the epoch, an RFC 3339 date or a duration"
    raise InvalidInput(f'invalid value "{value}" for {name}: {expected}')


def _date(text: str) -> float:
    seconds, nanoseconds, offset_s = parse_civil(text)
    return seconds - (offset_s or 0) + nanoseconds / 1e9


def parse_duration_ns(value: str, name: str) -> int:
    """A Go duration (`1h30m`, `250ms`, `0`) in nanoseconds."""
    try:
        return parse_duration(value)
    except ValueError:
        raise InvalidInput(f'invalid value "{value}" for {name}: expected a duration such as 10s or 1h30m') from None
