"""What gelf and fluentd are told, by value, and an fluentd that is away."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from havre.errors import InvalidInput
from havre.logs.fluentd import Fluentd, FluentdTarget, pack_map, pack_time, parse_fluentd
from havre.logs.gelf import Gelf, GelfTarget, cut, parse_gelf, render_fields, render_gelf
from havre.logs.records import Record
from havre.logs.subject import Subject

SUBJECT = Subject(id="0123456789abcdef", name="web", image_id="sha256:0", image_name="nginx", labels={}, env={})
OUT = Record(b"2026-11-04T13:00:01.553420999Z", 1, True, b"hi there")
AT = 1793797201
TCP_OPTIONS = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(b".553420999", b"1793797201.553"), (b".550000001", b"1793797201.55"), (b".0001", b"1793797201")],
)
def test_times_of_gelf_are_as_dockerd_rounds_them(fraction: bytes, shown: bytes) -> None:
    message = render_gelf(OUT._replace(time=b"2026-11-04T13:00:01" + fraction + b"Z"), "h", b"")
    assert b',"timestamp":' + shown + b',"level"' in message


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_messages_of_gelf_are_json(text: str, tag: str, attrs: dict[str, str]) -> None:
    record = OUT._replace(text=text.encode())
    message = json.loads(render_gelf(record, "h", render_fields(SUBJECT, tag, attrs)))
    assert message["short_message"] == text
    assert message["_tag"] == attrs.get("tag", tag)
    assert all(message[f"_{name}"] == value for name, value in attrs.items())


def test_what_is_too_long_for_gelf() -> None:
    assert [len(packet) for packet in cut(bytes(1420))] == [1420]
    assert [len(packet) for packet in cut(bytes(1421))] == [1420, 25]
    assert len(cut(bytes(128 * 1408))) == 128
    assert cut(bytes(128 * 1408 + 1)) == []


@given(st.dictionaries(st.text(), st.text(), max_size=40), st.text(min_size=300, max_size=400), st.integers(0, 500))
def test_maps_of_fluentd(fields: dict[str, str], long: str, times: int) -> None:
    fields["long"] = long * times
    assert msgspec.msgpack.decode(pack_map({name: value.encode() for name, value in fields.items()})) == fields


def test_times_of_fluentd() -> None:
    assert msgspec.msgpack.decode(pack_time(OUT.time, False)) == AT
    precise = msgspec.msgpack.decode(pack_time(OUT.time, True))
    assert (precise.code, bytes(precise.data)) == (0, AT.to_bytes(4) + (553420999).to_bytes(4))


def test_targets() -> None:
    assert parse_gelf({"gelf-address": "tcp://[::1]:12201", "gelf-tcp-max-reconnect": "7"}) == GelfTarget(
        scheme="tcp", host="::1", port=12201, attempts=7
    )
    endless = parse_gelf({"gelf-address": "tcp://h:1", **dict.fromkeys(TCP_OPTIONS, str(2**63 - 1))})
    assert (endless.attempts, endless.pause_s) == (100, 60)
    for option in TCP_OPTIONS:
        with pytest.raises(InvalidInput, match=f'"{option}" must be a positive integer'):
            parse_gelf({"gelf-address": "tcp://h:1", option: "9" * 5000})
    assert parse_fluentd({}) == FluentdTarget()
    assert parse_fluentd({"fluentd-address": "h"}) == FluentdTarget(host="h")
    assert parse_fluentd({"fluentd-address": "tls://[::1]:1", "fluentd-async-connect": "1"}) == FluentdTarget(
        scheme="tls", host="::1", port=1, later=True
    )
    with pytest.raises(InvalidInput, match="path is empty"):
        parse_fluentd({"fluentd-address": "unix://"})


def test_a_server_that_is_away_is_not_tried_for_each_line(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gelf = Gelf(replace(parse_gelf({"gelf-address": f"tcp://127.0.0.1:{server.getsockname()[1]}"}), pause_s=0),
                    SUBJECT, "web", {})  # fmt: skip
        server.accept()[0].close()
    for _ in range(1000):
        gelf.send(OUT)
    assert 1 <= caplog.text.count("log lines are dropped") < 10
    gelf.close()


def read_all(server: socket.socket) -> bytes:
    with server.accept()[0] as connection, connection.makefile("rb") as file:
        return file.read()


def test_what_waits_for_fluentd_is_bounded_and_sent_in_order(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    target = FluentdTarget(port=port, later=True, buffer_events=5, wait_s=50.0)
    fluentd = Fluentd(target, SUBJECT, "web", {})
    for number in range(20):
        fluentd.send(OUT._replace(text=b"line %d." % number))
    assert "a log event is dropped: 5 wait for fluentd" in caplog.text
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        fluentd.close()
        heard = read_all(server)
    found = [int(each) for each in re.findall(rb"line (\d+)\.", heard)]
    assert found[:5] == list(range(5))
    assert found[5:] == [] or 5 <= found[-1] < 20  # one more, where the thread had taken the first by then
    assert len(found) <= 6


def test_an_fluentd_that_never_comes_holds_nobody_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fluentd = Fluentd(replace(FluentdTarget(port=port), later=True, wait_s=50.0), SUBJECT, "web", {})
    for _ in range(1000):
        fluentd.send(OUT)
    begun = time.monotonic()
    fluentd.close()
    assert time.monotonic() - begun < 4
