"""Foreign bytes into the decoders of `wire`: a value or `InvalidInput`, never anything else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from havre.api.bodies import Chunked
from havre.cli.stream import Demultiplexer
from havre.errors import InvalidInput
from havre.wire.config import CreateRequest
from havre.wire.decode import decode_body
from havre.wire.detach import DetachScanner
from havre.wire.filters import decode_filters
from havre.wire.frames import render_header
from havre.wire.queries import parse_duration_ns, parse_int, parse_time
from havre.wire.versions import NEWEST, OLDEST, parse_version

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["Image", "image", "HOSTCONFIG", "HostConfig", "Env", "Healthcheck", "Labels", "Memory", "Binds"]
)
BODIES = st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=3), max_size=4)


@settings(max_examples=200, deadline=None)
@given(BODIES.map(json.dumps).map(str.encode) | st.binary(max_size=64))
def test_bodies(body: bytes) -> None:
    with suppress(InvalidInput):
        assert isinstance(decode_body(body, CreateRequest), CreateRequest)


@settings(max_examples=200, deadline=None)
@given(JSON.map(json.dumps) | st.text(max_size=32))
def test_filters(text: str) -> None:
    with suppress(InvalidInput):
        filters = decode_filters(text)
        assert decode_filters(json.dumps(filters)) == filters


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50)), max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_frames_survive_any_cutting(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(render_header(number, len(data)) + data for number, data in frames)
    reader, seen, position = Demultiplexer(), [], 0
    while position < len(stream):
        step = cuts[position % len(cuts)]
        seen += reader.feed(stream[position : position + step])
        position += step
    assert seen == [(1 if number < 2 else 2, data) for number, data in frames]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_frames_from_anything(data: bytes) -> None:
    assert sum(8 + len(payload) for _, payload in Demultiplexer().feed(data)) <= len(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"\x10", b"\x11", b"\x10\x11", b"ab\x10"]), max_size=8))
def test_detaching_does_not_depend_on_the_cutting(pieces: list[bytes]) -> None:
    whole, keys = b"".join(pieces), b"\x10\x11"
    scanner, passed, detached = DetachScanner(keys), b"", False
    for piece in pieces:
        out, detached = scanner.feed(piece)
        passed += out
        if detached:
            break
    assert detached == (keys in whole)
    assert whole.startswith(passed)
    assert len(passed) >= (whole.find(keys) if detached else len(whole) - 1)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=24) | st.from_regex(r"[0-9TZ:.+-]{0,30}", fullmatch=True))
def test_query_values(text: str) -> None:
    parsers: list[Any] = [
        lambda: parse_int(text, "x"),
        lambda: parse_time(text, "x", 0.0),
        lambda: parse_duration_ns(text, "x"),
    ]
    for parse in parsers:
        with suppress(InvalidInput):
            assert isinstance(parse(), int | float)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=8) | st.from_regex(r"[0-9.]{0,12}", fullmatch=True))
def test_versions(text: str) -> None:
    with suppress(InvalidInput):
        assert OLDEST <= parse_version(text) <= NEWEST


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"0", b"3", b"a", b"\r\n", b"\n", b"\r", b";x", b"abc", b" ", b"ffffffffffffffff"]),
        max_size=20,
    ),
    st.integers(1, 8),
)
def test_chunks(pieces: list[bytes], step: int) -> None:
    wire, body, kept = b"".join(pieces), Chunked(), 0
    with suppress(InvalidInput):
        for at in range(0, len(wire), step):
            piece = bytearray(wire[at : at + step])
            kept += body.strip(piece, len(piece))
    assert kept <= len(wire)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 40))
def test_chunks_come_out_as_they_went_in(chunks: list[bytes], step: int) -> None:
    wire, body, received = b"".join(b"%X\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n", Chunked(), b""
    for at in range(0, len(wire), step):
        piece = bytearray(wire[at : at + step])
        received += piece[: body.strip(piece, len(piece))]
    assert (received, body.ended) == (b"".join(chunks), True)
