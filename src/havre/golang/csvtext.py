"""Parses one record of comma-separated values, the syntax of many flags, as Go's encoding/csv. Pure."""

from __future__ import annotations

from _csv import Error, reader


def split_csv(text: str) -> list[str]:
    """The fields; quoting as in RFC 4180. Raises ValueError with Go's message."""
    try:
        for fields in reader([text], strict=True):
            return list(fields)
    except Error:
        raise ValueError(f'parse error on line 1, column {len(text)}: bare " in non-quoted-field') from None
    return []
