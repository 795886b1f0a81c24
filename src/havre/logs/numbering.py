"""What dockerd tells log servers of lines that come in parts: an identifier for the line, a number for each part."""

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
    """The lines of one container that have begun, by stream."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[str, int]] = {}

    def has_begun(self, stream: int) -> bool:
        """Whether the next record of this stream continues a line."""
        return stream in self._begun

    def number(self, record: Record) -> Part | None:
        """What part of a line the next record is; None for a whole one."""
        known = self._begun.pop(record.stream, None)
        if known is None and record.ends_line:
            return None
        line, before = known or (secrets.token_hex(32), 0)
        if not record.ends_line:
            self._begun[record.stream] = line, before + 1
        return Part(line, before + 1, record.ends_line)
