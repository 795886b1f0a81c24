"""Query values, filters, frames, progress lines, detach keys."""

from __future__ import annotations

import json

import pytest

from havre.cli.stream import Demultiplexer
from havre.errors import InvalidInput
from havre.wire import progress
from havre.wire.detach import DetachScanner, parse_keys
from havre.wire.filters import decode_filters
from havre.wire.frames import render_header
from havre.wire.queries import parse_bool, parse_duration_ns, parse_int, parse_time

NOW = 1_000_000.0


@pytest.mark.parametrize("value", ["1", "true", "yes", "x", "TRUE", " 1 "])
def test_true(value: str) -> None:
    assert parse_bool(value)


@pytest.mark.parametrize("value", [None, "", "0", "no", "FALSE", "none", " none "])
def test_false(value: str | None) -> None:
    assert not parse_bool(value)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("-1", -1), ("+5", 5), ("9223372036854775807", 2**63 - 1)])
def test_integers(text: str, value: int) -> None:
    assert parse_int(text, "t") == value


@pytest.mark.parametrize("text", ["", "x", "1.5", "1e3", "٣", "9223372036854775808", "1_0", "0x1", "--1"])
def test_not_integers(text: str) -> None:
    with pytest.raises(InvalidInput, match=" for t: expected an integer"):
        parse_int(text, "t")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1136073600", 1136073600.0),
        ("1136073600.000000001", 1136073600.000000001),
        ("1136073600.5", 1136073600.5),
        ("2006-01-01", 1136073600.0),
        ("2006-01-01T00:00:00Z", 1136073600.0),
        ("2006-01-01T01:00:00.25+01:00", 1136073600.25),
        ("2006-01-01T00:00", 1136073600.0),
        ("10m", NOW - 600),
        ("1h30m", NOW - 5400),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert parse_time(text, "since", NOW) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text", ["x", "2006-13-01", "2006-01-01T25:00:00Z", "10 m", "1136073600.1234567890", "", "10mm"]
)
def test_not_moments(text: str) -> None:
    with pytest.raises(InvalidInput, match="for since"):
        parse_time(text, "since", NOW)


def test_durations() -> None:
    assert parse_duration_ns("1.5s", "d") == 1_500_000_000
    assert parse_duration_ns("-2ms", "d") == -2_000_000
    assert parse_duration_ns("0", "d") == 0
    with pytest.raises(InvalidInput):
        parse_duration_ns("5", "d")


def test_both_shapes_of_filters() -> None:
    expected = {"status": ["running", "paused"], "label": ["a=b"]}
    assert decode_filters('{"status":{"running":true,"paused":false},"label":["a=b"],"name":{}}') == expected
    assert decode_filters("") == decode_filters("null") == {}


@pytest.mark.parametrize("text", ["x", "[]", '{"a":1}', '{"a":{"b":2}}', '{"a":[1]}', "{", '"a"'])
def test_malformed_filters(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid filter$"):
        decode_filters(text)


def test_frames_in_pieces() -> None:
    stream = render_header(1, 3) + b"abc" + render_header(2, 0) + render_header(2, 2) + b"de"
    reader = Demultiplexer()
    frames = [frame for index in range(len(stream)) for frame in reader.feed(stream[index : index + 1])]
    assert frames == [(1, b"abc"), (2, b""), (2, b"de")]


def test_progress_lines() -> None:
    line = progress.render_status("Downloading", "abc", 512, 1024, drawn=True)
    assert line.endswith(b"}\r\n")
    document = json.loads(line)
    assert document["progressDetail"] == {"current": 512, "total": 1024}
    assert document["progress"] == "[" + "=" * 25 + ">" + " " * 25 + "]     512B/1.024kB"
    assert "progress" not in json.loads(progress.render_status("Downloading", "abc", 512, 1024))
    assert json.loads(progress.render_error("no", 1)) == {"errorDetail": {"code": 1, "message": "no"}, "error": "no"}
    assert json.loads(progress.render_status("Pulling")) == {"status": "Pulling"}
    assert json.loads(progress.render_status("Waiting", "abc")) == {
        "status": "Waiting",
        "progressDetail": {},
        "id": "abc",
    }


def test_detach_keys() -> None:
    assert parse_keys("") == b"\x10\x11"
    assert parse_keys("ctrl-a,x,ctrl-@,ctrl-]") == b"\x01x\x00\x1d"
    for text in ("ctrl-", "ctrl-aa", "ab", ",", "é", "ctrl-A,a"):
        with pytest.raises(InvalidInput, match=rf"^Invalid detach keys \({text}\) provided"):
            parse_keys(text)


def test_detach_in_pieces() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"ab\x10") == (b"ab", False)
    assert scanner.feed(b"\x10") == (b"\x10", False)
    assert scanner.feed(b"c") == (b"\x10c", False)
    assert scanner.feed(b"\x10\x11later") == (b"", True)
