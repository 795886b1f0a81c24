"""The Protocol Buffers codec, by value; the expected bytes are the encoding's documentation's or protoc's."""

# ruff: noqa: RUF009 (defaults that declare fields)

from __future__ import annotations

from dataclasses import dataclass

import pytest

from havre.api.buildkit import messages, protobuf
from havre.api.buildkit.protobuf import Message, decode, encode


@dataclass
class Sample(Message):
    count: int = protobuf.number(1)
    name: str = protobuf.text(2)
    on: bool = protobuf.flag(3)
    many: list[str] = protobuf.repeated(4, str)
    map: dict[str, str] = protobuf.mapping(5, str)
    stat: messages.Stat | None = protobuf.embedded(16, messages.Stat)


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (Sample(), b""),
        (Sample(count=150), b"\x08\x96\x01"),
        (Sample(count=-1), b"\x08" + b"\xff" * 9 + b"\x01"),
        (Sample(name="testing"), b"\x12\x07testing"),
        (Sample(on=True), b"\x18\x01"),
        (Sample(many=["a", ""]), b"\x22\x01a\x22\x00"),
        (Sample(map={"k": "v"}), b"\x2a\x06\x0a\x01k\x12\x01v"),
        (Sample(stat=messages.Stat(size=1)), b"\x82\x01\x02\x28\x01"),
        (Sample(name="caf\udce9"), b"\x12\x04caf\xe9"),
    ],
)
def test_messages_and_their_bytes(message: Sample, encoded: bytes) -> None:
    assert encode(message) == encoded
    assert decode(Sample, encoded) == message


def test_unknown_fields_of_every_kind_are_skipped() -> None:
    unknown = b"\x98\x06\x01" + b"\x99\x06" + bytes(8) + b"\x9a\x06\x02ab" + b"\x9d\x06" + bytes(4)
    assert decode(Sample, unknown + b"\x18\x01") == Sample(on=True)


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x08",
        b"\x08" + b"\xff" * 11,
        b"\x12\x05abc",
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x0a\x01a",
        b"\x13",
        b"\x2a\x02\x0a\x05",
        b"\x82\x01\x01\x28",
    ],
    ids=["cut number", "long number", "cut text", "huge text", "wrong wire type", "group", "cut map", "cut message"],
)
def test_what_is_no_message_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError):
        decode(Sample, encoded)
