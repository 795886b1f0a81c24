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
from collections.abc import Iterable
from itertools import chain, repeat

STDOUT, STDERR = 1, 2

_HEADER = struct.Struct(">BxxxI")
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
