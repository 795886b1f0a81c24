"""The forms of records: conmon's made whole, Docker's written and read."""

from __future__ import annotations

import json
from itertools import groupby
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havre.logs import jsonfile
from havre.logs.jsonfile import JSON, json_renderer, parse_json
from havre.logs.records import LONGEST, PLAIN, PLAIN_RENDERER, Form, LogChunk, Parts, join, parse_plain

STAMP = b"2026-11-24T13:00:01.000000001+00:00"


def line(text: bytes, tag: bytes = b"F", stream: bytes = b"stdout") -> bytes:
    return b"%s %s %s %s\n" % (STAMP, stream, tag, text)


def logs(rendered: bytes) -> list[str]:
    return [json.loads(each)["log"] for each in rendered.splitlines()]


def test_dockers_form_to_the_byte() -> None:
    rendered, _ = json_renderer({"tag": "a<b", "A": "1"}).render(line(b'hi <b> & "q" \\ \t\x01\x7f \xc3\xa4'), {})
    assert rendered == (
        rb'{"log":"hi \u003cb\u003e \u0026 \"q\" \\ \u0009\u0001' + b"\x7f \xc3\xa4" + rb'\n","stream":"stdout",'
        rb'"attrs":{"A":"1","tag":"a\u003cb"},"time":"2026-11-24T13:00:01.000000001Z"}' + b"\n"
    )


def test_plain_lines_look_the_same_on_the_short_way() -> None:
    attrs = {"x": 'back\\slash "'}
    short, _ = json_renderer(attrs).render(line(b" two  spaces") + line(b"", stream=b"stderr"), {})
    long, _ = json_renderer(attrs).render(line(b" two  spaces") + line(b"", stream=b"stderr") + line(b"\x01"), {})
    assert long.startswith(short)
    assert logs(short) == [" two  spaces\n", "\n"]


def test_rubbish_is_dropped() -> None:
    rendered, _ = json_renderer({}).render(line(b"a") + b"cut sho\n" + line(b"b"), {})
    assert logs(rendered) == ["a\n", "b\n"]
    assert parse_plain(b"") is None
    assert parse_plain(b"t stdout X text") is None
    assert parse_json(b'{"log":"x"') is None


def test_bytes_that_are_not_utf8_are_replaced_one_by_one() -> None:
    rendered, _ = json_renderer({}).render(line(b"\xff\xfe \xed\xa0\x80 \xe2\x80\xa8"), {})
    assert rb"\ufffd\ufffd \ufffd\ufffd\ufffd \u2028" in rendered


def test_parts_become_lines_beside_the_other_stream() -> None:
    block = line(b"pro", b"P") + line(b"error", stream=b"stderr") + line(b"mpt \xc3", b"P") + line(b"\xa4")
    rendered, parts = json_renderer({}).render(block, {})
    assert logs(rendered) == ["error\n", "prompt ä\n"]
    assert not parts


def test_an_unfinished_line_waits_and_ends_with_the_container() -> None:
    rendered, parts = json_renderer({}).render(line(b"no") + line(b"half", b"P"), {})
    assert logs(rendered) == ["no\n"]
    rendered, parts = json_renderer({}).render(line(b" way", b"P"), parts)
    assert rendered == b""
    assert logs(json_renderer({}).render(b"", parts, final=True)[0]) == ["half way"]


def test_long_lines_are_cut_but_no_character_is() -> None:
    text = "ä" * LONGEST
    data = b"x" + text.encode()
    pieces = [data[place : place + 8192] for place in range(0, len(data), 8192)]
    block = b"".join(line(piece, b"P") for piece in pieces) + line(b"")
    shown = logs(json_renderer({}).render(block, {})[0])
    assert "".join(shown) == "x" + text + "\n"
    assert all(len(each.encode()) <= LONGEST + 8192 for each in shown)
    assert len(shown) > 1


_records = st.lists(
    st.tuples(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), st.booleans(), st.booleans())
)


@given(_records, st.integers(0, 60))
def test_rendering_in_two_steps_is_rendering_in_one(records: list[tuple[bytes, bool, bool]], cut: int) -> None:
    lines = [line(text, b"F" if ends else b"P", b"stdout" if out else b"stderr") for text, ends, out in records]
    renderer = json_renderer({})
    whole, _ = renderer.render(b"".join(lines), {}, final=True)
    first, parts = renderer.render(b"".join(lines[:cut]), {})
    second, _ = renderer.render(b"".join(lines[cut:]), parts, final=True)
    assert first + second == whole


