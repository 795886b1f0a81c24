"""The forms of records: conmon's made whole, Docker's written and read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havre.logs.records import JSON, LONGEST, PLAIN, JsonRenderer, Parts, join, parse_json, parse_plain

STAMP = b"2026-11-24T13:00:01.000000001+00:00"
BOTH = frozenset({1, 2})


def line(text: bytes, tag: bytes = b"F", stream: bytes = b"stdout") -> bytes:
    return b"%s %s %s %s\n" % (STAMP, stream, tag, text)


def logs(rendered: bytes) -> list[str]:
    return [json.loads(each)["log"] for each in rendered.splitlines()]


def test_dockers_form_to_the_byte() -> None:
    rendered, _ = JsonRenderer({"tag": "a<b", "A": "1"}).render(line(b'hi <b> & "q" \\ \t\x01\x7f \xc3\xa4'), {})
    assert rendered == (
        rb'{"log":"hi \u003cb\u003e \u0026 \"q\" \\ \u0009\u0001' + b"\x7f \xc3\xa4" + rb'\n","stream":"stdout",'
        rb'"attrs":{"A":"1","tag":"a\u003cb"},"time":"2026-11-24T13:00:01.000000001Z"}' + b"\n"
    )


def test_plain_lines_look_the_same_on_the_short_way() -> None:
    attrs = {"x": 'back\\slash "'}
    short, _ = JsonRenderer(attrs).render(line(b" two  spaces") + line(b"", stream=b"stderr"), {})
    long, _ = JsonRenderer(attrs).render(line(b" two  spaces") + line(b"", stream=b"stderr") + line(b"\x01"), {})
    assert long.startswith(short)
    assert logs(short) == [" two  spaces\n", "\n"]


def test_rubbish_is_dropped() -> None:
    rendered, _ = JsonRenderer({}).render(line(b"a") + b"cut sho\n" + line(b"b"), {})
    assert logs(rendered) == ["a\n", "b\n"]
    assert parse_plain(b"") is None
    assert parse_plain(b"t stdout X text") is None
    assert parse_json(b'{"log":"x"') is None


def test_bytes_that_are_not_utf8_are_replaced_one_by_one() -> None:
    rendered, _ = JsonRenderer({}).render(line(b"\xff\xfe \xed\xa0\x80 \xe2\x80\xa8"), {})
    assert rb"\ufffd\ufffd \ufffd\ufffd\ufffd \u2028" in rendered


def test_parts_become_lines_beside_the_other_stream() -> None:
    block = line(b"pro", b"P") + line(b"error", stream=b"stderr") + line(b"mpt \xc3", b"P") + line(b"\xa4")
    rendered, parts = JsonRenderer({}).render(block, {})
    assert logs(rendered) == ["error\n", "prompt ä\n"]
    assert not parts


def test_an_unfinished_line_waits_and_ends_with_the_container() -> None:
    rendered, parts = JsonRenderer({}).render(line(b"no") + line(b"half", b"P"), {})
    assert logs(rendered) == ["no\n"]
    rendered, parts = JsonRenderer({}).render(line(b" way", b"P"), parts)
    assert rendered == b""
    assert logs(JsonRenderer({}).render(b"", parts, final=True)[0]) == ["half way"]


def test_long_lines_are_cut_but_no_character_is() -> None:
    text = "ä" * LONGEST
    data = b"x" + text.encode()
    pieces = [data[place : place + 8192] for place in range(0, len(data), 8192)]
    block = b"".join(line(piece, b"P") for piece in pieces) + line(b"")
    shown = logs(JsonRenderer({}).render(block, {})[0])
    assert "".join(shown) == "x" + text + "\n"
    assert all(len(each.encode()) <= LONGEST + 8192 for each in shown)
    assert len(shown) > 1


_records = st.lists(
    st.tuples(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), st.booleans(), st.booleans())
)


@given(_records, st.integers(0, 60))
def test_rendering_in_two_steps_is_rendering_in_one(records: list[tuple[bytes, bool, bool]], cut: int) -> None:
    lines = [line(text, b"F" if ends else b"P", b"stdout" if out else b"stderr") for text, ends, out in records]
    renderer = JsonRenderer({})
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


@given(st.lists(st.text().map(lambda text: text.replace("\n", ""))))
def test_what_is_written_is_read(texts: list[str]) -> None:
    block = b"".join(line(text.encode()) for text in texts)
    rendered, _ = JsonRenderer({}).render(block, {})
    expected = [(1, text.encode() + b"\n") for text in texts]
    assert JSON.show(rendered.split(b"\n")[:-1], BOTH) == expected
    assert PLAIN.show(block.split(b"\n")[:-1], BOTH) == expected


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
    assert JSON.show([b'{"stream":"stdout","log":"other order\\n","time":""}'], BOTH) == [(1, b"other order\n")]


@pytest.mark.parametrize("rubbish", [b"[]", b"\xff\xfe", b'{"log":1}', b'{"log":"a","stream":"stdin"}'])
def test_foreign_rubbish(rubbish: bytes) -> None:
    assert parse_json(rubbish) is None
    assert JSON.show([rubbish], BOTH) == []
