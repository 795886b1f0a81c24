"""The multiplexed stream of attach, exec and logs without a TTY.

    byte 0      1 2 3     4 5 6 7
    +--------+---------+-------------------+----------------
    | stream | 0 0 0   | length, big-endian | length bytes ...
    +--------+---------+-------------------+----------------

`stream` is 1 for stdout, 2 for stderr (0, stdin, is never sent; 3 carries an error of the daemon).

Source: Docker Engine API, "ContainerAttach", "Stream format".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

from havre.errors import InvalidInput

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3

_HEADER = struct.Struct(">BxxxI")
HEADER_SIZE = _HEADER.size
MAX_FRAME = 16 << 20
_LINE = re.compile(rb"[^\n]*+\n|[^\n]++")


def render_header(stream: int, length: int) -> bytes:
    """The eight-byte header before `length` bytes of `stream`."""
    return _HEADER.pack(stream, length)


def render_frames(chunks: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode one frame for each (stream, data)."""
    pack = _HEADER.pack
    return b"".join([piece for stream, data in chunks for piece in (pack(stream, len(data)), data)])


def render_line_frames(chunks: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode one frame for each line in some (stream, lines), as dockerd sends logs."""
    pieces: list[bytes] = []
    for stream, data in chunks:
        lines = _LINE.findall(data)
        pieces += chain.from_iterable(zip(map(_HEADER.pack, repeat(stream), map(len, lines)), lines, strict=True))
    return b"".join(pieces)


class FrameReader:
    """Splits received bytes into frames, which may arrive in pieces."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the frames completed by `data`. `InvalidInput` for an impossible header: the stream is not framed."""
        self._pending += data
        start = 0
        try:
            while len(self._pending) - start >= HEADER_SIZE:
                stream, length = self._header(start)
                end = start + HEADER_SIZE + length
                if len(self._pending) < end:
                    break
                frame = bytes(self._pending[start + HEADER_SIZE : end])
                start = end
                yield stream, frame
        finally:
            del self._pending[:start]

    def _header(self, start: int) -> tuple[int, int]:
        stream, length = _HEADER.unpack_from(self._pending, start)
        if stream > SYSTEM_ERROR or length > MAX_FRAME:
            raise InvalidInput(f"unrecognized frame header: stream {stream}, {length} bytes")
        return stream, length
