r"""Log records in conmon's format, reassembly of lines, and what the formats on disk have in common. Pure.

conmon's format (k8s-file):

    2026-11-24T13:00:04.303359690+00:00 stdout P a long
    2026-11-24T13:00:04.303361000+00:00 stdout F  line

F ends a line, P is a part of one (a read of at most 8 KiB without a newline). The driver `local` and the cache of
remote
drivers keep this format, json-file has Docker's (`jsonfile`). In both a line is one record unless it is split: as in
dockerd, a line is written when complete, or in records of 16 KiB.

Rendering is deterministic: the same bytes after the same unfinished lines give the same output. After a crash, its
length tells what is already written (`spool`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeAlias

# Length at which dockerd splits a line.
LONGEST = 16 << 10
STREAMS = {b"stdout": 1, b"stderr": 2}
NAMES = {1: b"stdout", 2: b"stderr"}

LogChunk: TypeAlias = tuple[int, bytes]
"""Lines with newlines, and their stream (1 stdout, 2 stderr); the last may be a part of one."""


class Record(NamedTuple):
    """A line or a part of one: `text` without newline, `time` in RFC 3339 and UTC, `attrs` as shown by `--details`."""

    time: bytes
    stream: int
    ends_line: bool
    text: bytes
    attrs: bytes = b""


@dataclass(frozen=True, slots=True)
class Form:
    """The format of records in a file.

    `parse` reads one line. The other functions process many at once, or return None when these must be parsed one by
    one:
    `show(lines, timed)` renders them for a client, with or without times, `count(lines)` counts lines.
    """

    parse: Callable[[bytes], Record | None]
    show: Callable[[bytes, bool], list[LogChunk] | None]
    count: Callable[[bytes], int | None]


# Length of the time without its zone, and of everything before the text.
STAMP, HEAD = len("2026-11-24T13:00:04.303359690"), len("2026-11-24T13:00:04.303359690+00:00 stdout F ")
_KINDS = {
    b"+00:00 %s %s " % (name, tag): (stream, tag == b"F") for name, stream in STREAMS.items() for tag in (b"F", b"P")
}


def kind_of(line: bytes) -> tuple[int, bool] | None:
    """The stream of a line of conmon's, and whether it ends a line; None for any other line."""
    return _KINDS.get(line[STAMP:HEAD])


# -- lines made whole again


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of an unfinished line: its time, its text, and how many bytes before the current offset it
    began."""

    behind: int
    time: bytes
    text: bytes

    def pushed(self, further: int) -> Part:
        """The same, relative to an offset so many bytes later."""
        return Part(self.behind + further, self.time, self.text)


Parts: TypeAlias = Mapping[int, Part]
"""The unfinished line of each stream; in conmon's format a line has one part per read."""


def join(block: bytes, parts: Parts, *, final: bool = False) -> tuple[list[tuple[Record, int]], Parts]:
    """Reassemble records into whole lines, each with the offset after it, and what remains unfinished.

    Lines longer than LONGEST bytes are split as in dockerd, but not within a character. With `final` nothing remains.
    """
    joined: list[tuple[Record, int]] = []
    left = dict(parts)
    position = 0
    for line in block.split(b"\n")[:-1]:
        begun, position = position, position + len(line) + 1
        if (record := parse_plain(line)) is None:
            continue
        part = left.pop(record.stream, None) or Part(-begun, record.time, b"")
        text = part.text + record.text
        if not record.ends_line:
            cut = _incomplete(text) if len(text) >= LONGEST else len(text)
            if cut:
                left[record.stream] = Part(part.behind, part.time, text[len(text) - cut :])
            text = text[: len(text) - cut]
        if text or record.ends_line:
            joined.append((Record(part.time, record.stream, record.ends_line, text), position))
    if final:
        # Beyond the last byte: after a crash this distinguishes them from records forwarded before.
        joined.extend((Record(part.time, stream, False, part.text), position + 1) for stream, part in left.items())
        return joined, {}
    return joined, {stream: part.pushed(position) for stream, part in left.items()}


def _incomplete(text: bytes) -> int:
    """Number of bytes at the end of an incomplete UTF-8 character."""
    for back in range(1, min(3, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0


def _run_end(block: bytes, begun: int, parts: Parts) -> int:
    """The offset of the next line that is a part, or completes one; or the end."""
    end = len(block)
    for stream in parts:
        end = _next_line(block, begun, end, b" %s " % NAMES[stream], 0)
    return _next_line(block, begun, end, b" P ", 1)


def _next_line(block: bytes, begun: int, end: int, mark: bytes, spaces: int) -> int:
    """The offset of the next line with `mark` after so many spaces, or `end`; faster than a regular expression."""
    place = begun
    while (place := block.find(mark, place, end)) >= 0:
        start = block.rfind(b"\n", begun, place) + 1 or begun
        if block.count(b" ", start, place) == spaces:
            return start
        place += 1
    return end


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders blocks of conmon's records in a format on disk: whole lines many at once, split ones one by one."""

    lines: Callable[[bytes], bytes]
    one: Callable[[Record], bytes]

    def render(self, block: bytes, parts: Parts, *, final: bool = False) -> tuple[bytes, Parts]:
        """Render whole records of conmon's, and return what is unfinished; `parts` as for `join`."""
        pieces: list[bytes] = []
        begun = 0
        while begun < len(block):
            end = _run_end(block, begun, parts)
            if end > begun:
                pieces.append(self.lines(block[begun:end]))
                parts = {stream: part.pushed(end - begun) for stream, part in parts.items()}
            else:
                end = block.index(b"\n", begun) + 1
                records, parts = join(block[begun:end], parts)
                pieces.extend(self.one(record) for record, _ in records)
            begun = end
        if final:
            pieces.extend(self.one(record) for record, _ in join(b"", parts, final=True)[0])
            parts = {}
        return b"".join(pieces), parts


# -- conmon's form


def parse_plain(line: bytes) -> Record | None:
    """Parse a line without its newline; None if it is not a record (a write truncated by a full disk)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in STREAMS or parts[2] not in (b"F", b"P"):
        return None
    text = parts[3] if len(parts) == 4 else b""
    return Record(parts[0].replace(b"+00:00", b"Z"), STREAMS[parts[1]], parts[2] == b"F", text)


def render_plain(record: Record) -> bytes:
    """A record as conmon writes it."""
    tag = b"F" if record.ends_line else b"P"
    return b"%s+00:00 %s %s %s\n" % (record.time[:-1], NAMES[record.stream], tag, record.text)


def _same(lines: bytes) -> bytes:
    return lines


_text = itemgetter(slice(HEAD, None))


def _timed(line: bytes) -> bytes:
    return b"%sZ %s" % (line[:STAMP], line[HEAD:])


def _show_plain(block: bytes, timed: bool) -> list[LogChunk] | None:
    if timed and _count_plain(block) is None:
        return None
    chunks: list[LogChunk] = []
    for kind, run in groupby(block.split(b"\n")[:-1], kind_of):
        if kind is None:
            return None
        stream, ends_line = kind
        texts = map(_timed if timed else _text, run)
        chunks.append((stream, b"\n".join(texts) + b"\n" if ends_line else b"".join(texts)))
    return chunks


def _count_plain(block: bytes) -> int | None:
    return block.count(b"\n") if _run_end(block, 0, {}) == len(block) else None


PLAIN = Form(parse_plain, _show_plain, _count_plain)
PLAIN_RENDERER = Renderer(_same, render_plain)
