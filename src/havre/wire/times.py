"""Times as Docker writes them: RFC 3339 in UTC with nanoseconds."""

from __future__ import annotations

import time
from datetime import datetime


def rfc3339(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as text."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def now() -> str:
    """The current time."""
    return rfc3339(time.time_ns())


def from_seconds(seconds: float) -> str:
    """Seconds since the epoch as text."""
    return rfc3339(int(seconds * 1_000_000_000))


def parse(text: str) -> float:
    """Parse an RFC 3339 time in UTC to seconds since the epoch; nanoseconds are rounded to a float's precision."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(whole + "+00:00").timestamp()
    return seconds + (float("0." + fraction) if fraction else 0.0)
