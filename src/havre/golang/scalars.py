"""Scalars as Go prints them. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
    import math

    if value == 0 or not math.isfinite(value):
        return {0.0: "0", math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    if 1e-4 <= abs(value) < 1e6:
        return repr(value).removesuffix(".0") if "e" not in repr(value) else f"{value:.20f}".rstrip("0")
    return next(text for text in (f"{value:.{n}e}" for n in range(18)) if float(text) == value)


def float32(value: float) -> float:
    """`value` rounded to a 32-bit float, as the shortest decimal that rounds to the same one (Go's strconv)."""
    import struct

    single: float = struct.unpack("f", struct.pack("f", value))[0]
    for digits in range(1, 10):
        shortest = float(f"{single:.{digits}g}")
        if struct.unpack("f", struct.pack("f", shortest))[0] == single:
            return shortest
    return single
