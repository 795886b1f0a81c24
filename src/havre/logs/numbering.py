"""Identifiers and ordinals of lines sent in parts, as dockerd reports them to log servers."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from havre.logs.records import Record


class Part(NamedTuple):
    """`ordinal` counts from 1."""

    line: str
    ordinal: int
    is_last: bool


class Numbering:
    """The unfinished lines of one container, by stream."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[str, int]] = {}

    def has_begun(self, stream: int) -> bool:
        """Report whether the next record of this stream continues a line."""
        return stream in self._begun

    def number(self, record: Record) -> Part | None:
        """The part of a line that the next record is; None for a whole line."""
        known = self._begun.pop(record.stream, None)
        if known is None and record.ends_line:
            return None
        line, before = known or (secrets.token_hex(32), 0)
        if not record.ends_line:
            self._begun[record.stream] = line, before + 1
        return Part(line, before + 1, record.ends_line)
