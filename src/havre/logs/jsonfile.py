r"""Docker's log format on disk (json-file), one JSON object per line. Pure.

    {"log":"a long line\n","stream":"stdout","time":"2026-11-24T13:00:04.303359690Z"}
    {"log":"error\n","stream":"stderr","attrs":{"tag":"web"},"time":"2026-11-24T13:00:04.303361000Z"}

The JSON is as Go encodes it: control characters, quotes, backslashes, <, >, &, U+2028 and U+2029 are escaped, and
invalid
UTF-8 becomes U+FFFD.

Reading and writing process many lines at once and rely on the fixed width of everything around a text. conmon
timestamps
each read of its pipe, not each line, so that consecutive lines of fast output differ only in their text: one `replace`
exchanges what is between two texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from urllib.parse import quote_plus

import msgspec

from havre.logs.records import HEAD, NAMES, STAMP, STREAMS, Form, LogChunk, Record, Renderer, kind_of

# -- written

_ESCAPES = {ord("\\"): b"\\\\", ord('"'): b'\\"', ord("\r"): b"\\r"}  # the backslash first: the others add some
_ESCAPES |= {byte: b"\\u%04x" % byte for byte in (*range(0x20), *b"<>&") if byte not in b"\r\n"}
_UNCHANGED = bytes(byte for byte in range(0x80) if byte not in _ESCAPES)
_SEPARATORS = {"\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
# Up to this number of lines, rendering one by one is faster.
FEW = 60
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def escape(text: bytes) -> bytes:
    """The contents of JSON strings, one per line, as Go writes them; invalid UTF-8 becomes U+FFFD."""
    special = text.translate(None, _UNCHANGED)
    if not special:
        return text
    found = set(special)
    for byte, escaped in _ESCAPES.items():
        if byte in found:
            text = text.replace(bytes((byte,)), escaped)
    return text if special.isascii() else _escape_beyond_ascii(text)


def _escape_beyond_ascii(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        text = _NOT_UTF8.sub(r"\\ufffd", text.decode("utf-8", "surrogateescape")).encode()
    for separator, escaped in _SEPARATORS.items():
        text = text.replace(separator, escaped)
    return text


def escape_text(text: bytes) -> bytes:
    """The inside of a JSON string, as Go writes it."""
    return escape(text).replace(b"\n", b"\\n")


def render_attrs(attrs: Mapping[str, str]) -> bytes:
    """The part between stream and time in every record; empty without attributes."""
    if not attrs:
        return b""
    pairs = ((escape_text(text.encode()) for text in pair) for pair in sorted(attrs.items()))
    return b',"attrs":{%s}' % b",".join(b'"%s":"%s"' % (key, value) for key, value in pairs)


def _run_end(lines: bytes) -> int:
    """The end of the lines with the same prefix as the first; 0 if there are few."""
    head = b"\n" + lines[:HEAD]
    further = lines.count(head)
    if further < FEW or kind_of(lines) is None:
        return 0
    end = lines.index(b"\n", lines.rfind(head) + 1) + 1
    return end if lines.count(b"\n", 0, end) == further + 1 else 0


def json_renderer(attrs: Mapping[str, str]) -> Renderer:
    """A renderer of conmon's records as Docker's, all with the same attributes."""
    shared = render_attrs(attrs)
    behind = {stream: b'","stream":"%s"%s,"time":"' % (name, shared) for stream, name in NAMES.items()}

    def render_lines(lines: bytes) -> bytes:
        lines = escape(lines)
        pieces: list[bytes] = []
        while end := _run_end(lines):
            kind = kind_of(lines)
            assert kind is not None
            head, tail = lines[:HEAD], b'\\n%s%sZ"}\n' % (behind[kind[0]], lines[:STAMP])
            texts = lines[HEAD : end - 1].replace(b"\n" + head, tail + b'{"log":"')
            pieces += (b'{"log":"', texts, tail)
            lines = lines[end:]
        for kind, run in groupby(lines.split(b"\n")[:-1], kind_of):
            if kind is not None:
                middle = b"\\n" + behind[kind[0]]
                pieces += [b'{"log":"%s%s%sZ"}\n' % (line[HEAD:], middle, line[:STAMP]) for line in run]
        return b"".join(pieces)

    def render_one(record: Record) -> bytes:
        ending = b"\\n" if record.ends_line else b""
        return b'{"log":"%s%s%s%s"}\n' % (escape(record.text), ending, behind[record.stream], record.time)

    return Renderer(render_lines, render_one)


# -- read


class _Object(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    attrs: dict[str, str] = {}
    time: str = ""


_decoder = msgspec.json.Decoder(_Object)
_text_decoder = msgspec.json.Decoder(str)
_LOG = b'{"log":"'
_BEHIND_TEXT = re.compile(rb'","stream":"(stdout|stderr)"(?:,"attrs":\{.*\})?,"time":"')
_TIME = len('2026-11-24T13:00:04.303359690Z"}')


def parse_json(line: bytes) -> Record | None:
    """Parse a line of Docker's format; None for any other line."""
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    stream = STREAMS.get(found.stream.encode())
    if stream is None:
        return None
    text = found.log.encode("utf-8", "replace")
    attrs = ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(found.attrs.items()))
    moment = _nine_digits(found.time.removesuffix("Z").encode())
    return Record(moment, stream, text.endswith(b"\n"), text.removesuffix(b"\n"), attrs.encode())


def _nine_digits(moment: bytes) -> bytes:
    """dockerd strips trailing zeros of the fraction; `logs -t` shows them."""
    return moment.ljust(len("2026-11-24T13:00:04."), b".").ljust(len("2026-11-24T13:00:04.303359690"), b"0") + b"Z"


def _show(block: bytes, timed: bool) -> list[LogChunk] | None:
    """Records of dockerd's own files, whose times vary in width, are processed one by one."""
    *lines, _ = block.split(b"\n")
    if timed and _count(block) is None:
        return None
    if not block.startswith(_LOG) or block.count(b"\n" + _LOG) + 1 != len(lines):
        return None
    tail = len(lines[0]) - lines[0].find(b'","stream":"')
    chunks: list[LogChunk] = []
    for behind, run in groupby(lines, lambda line: line[-tail:-_TIME]):
        if (match := _BEHIND_TEXT.fullmatch(behind)) is None:
            return None
        if timed:
            escaped = b"".join([b"%s %s" % (line[-_TIME:-2], line[len(_LOG) : -tail]) for line in run])
        else:
            escaped = b"".join([line[len(_LOG) : -tail] for line in run])
        try:
            chunks.append((STREAMS[match[1]], _text_decoder.decode(b'"%s"' % escaped).encode("utf-8", "replace")))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    return chunks


def _count(block: bytes) -> int | None:
    lines = block.count(b"\n")
    return lines if block.count(b'\\n","stream":"') == lines else None


JSON = Form(parse_json, _show, _count)
