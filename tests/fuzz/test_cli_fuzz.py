"""Whatever text they are given, the parsers of the command line end with a value or their own error."""

from __future__ import annotations

import contextlib
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from havre.cli import values
from havre.cli.format.table import align
from havre.cli.mounts import parse_mount
from havre.cli.parser import parse
from havre.cli.ports import parse_publish
from havre.cli.run_flags import RUN
from havre.cli.stream import Demultiplexer
from havre.cli.tty import DetachFilter
from havre.golang.flags import UsageError
from havre.golang.jsontext import decode, encode
from havre.golang.templates.gotypes import typed
from havre.golang.templates.lex import TemplateError
from havre.golang.templates.template import compile_template
from havre.golang.times import parse_time

PIECES = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", ".", ".A", ".B.C", "$", "$x", ":=", "=", "|", "(", ")", '"s"', "`r`", "'c'", "1", "0x1f",
     "-2.5", "if", "else", "end", "range", "with", "break", "len", "index", "json", "printf", "eq", "and", "slice",
     "nil", "true", " ", "\n", "/*", "*/", "text", ",", "é", '"%d %q %5.2f"']
)  # fmt: skip
WORDS = st.sampled_from(["-p80", "-it", "--name", "--rm=x", "-", "--", "-e", "A=b", "x", "--memory=1g"])
VALUE = typed({"A": [1, "x", None], "B": {"C": {"Labels": {"k": "v"}}}, "Env": None})


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=14).map(" ".join) | st.text(max_size=40))
def test_templates(text: str) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(compile_template(text).execute(VALUE), str)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS | st.text(max_size=8)))
def test_command_lines(words: list[str]) -> None:
    with contextlib.suppress(UsageError):
        parse(RUN, words, stop=True)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789:-/.[]=,tcpudKMGbi source\"'", max_size=24))
def test_values(text: str) -> None:
    for read in (values.read_bytes, values.read_duration, values.read_decimal, values.read_ulimit, values.read_network,
                 values.read_gpu_request, values.check_host, values.check_device, values.check_rate, parse_mount,
                 lambda spec: parse_publish([spec]), parse_time):  # fmt: skip
        with contextlib.suppress(ValueError):
            read(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["", "  "]), st.booleans())
def test_json_survives(value: object, indent: str, escape: bool) -> None:
    assert decode(encode(value, indent=indent, escape_html=escape)) == value


@given(st.text(alphabet=string.printable, max_size=30))
def test_json_decoding_raises_value_errors_alone(text: str) -> None:
    with contextlib.suppress(ValueError):
        decode(text)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20))), st.integers(1, 30))
def test_frames_are_put_together_again(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(bytes([kind, 0, 0, 0]) + len(body).to_bytes(4, "big") + body for kind, body in frames)
    demultiplexer = Demultiplexer()
    got = [part for i in range(0, len(data), step) for part in demultiplexer.feed(data[i : i + step])]
    assert got == frames


@given(st.lists(st.binary(max_size=5)), st.binary(min_size=1, max_size=3))
def test_detach_keys_hold_back_at_most_their_own_beginning(typed_bytes: list[bytes], keys: bytes) -> None:
    watcher = DetachFilter(keys)
    passed = b""
    for data in typed_bytes:
        more, over = watcher.feed(data)
        passed += more
        if over:
            return
    assert b"".join(typed_bytes).startswith(passed)
    assert len(b"".join(typed_bytes)) - len(passed) < len(keys)


@given(st.lists(st.lists(st.text(alphabet="ab é", max_size=14), min_size=1, max_size=4), min_size=1, max_size=5))
def test_every_cell_stands_in_its_line(lines: list[list[str]]) -> None:
    for cells, line in zip(lines, align(lines).split("\n"), strict=False):
        for cell in cells:
            assert cell in line
