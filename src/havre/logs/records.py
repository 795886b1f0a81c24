r"""Records of logs, in the two forms in which they lie on disk. Pure.

conmon's form (k8s-file), which the driver `local` and the cache of remote drivers keep as it is:

    2026-11-24T13:00:04.303359690+00:00 stdout P a long
    2026-11-24T13:00:04.303361000+00:00 stdout F  line

F ends a line, P is a part of one (a read of at most 8 KiB that had no newline). And Docker's (json-file), a JSON object
a line, whose text has a newline where conmon's has an F:

    {"log":"a long","stream":"stdout","time":"2026-11-24T13:00:04.303359690Z"}
    {"log":" line\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-11-24T13:00:04.303361000Z"}

Docker's JSON is what Go writes: control characters, quotes, backslashes, <, >, &, U+2028 and U+2029 are escaped, and
what is not UTF-8 becomes U+FFFD. As in dockerd, a line comes when it is complete, or in records of 16 KiB.

Rendering the same bytes after the same unfinished lines gives the same bytes: after a crash, what is already written is
told by its length (`spool`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote_plus

import msgspec

#: Where dockerd cuts a line into records.
LONGEST = 16 << 10
STREAMS = {b"stdout": 1, b"stderr": 2}
_NAMES = {1: b"stdout", 2: b"stderr"}

LogLine: TypeAlias = tuple[int, bytes]
"""A line or a part of one, newline included, and the stream it was written to (1 stdout, 2 stderr)."""


@dataclass(frozen=True, slots=True)
class Record:
    """A line or a part of one: `text` is without newline, `time` RFC 3339 in UTC, `attrs` what `--details` shows."""

    time: bytes
    stream: int
    ends_line: bool
    text: bytes
    attrs: bytes = b""


@dataclass(frozen=True, slots=True)
class Form:
    """How records lie in a file: `parse` reads a line of it, `show` renders many of them in one go, untimed.

    `show(lines, wanted)` gives what a client sees of the streams in `wanted`.
    """

    parse: Callable[[bytes], Record | None]
    show: Callable[[Sequence[bytes], frozenset[int]], list[LogLine]]


# -- conmon's form


def parse_plain(line: bytes) -> Record | None:
    """A line without its newline; None for what is not a record (a write cut short by a full disk)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in STREAMS or parts[2] not in (b"F", b"P"):
        return None
    text = parts[3] if len(parts) == 4 else b""
    return Record(parts[0].replace(b"+00:00", b"Z"), STREAMS[parts[1]], parts[2] == b"F", text)


def _show_plain(lines: Sequence[bytes], wanted: frozenset[int]) -> list[LogLine]:
    names = {name: number for name, number in STREAMS.items() if number in wanted}
    shown: list[LogLine] = []
    for line in lines:
        _, _, rest = line.partition(b" ")
        name, _, rest = rest.partition(b" ")
        tag, _, text = rest.partition(b" ")
        if (stream := names.get(name)) is not None:
            if tag == b"F":
                shown.append((stream, text + b"\n"))
            elif tag == b"P":
                shown.append((stream, text))
    return shown


# -- lines made whole again


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a line whose end is still to come: its time, its text, and how many bytes ago it began."""

    behind: int
    time: bytes
    text: bytes


Parts: TypeAlias = Mapping[int, Part]
"""The unfinished line of each stream; in conmon's form a line has as many parts as it took to read it."""


