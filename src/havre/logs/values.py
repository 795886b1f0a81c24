"""Values of log options: truth and sizes, refused in the words of dockerd's log drivers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from havre.errors import InvalidInput
from havre.golang import units
from havre.golang.units import parse_bool

START = "failed to create task for container: failed to initialize logging driver"
"""What dockerd's refusals of log options begin with."""


def parse_flag(options: Mapping[str, str], name: str, default: bool, start: str = f"{START}: ") -> bool:
    """Parse a boolean as Go does. InvalidInput, prefixed with `start`."""
    try:
        return parse_bool(options.get(name, str(default)))
    except ValueError as error:
        raise InvalidInput(f"{start}{error}", "expected true or false") from None


def parse_size(text: str, start: str = f"{START}: ") -> int:
    """Parse a size such as 10m, in bytes; -1 and 0 are unlimited. InvalidInput, prefixed with `start`."""
    if text in ("-1", "0"):
        return 0
    try:
        return units.parse_size(text)
    except ValueError as error:
        raise InvalidInput(f"{start}{error}", "expected a size such as 10m") from None
