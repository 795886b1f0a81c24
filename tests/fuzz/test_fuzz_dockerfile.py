"""Dockerfiles from anybody: refused with a message or understood, never a crash, never for long."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from havre.dockerfile.mounts import parse_mount
from havre.dockerfile.words import expand, split, split_raw
from havre.errors import InvalidInput
from support.buildtext import render

_PIECES = st.sampled_from(
    ["FROM a", "AS b", "RUN", "COPY", "ADD", "ENV", "ONBUILD", "HEALTHCHECK", "ARG", "EXPOSE", "--from=b", "--mount=",
     "type=cache", "<<E", "<<-'E'", "E", "\n", " ", "\\", "\\\n", "#", "`", "# escape=`", "$", "${", "}", ":-", "//",
     "%*", '"', "'", "[", "]", ",", "=", "80", "é", "\0", "\t", "\r\n"]
)  # fmt: skip
_TEXT = st.lists(_PIECES | st.text(max_size=3), max_size=40).map("".join)


@settings(max_examples=300, deadline=None)
@given(_TEXT)
def test_any_text(text: str) -> None:
    render(f"FROM a\n{text}".encode(errors="replace"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    render(data)


@settings(max_examples=300, deadline=None)
@given(_TEXT, st.sampled_from(["\\", "`"]), st.booleans())
def test_words(text: str, escape: str, raw: bool) -> None:
    try:
        expand(text, {"A": "x" * 50, "B": ""}, escape, raw=raw)
        split(text, {"A": "x y"}, escape)
    except InvalidInput:
        return
    assert "".join(split_raw(text, escape)) or not text.strip() or escape in text


@settings(max_examples=200, deadline=None)
@given(_TEXT)
def test_mounts(text: str) -> None:
    try:
        parse_mount(text)
    except InvalidInput:
        return
