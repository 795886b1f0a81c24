"""Parses resource limits (`--ulimit nofile=1024:2048`) with go-units' error messages.

Source: github.com/docker/go-units, ulimit.go; getrlimit(2).
"""

from __future__ import annotations

NAMES = ("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
         "rttime", "sigpending", "stack")  # fmt: skip


def parse_ulimit(text: str) -> tuple[str, int, int]:
    """Name, soft and hard limit of `name=soft[:hard]`; -1 is unlimited. Raises ValueError."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in NAMES:
        raise ValueError(f"invalid ulimit type: {name}")
    soft, hard = parse_limits(limits)
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return name, soft, hard


def parse_limits(limits: str) -> tuple[int, int]:
    """Soft and hard limit of `soft[:hard]`. Raises ValueError."""
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit values - {limits}, can only have up to two, `soft[:hard]`")
    return _number(parts[0]), _number(parts[-1])


def _number(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)
