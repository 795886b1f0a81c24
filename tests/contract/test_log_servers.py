"""The drivers gelf and fluentd: what servers of the test's own are told, and what `logs` still knows."""

from __future__ import annotations

import gzip
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from support.engines import Engine
from support.netns import opened_inside

NAMED = ("-l", "x=1 \t2", "-e", "A=b")
CHOSEN = ("labels=x", "env=A", "tag=t/{{.Name}}")
SCRIPT = "echo 'hi \"<&>'; echo; usleep 200000; printf end >&2"


@pytest.fixture(autouse=True)
def teller(engine: Engine) -> Iterator[None]:
    """The container of a test goes, however it ends."""
    yield
    engine.docker("rm", "-f", "teller")


def tell(engine: Engine, driver: str, *options: str, script: str = SCRIPT) -> str:
    """Run a container; its ID."""
    chosen = [word for option in options for word in ("--log-opt", option)]
    engine.out("run", "--name", "teller", *NAMED, "--log-driver", driver, *chosen, "busybox", "sh", "-c", script)
    return engine.out("inspect", "-f", "{{.Id}}", "teller")


@contextmanager
def udp_server(engine: Engine) -> Iterator[tuple[socket.socket, str]]:
    with opened_inside(engine.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def tcp_server(engine: Engine, serve: Callable[[socket.socket], bytes]) -> Iterator[tuple[str, Future[bytes]]]:
    """A server of one connection; its address, and what `serve` made of it."""
    with (
        opened_inside(engine.netns, lambda: socket.create_server(("127.0.0.1", 0))) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        server.settimeout(20)

        def accept() -> bytes:
            connection = server.accept()[0]
            with connection:
                connection.settimeout(20)
                return serve(connection)

        yield f"127.0.0.1:{server.getsockname()[1]}", threads.submit(accept)


def all_of(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as file:
        return file.read()


def check_cache(engine: Engine) -> None:
    done = engine.docker("logs", "teller")
    assert (done.stdout, done.stderr) == ('hi "<&>\n\n', "end")


def check_gelf(engine: Engine, container: str, out: dict[str, Any], error: dict[str, Any]) -> None:
    assert (out["version"], out["short_message"], out["level"]) == ("1.1", 'hi "<&>', 6)
    assert out["host"] == socket.gethostname()
    assert abs(out["timestamp"] - time.time()) < 60
    assert {name: value for name, value in out.items() if name.startswith("_")} == {
        "_A": "b",
        "_command": f"sh -c {SCRIPT}",
        "_container_id": container,
        "_container_name": "teller",
        "_created": engine.out("inspect", "-f", "{{.Created}}", "teller"),
        "_image_id": engine.out("inspect", "-f", "{{.Image}}", "teller"),
        "_image_name": "busybox",
        "_tag": "t/teller",
        "_x": "1 \t2",
    }
    assert error.keys() == out.keys()
    assert (error["short_message"], error["level"]) == ("end", 3)
    check_cache(engine)


@pytest.mark.parametrize(
    ("options", "unpack"),
    [
        ((), gzip.decompress),
        (("gelf-compression-type=zlib", "gelf-compression-level=9"), zlib.decompress),
        (("gelf-compression-type=none",), bytes),
    ],
)
def test_gelf_by_udp(engine: Engine, options: tuple[str, ...], unpack: Callable[[bytes], bytes]) -> None:
    with udp_server(engine) as (server, address):
        container = tell(engine, "gelf", f"gelf-address=udp://{address}", *CHOSEN, *options)
        out, error = (json.loads(unpack(server.recv(65536))) for _ in range(2))
        check_gelf(engine, container, out, error)


def test_gelf_by_tcp(engine: Engine) -> None:
    with tcp_server(engine, all_of) as (address, told):
        container = tell(engine, "gelf", f"gelf-address=tcp://{address}", *CHOSEN)
        out, error, rest = told.result().split(b"\0")
        assert rest == b""
        check_gelf(engine, container, json.loads(out), json.loads(error))


def test_gelf_in_chunks(engine: Engine) -> None:
    """A line of 40,000 bytes is three messages of up to twelve packets each."""
    script = "head -c 40000 /dev/zero | tr '\\0' a; echo; echo last"
    with udp_server(engine) as (server, address):
        tell(engine, "gelf", f"gelf-address=udp://{address}", "gelf-compression-type=none", script=script)
        texts = []
        while not texts or texts[-1] != "last":
            first = server.recv(65536)
            packets = [first]
            if first.startswith(b"\x1e\x0f"):
                packets += [server.recv(65536) for _ in range(first[11] - 1)]
                assert [packet[:12] for packet in packets] == [
                    first[:10] + bytes((number, first[11])) for number in range(first[11])
                ]
                assert {len(packet) for packet in packets[:-1]} == {1420}
                packets = [packet[12:] for packet in packets]
            texts.append(json.loads(b"".join(packets))["short_message"])
    assert [len(text) for text in texts] == [16384, 16384, 40000 - 32768, 4]


def events(data: bytes, tag: bytes) -> list[Any]:
    """The events that were told, whose beginnings do not occur within them."""
    begun = b"\x94" + bytes((0xA0 | len(tag),)) + tag
    first, *rest = data.split(begun)
    assert first == b""
    return [msgspec.msgpack.decode(begun + event) for event in rest]


def test_fluentd(engine: Engine) -> None:
    with tcp_server(engine, all_of) as (address, told):
        container = tell(engine, "fluentd", f"fluentd-address={address}", *CHOSEN)
        heard = events(told.result(), b"t/teller")
        check_cache(engine)  # dockerd connects for that, too
    same = {"container_id": container, "container_name": "/teller", "x": "1 \t2", "A": "b"}
    records = [record for _, _, record, options in heard if options == {}]
    part = {name: value for name, value in records[2].items() if name.startswith("partial")}
    assert len(part.pop("partial_id")) == 64
    assert part == {"partial_message": "true", "partial_ordinal": "1", "partial_last": "false"}
    assert records == [
        {**same, "source": "stdout", "log": 'hi "<&>'},
        {**same, "source": "stdout", "log": ""},
        {**same, "source": "stderr", "log": "end", **part, "partial_id": records[2]["partial_id"]},
    ]
    assert all(abs(moment - time.time()) < 60 for _, moment, _, _ in heard)


def test_fluentd_to_a_local_socket_with_finer_times(engine: Engine, tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor(1) as threads:
        server.settimeout(20)
        server.bind(str(tmp_path / "fluent"))
        server.listen()
        told = threads.submit(lambda: all_of(server.accept()[0]))
        options = (f"fluentd-address=unix://{tmp_path}/fluent", "fluentd-sub-second-precision=true", "tag=x")
        tell(engine, "fluentd", *options, script="echo a; usleep 200000; echo b")
        heard = events(told.result(), b"x")
    times = [moment for _, moment, _, _ in heard]
    assert [record["log"] for _, _, record, _ in heard] == ["a", "b"]
    assert all(moment.code == 0 and len(moment.data) == 8 for moment in times)
    seconds = [int.from_bytes(moment.data[:4]) + int.from_bytes(moment.data[4:]) / 1e9 for moment in times]
    assert 0 < seconds[1] - seconds[0] < 10  # a busy engine reads both lines at once
    assert abs(seconds[0] - time.time()) < 60


def test_fluentd_that_comes_later_and_acknowledges(engine: Engine) -> None:
    """What is not acknowledged is sent again."""
    with opened_inside(engine.netns, lambda: socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    options = ("fluentd-async=true", "fluentd-request-ack=true", "fluentd-retry-wait=100ms", "tag=y")
    chosen = [word for option in (f"fluentd-address=127.0.0.1:{port}", *options) for word in ("--log-opt", option)]
    script = "echo a; read x"
    engine.out("run", "-di", "--name", "teller", "--log-driver", "fluentd", *chosen, "busybox", "sh", "-c", script)
    with opened_inside(engine.netns, lambda: socket.create_server(("127.0.0.1", port))) as server:
        server.settimeout(20)
        with server.accept()[0] as refusing:
            refusing.settimeout(20)
            assert refusing.recv(65536)
        with server.accept()[0] as connection:
            connection.settimeout(20)
            ((_, _, record, chunk),) = events(connection.recv(65536), b"y")
            assert record["log"] == "a"
            connection.sendall(msgspec.msgpack.encode({"ack": chunk["chunk"]}))
            engine.docker("kill", "teller")


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("gelf", (), "gelf-address is a required parameter"),
        ("gelf", ("gelf-address=http://127.0.0.1:1",), "gelf: endpoint needs to be TCP or UDP"),
        ("gelf", ("gelf-address=udp://127.0.0.1",), "gelf: please provide gelf-address as proto://host:port"),
        (
            "gelf",
            ("gelf-address=tcp://127.0.0.1:9",),
            "cannot connect to GELF endpoint: 127.0.0.1:9 dial tcp 127.0.0.1:9",
        ),
        (
            "gelf",
            ("gelf-address=tcp://127.0.0.1:9", "gelf-compression-type=none"),
            "compression is only supported on UDP",
        ),
        ("gelf", ("gelf-address=udp://127.0.0.1:9", "gelf-compression-level=10"), 'unknown value "10" for log opt'),
        ("gelf", ("gelf-address=udp://127.0.0.1:9", "gelf-tcp-max-reconnect=1"), "is only valid for TCP"),
        ("fluentd", ("fluentd-address=127.0.0.1:9",), "dial tcp 127.0.0.1:9: connect: connection refused"),
        ("fluentd", ("fluentd-address=odd://x",), "invalid fluentd-address (odd://x): unsupported scheme: 'odd'"),
        ("fluentd", ("fluentd-address=tcp://x/y",), "should not contain a path element"),
        ("fluentd", ("fluentd-async=odd",), 'strconv.ParseBool: parsing "odd": invalid syntax'),
        ("fluentd", ("fluentd-buffer-limit=odd",), "invalid size: 'odd'"),
        ("fluentd", ("fluentd-retry-wait=odd",), 'time: invalid duration "odd"'),
        ("fluentd", ("fluentd-async-reconnect-interval=11s",), 'value ("11s") must be between 100ms and 10s'),
        ("fluentd", ("odd=1",), "unknown log opt 'odd' for fluentd log driver"),
    ],
)
def test_what_is_refused(engine: Engine, driver: str, options: tuple[str, ...], words: str) -> None:
    chosen = [word for option in options for word in ("--log-opt", option)]
    assert words in engine.docker("run", "--rm", "--log-driver", driver, *chosen, "busybox", "true", check=125).stderr


def test_info_names_them(engine: Engine) -> None:
    known = json.loads(engine.out("info", "-f", "{{json .Plugins.Log}}"))
    assert {"fluentd", "gelf", "journald", "json-file", "local", "syslog"} <= set(known)
