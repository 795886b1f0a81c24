"""Parses truth values, sizes and durations as Go's libraries do, with their error messages.

    parse_bool      true, T, 1, false, F, 0      as strconv.ParseBool
    parse_size      1.5g, 64MiB, 512 kB, 100     powers of 1024, as go-units' RAMInBytes
    parse_duration  1h30m, 1.5s, -250ms, 0       as time.ParseDuration, in nanoseconds
    format_duration 1h30m0s, 1.5s, 250ms, 0s     as Duration.String

Uses no regular expressions, which would delay the start of the command line.
"""

from __future__ import annotations

_POWERS = "kmgtp"
_SECOND = 10**9
_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": _SECOND, "m": 60 * _SECOND,
             "h": 3600 * _SECOND}  # fmt: skip
_DIGITS = "0123456789"
_LIMIT = 1 << 63


def parse_bool(text: str) -> bool:
    """A truth value. Raises ValueError."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError."""
    rest = text.lower().removesuffix("b").removesuffix("i")
    power = _POWERS.find(rest[-1:]) + 1 if rest else 0
    number = (rest[:-1] if power else rest).removesuffix(" ")
    parts = number.split(".")
    if len(parts) > 2 or not all(part and not part.strip(_DIGITS) for part in parts):
        raise ValueError(f"invalid size: '{text}'")
    size = float(number) * 1024**power  # inf for hundreds of digits
    if size >= _LIMIT:
        raise ValueError(f"invalid size: '{text}'")
    return int(size)


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises ValueError."""
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        number, rest = _split(rest, _DIGITS + ".")
        if number in ("", ".") or number.count(".") > 1:
            raise ValueError(f'time: invalid duration "{text}"')
        after = next((index for index, char in enumerate(rest) if char in _DIGITS + "."), len(rest))
        unit, rest = rest[:after], rest[after:]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * _UNITS_NS[unit]
        total += int(fraction or "0") * _UNITS_NS[unit] // 10 ** len(fraction)
    if total > _LIMIT or (total == _LIMIT and not negative):
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if negative else total


def _split(text: str, chars: str) -> tuple[str, str]:
    """Split `text` after its longest prefix made of `chars`."""
    rest = text.lstrip(chars)
    return text[: len(text) - len(rest)], rest


def format_duration(duration_ns: int) -> str:
    """A duration as Go's `Duration.String` prints it: `1m30s`, `1.5s`, `250ms`."""
    if duration_ns == 0:
        return "0s"
    sign, value = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if value < size * 1_000:
            return f"{sign}{_fraction(value, size)}{unit}"
    minutes, rest = divmod(value, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{_fraction(rest, _SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _fraction(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    return f"{whole}.{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else str(whole)