def join(block: bytes, parts: Parts, *, final: bool = False) -> tuple[list[tuple[Record, int]], Parts]:
    """Whole lines of some records, each with the offset behind it; and what is left unfinished.

    Lines of more than LONGEST bytes are cut like dockerd's, but not within a character. With `final` nothing is left.
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
        # Behind the last byte: after a crash they are told from what was forwarded before.
        joined.extend((Record(part.time, stream, False, part.text), position + 1) for stream, part in left.items())
        return joined, {}
    return joined, {stream: Part(part.behind + position, part.time, part.text) for stream, part in left.items()}


def _incomplete(text: bytes) -> int:
    """How many bytes at the end begin a character of UTF-8 that is not complete."""
    for back in range(1, min(3, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0


# -- Docker's form, written

#: Bytes that stand for themselves in Docker's JSON; a block of nothing else is rendered by one substitution.
_UNCHANGED = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\<>&') + b"\n"
_FULL_LINE = re.compile(rb"^([^+\n]+)\+00:00 (std(?:out|err)) F ?(.*)$", re.MULTILINE)
_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\udc80-\udcff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def escape(text: bytes) -> bytes:
    """The inside of a JSON string, as Go writes it; every byte that is not UTF-8 becomes U+FFFD."""
    return _SPECIAL.sub(_escaped, text.decode("utf-8", "surrogateescape")).encode()


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def _next_part(block: bytes, begun: int) -> int:
    """Where the next line that is a part begins, or the end of the block; faster than a pattern."""
    place = begun
    while (place := block.find(b" P ", place)) >= 0:
        start = block.rfind(b"\n", begun, place) + 1 or begun
        if block.count(b" ", start, place) == 1:
            return start
        place += 1
    return len(block)


def render_attrs(attrs: Mapping[str, str]) -> bytes:
    """What stands between stream and time in every record; empty without attributes."""
    if not attrs:
        return b""
    pairs = (b'"%s":"%s"' % (escape(key.encode()), escape(value.encode())) for key, value in sorted(attrs.items()))
    return b',"attrs":{%s}' % b",".join(pairs)


class JsonRenderer:
    """Renders blocks of conmon's records as Docker's, each with the same attributes."""

    def __init__(self, attrs: Mapping[str, str]) -> None:
        self._attrs = render_attrs(attrs)
        template = rb'{"log":"\3\\n","stream":"\2"%s,"time":"\1Z"}'
        self._template = template % self._attrs.replace(b"\\", rb"\\")

    def render(self, block: bytes, parts: Parts, *, final: bool = False) -> tuple[bytes, Parts]:
        """Some whole lines of conmon's as Docker's; `parts` as for `join`.

        Runs of whole lines without special characters, which is most of most logs, take one substitution.
        """
        pieces: list[bytes] = []
        begun = 0
        while begun < len(block):
            end = begun
            if not parts:
                end = _next_part(block, begun)
            if end > begun and (run := self._render_run(block[begun:end])) is not None:
                pieces.append(run)
                begun = end
            else:
                end = end if end > begun else block.index(b"\n", begun) + 1
                records, parts = join(block[begun:end], parts)
                pieces.extend(self._object(record) for record, _ in records)
                begun = end
        if final:
            pieces.extend(self._object(record) for record, _ in join(b"", parts, final=True)[0])
            parts = {}
        return b"".join(pieces), parts

    def _render_run(self, lines: bytes) -> bytes | None:
        if lines.translate(None, _UNCHANGED):
            return None
        rendered, count = _FULL_LINE.subn(self._template, lines)
        return rendered if count == lines.count(b"\n") else None

    def _object(self, record: Record) -> bytes:
        end = b"\\n" if record.ends_line else b""
        shown = (escape(record.text), end, _NAMES[record.stream], self._attrs, record.time)
        return b'{"log":"%s%s","stream":"%s"%s,"time":"%s"}\n' % shown


# -- Docker's form, read


class _Object(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    attrs: dict[str, str] = {}
    time: str = ""


_decoder = msgspec.json.Decoder(_Object)
_HEAD, _NEXT = b'{"log":"', b'","stream":"std'


def parse_json(line: bytes) -> Record | None:
    """A line of Docker's form, from whichever engine; None for what is none."""
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    stream = STREAMS.get(found.stream.encode())
    if stream is None:
        return None
    text = found.log.encode("utf-8", "replace")
    attrs = ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(found.attrs.items()))
    return Record(_nine_digits(found.time), stream, text.endswith(b"\n"), text.removesuffix(b"\n"), attrs.encode())


def _nine_digits(moment: str) -> bytes:
    """dockerd leaves zeros at the end of the fraction away; `logs -t` shows them."""
    whole, _, fraction = moment.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z".encode()


def _show_json(lines: Sequence[bytes], wanted: frozenset[int]) -> list[LogLine]:
    shown: list[LogLine] = []
    for line in lines:
        head, found, tail = line.partition(_NEXT)
        if not found or not head.startswith(_HEAD):
            _append_parsed(shown, line, wanted)
            continue
        stream = 1 if tail.startswith(b"out") else 2 if tail.startswith(b"err") else 0
        if stream not in wanted:
            continue
        first = head.find(b"\\")
        if first == len(head) - 2 and head.endswith(b"\\n"):
            shown.append((stream, head[8:-2] + b"\n"))
        elif first < 0:
            shown.append((stream, head[8:]))
        else:
            _append_parsed(shown, line, wanted)
    return shown


def _append_parsed(shown: list[LogLine], line: bytes, wanted: frozenset[int]) -> None:
    record = parse_json(line)
    if record is not None and record.stream in wanted:
        shown.append((record.stream, record.text + (b"\n" if record.ends_line else b"")))


PLAIN = Form(parse_plain, _show_plain)
JSON = Form(parse_json, _show_json)


def take_whole(block: bytes, parts: Parts, *, final: bool = False) -> tuple[bytes, Parts]:
    """The renderer of what keeps conmon's form."""
    return block, {}
