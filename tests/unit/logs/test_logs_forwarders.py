"""syslog and the journal, spoken to through sockets of the test's own."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.errors import Failed
from havre.logs.journald import Journald, field_name
from havre.logs.records import Record
from havre.logs.subject import Subject
from havre.logs.syslog import Syslog, Target, parse_target, render_message

SUBJECT = Subject(id="0123456789abcdef", name="web", image_id="sha256:0", image_name="nginx", labels={}, env={})
OUT = Record(b"2026-11-04T13:00:01.553420999Z", 1, True, b"hi there")
ERR = Record(b"2026-11-04T13:00:01.553420999Z", 2, True, b"err")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b"<30>Nov  4 13:00:01 web[7]: hi there\n"),
        ({"syslog-format": "rfc3164"}, b"<30>Nov  4 13:00:01 host web[7]: hi there\n"),
        ({"syslog-format": "rfc5424"}, b"<30>1 2026-11-04T13:00:01Z host web 7 web - hi there\n"),
        (
            {"syslog-format": "rfc5424micro", "syslog-facility": "local3"},
            b"<158>1 2026-11-04T13:00:01.553420Z host web 7 web - hi there\n",
        ),
        ({"syslog-facility": "17"}, b"<142>Nov  4 13:00:01 web[7]: hi there\n"),
    ],
)
def test_formats_of_syslog(options: dict[str, str], expected: bytes) -> None:
    assert render_message(OUT, parse_target(options), "web", "host", 7) == expected


def test_addresses() -> None:
    assert parse_target({"syslog-address": "udp://10.0.0.1"}) == Target(scheme="udp", host="10.0.0.1", port=514)
    assert parse_target({"syslog-address": "tcp+tls://[::1]:6514"}) == Target(scheme="tcp+tls", host="::1", port=6514)
    assert parse_target({"syslog-address": "unixgram:///dev/x"}) == Target(scheme="unixgram", path="/dev/x")


def test_messages_by_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        syslog = Syslog(Target(scheme="unixgram", path=path), "web")
        for record in (OUT, Record(b"", 1, True, b""), ERR):
            syslog.send(record)
        pid = os.getpid()
        assert server.recv(1000) == b"<30>Nov  4 13:00:01 web[%d]: hi there\n" % pid
        assert server.recv(1000) == b"<27>Nov  4 13:00:01 web[%d]: err\n" % pid
        syslog.close()


def test_a_server_that_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    syslog = Syslog(Target(scheme="tcp", host="127.0.0.1", port=port), "web")
    server.accept()[0].close()
    server.close()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):  # the first ones still go into the broken connection
            syslog.send(OUT)
    assert "are dropped: dial tcp 127.0.0.1" in caplog.text
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        syslog._delivery._silent_until = 0.0  # as if its time had come
        syslog.send(OUT)
        assert server.accept()[0].recv(1000).endswith(b": hi there\n")
    syslog.close()


def test_no_server_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"failed to initialize logging driver: dial unix /.*: connect: no such file"):
        Syslog(Target(scheme="unix", path=str(tmp_path / "none")), "web")
    with pytest.raises(Failed, match="failed to initialize logging driver: journald is not enabled on this host"):
        Journald(SUBJECT, "tag", {}, tmp_path / "none")


def fields(entry: bytes) -> dict[bytes, bytes]:
    """A datagram of the journal's protocol."""
    found = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[name] = value
        entry = rest
    return found


def test_entries_of_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        journal = Journald(SUBJECT, "web/1", {"com.example.a-b": "x\ny"}, path)
        journal.send(ERR)
        assert fields(server.recv(10000)) == {
            b"MESSAGE": b"err",
            b"PRIORITY": b"3",
            b"SYSLOG_TIMESTAMP": ERR.time,
            b"CONTAINER_ID": b"0123456789ab",
            b"CONTAINER_ID_FULL": b"0123456789abcdef",
            b"CONTAINER_NAME": b"web",
            b"CONTAINER_TAG": b"web/1",
            b"SYSLOG_IDENTIFIER": b"web/1",
            b"IMAGE_NAME": b"nginx",
            b"COM_EXAMPLE_A_B": b"x\ny",
        }
        journal.send(Record(b"t", 1, False, b"be"))
        journal.send(Record(b"t", 1, True, b"gin"))
        first, last = fields(server.recv(10000)), fields(server.recv(10000))
        assert first[b"CONTAINER_PARTIAL_ID"] == last[b"CONTAINER_PARTIAL_ID"]
        assert (first[b"CONTAINER_PARTIAL_ORDINAL"], first[b"CONTAINER_PARTIAL_LAST"]) == (b"1", b"false")
        assert (last[b"CONTAINER_PARTIAL_ORDINAL"], last[b"CONTAINER_PARTIAL_LAST"]) == (b"2", b"true")
        journal.close()
    assert field_name("_odd.name") == "ODD_NAME"


def test_a_journal_that_was_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        journal = Journald(SUBJECT, "web", {}, path)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        journal.send(OUT)
        assert fields(server.recv(10000))[b"MESSAGE"] == b"hi there"
    journal.close()
