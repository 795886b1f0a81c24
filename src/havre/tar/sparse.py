"""Reads the maps of sparse files in a tar: which ranges of a file have bytes there. Pure.

Owns GNU's old form and the pax forms 0.0, 0.1 and 1.0; whether a map fits its file is checked by `reader`.

Source: GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

from havre.errors import InvalidInput
from havre.tar.fields import read_decimal, read_number, require_within
from havre.tar.headers import BLOCK, MAX_META


class SparseMap:
    """The (start, length) pairs of a sparse file, collected from blocks."""

    def __init__(self, fields: bytes = b"", *, extended: bool = False) -> None:
        self.pairs: list[tuple[int, int]] = []
        self.extended = False
        self.size = 0
        self._lines: list[bytes] = []
        self._rest = b""  # the beginning of a line
        self.add_gnu(fields, extended=extended)

    def add_gnu(self, fields: bytes, *, extended: bool) -> None:
        """Old GNU form: pairs of 12-byte numbers, terminated by an empty one."""
        self._grow(len(fields))
        for at in range(0, len(fields), 24):
            if fields[at : at + 24].strip(b"\0 "):
                start = read_number(fields[at : at + 12], "sparse offset")
                self.pairs.append((start, read_number(fields[at + 12 : at + 24], "sparse length")))
        self.extended = extended

    def add_pax_1_0(self, block: bytes) -> bool:
        """Form 1.0: decimal lines, the first one the number of pairs. Returns whether the map is complete."""
        self._grow(len(block))
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > BLOCK:
            raise InvalidInput("sparse map of a tar member has a line without end")
        self._lines += lines
        if not self._lines:
            return False
        count = require_within(read_decimal(self._lines[0], "sparse map"), 0, MAX_META, "sparse map")
        if len(self._lines) < 2 * count + 1:
            return False
        numbers = [read_decimal(line, "sparse map") for line in self._lines[1 : 2 * count + 1]]
        self.pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        return True

    def _grow(self, more: int) -> None:
        self.size += more
        if self.size > MAX_META:
            raise InvalidInput("sparse map of a tar member is longer than 1 MiB")


def read_pax_pairs(records: list[tuple[bytes, bytes]], pax: dict[bytes, bytes]) -> list[tuple[int, int]]:
    """Sparse forms 0.1 (one list) and 0.0 (a record per number)."""
    if b"GNU.sparse.map" in pax:
        text = pax[b"GNU.sparse.map"]
        numbers = [read_decimal(n, "GNU.sparse.map") for n in text.split(b",")] if text else []
    else:
        wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        numbers = [read_decimal(value, "GNU.sparse.offset") for key, value in records if key in wanted]
    if len(numbers) % 2:
        raise InvalidInput("sparse map of a tar member has an odd number of numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