@given(_records, st.integers(0, 60))
def test_unfinished_lines_are_found_again(records: list[tuple[bytes, bool, bool]], cut: int) -> None:
    """What is unfinished follows from the bytes since the first of its parts."""
    block = b"".join(line(text, b"F" if ends else b"P", b"stdout" if out else b"stderr") for text, ends, out in records)
    _, parts = join(block, {})
    behind = max((part.behind for part in parts.values()), default=0)
    again: Parts = join(block[len(block) - behind :], {})[1]
    assert again == parts


#: Texts that look like what stands around texts.
_texts = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.sampled_from(
        [b'","stream":"stderr","time":"', b'"}', b'{"log":"', b"%s %", b" P ", b" stderr ", b"+00:00 stdout F ", b"\\n"]
    ),
).map(lambda text: text.replace(b"\n", b""))


@given(st.lists(_texts, max_size=8), st.booleans(), st.booleans(), st.integers(0, 3))
def test_many_lines_are_rendered_as_each_of_them(
    texts: list[bytes], one_stamp: bool, one_stream: bool, few: int
) -> None:
    lines = []
    for number, text in enumerate(texts):
        whole = line(text, stream=b"stdout" if one_stream or number % 3 else b"stderr")
        lines.append(whole if one_stamp else whole.replace(b":01.0", b":0%d.0" % (number // 2)))
    for renderer in (json_renderer({"a": "%s"}), PLAIN_RENDERER):
        with mock.patch.object(jsonfile, "FEW", few):
            whole, _ = renderer.render(b"".join(lines), {})
        assert whole == b"".join(renderer.render(each, {})[0] for each in lines)


def one_by_one(form: Form, block: bytes, timed: bool) -> list[LogChunk]:
    records = [record for record in map(form.parse, block.split(b"\n")[:-1]) if record]
    head = [record.time + b" " if timed else b"" for record in records]
    end = [b"\n" if record.ends_line else b"" for record in records]
    return [(r.stream, h + r.text + e) for r, h, e in zip(records, head, end, strict=True)]


def joined(chunks: list[LogChunk]) -> list[LogChunk]:
    return [(stream, b"".join(data for _, data in run)) for stream, run in groupby(chunks, lambda chunk: chunk[0])]


@given(_records, st.lists(_texts), st.booleans(), st.booleans())
def test_many_lines_are_read_as_each_of_them(
    records: list[tuple[bytes, bool, bool]], texts: list[bytes], timed: bool, attributes: bool
) -> None:
    block = b"".join(line(text, b"F" if ends else b"P", b"stdout" if out else b"stderr") for text, ends, out in records)
    block += b"".join(line(text) for text in texts)
    renderer = json_renderer({"a": '"}', "b": "{"} if attributes else {})
    for form, written in ((JSON, renderer.render(block, {})[0]), (PLAIN, block)):
        shown = form.show(written, timed) if written else []
        assert shown is None or joined(shown) == joined(one_by_one(form, written, timed))
        assert shown is not None or timed


@given(st.lists(st.text().map(lambda text: text.replace("\n", "")), min_size=1))
def test_what_is_written_is_read(texts: list[str]) -> None:
    block = b"".join(line(text.encode()) for text in texts)
    rendered, _ = json_renderer({}).render(block, {})
    expected = b"".join(text.encode() + b"\n" for text in texts)
    assert JSON.show(rendered, False) == [(1, expected)]
    assert PLAIN.show(block, False) == [(1, expected)]
    assert JSON.count(rendered) == len(texts)


def test_dockerds_own_files_are_read() -> None:
    record = parse_json(b'{"log":"a\\n","stream":"stderr","attrs":{"b":"1 &","a":"x"},"time":"2026-11-24T13:00:01.5Z"}')
    assert record is not None
    assert (record.time, record.stream, record.ends_line, record.text, record.attrs) == (
        b"2026-11-24T13:00:01.500000000Z",
        2,
        True,
        b"a",
        b"a=x,b=1+%26",
    )
    other_order = parse_json(b'{"stream":"stdout","log":"other order\\n","time":"2026-11-24T13:00:01Z"}')
    assert other_order is not None
    assert (other_order.text, other_order.time) == (b"other order", b"2026-11-24T13:00:01.000000000Z")


@pytest.mark.parametrize("rubbish", [b"[]", b"\xff\xfe", b'{"log":1}', b'{"log":"a","stream":"stdin"}'])
def test_foreign_rubbish(rubbish: bytes) -> None:
    assert parse_json(rubbish) is None
    assert JSON.show(rubbish + b"\n", False) is None
