"""One record of comma-separated values, as Go's encoding/csv reads it: the form of many flags. Pure."""

from __future__ import annotations

from _csv import Error, reader


def split_csv(text: str) -> list[str]:
    """The fields, quotes as RFC 4180 has them. Raises ValueError."""
    try:
        for fields in reader([text], strict=True):
            return list(fields)
    except Error:
        raise ValueError(f'parse error on line 1, column {len(text)}: bare " in non-quoted-field') from None
    return []
