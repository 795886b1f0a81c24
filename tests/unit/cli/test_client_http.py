"""HTTP on a raw stream, against a scripted daemon."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from havre import errors
from havre.client.api import Client, min_version
from havre.client.endpoint import Endpoint, SocketStream, parse_endpoint
from havre.client.http import Connection, FilePart, render_query
from havre.errors import InvalidInput, Unavailable
from havre.golang.jsontext import decode, encode


def receive(sock: socket.socket) -> bytes:
    """One request: its head and a sized body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            while len(body) < int(line.split(b":")[1]):
                body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., tuple[Client, list[bytes]]]]:
    """A daemon that answers its requests with the given bytes, one after the other, and records them."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    threads = []

    def start(*answers: bytes) -> tuple[Client, list[bytes]]:
        requests: list[bytes] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    requests.append(receive(connection))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        threads.append(thread)
        client = Client(Endpoint("unix", str(tmp_path / "s"), "unix://s"))
        client._version = ""
        return client, requests

    yield start
    for thread in threads:
        thread.join()
    listener.close()


def sized(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status.encode(), len(body), body
    )  # fmt: skip


def test_a_connection_carries_one_request_after_the_other(daemon: Callable[..., tuple[Client, list[bytes]]]) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n3;x=y\r\n 2]\r\n0\r\n\r\n"
    client, requests = daemon(sized(b'{"a":1}'), chunked, sized(b""))
    assert client.get("/one", {"q": ["a b", "c/é"]}) == {"a": 1}
    assert client.post("/two", body={"x": None}) == [1, 2]
    assert client.delete("/three") is None
    assert requests[0].startswith(b"GET /one?q=a%20b&q=c%2F%C3%A9 HTTP/1.1\r\nHost: api.moby.localhost\r\n")
    assert requests[1].endswith(b'{"x":null}')
    assert b"Content-Length: 10\r\n" in requests[1]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, errors.InvalidInput), (401, errors.Unauthorized), (404, errors.NotFound), (409, errors.Conflict),
     (500, errors.Failed), (503, errors.Unavailable), (418, errors.Failed)],
)  # fmt: skip
def test_errors_are_told_by_status(
    daemon: Callable[..., tuple[Client, list[bytes]]], status: int, kind: type[errors.HavreError]
) -> None:
    client, _ = daemon(sized(b'{"message":"no such thing"}', f"{status} Whatever"))
    with pytest.raises(kind) as caught:
        client.get("/x")
    assert caught.value.message == "Error response from daemon: no such thing"


TOO_NEW = b'{"message":"client version 1.45 is too new. Maximum supported API version is 1.41"}'


def test_a_daemon_of_our_version_is_not_asked_for_it(daemon: Callable[..., tuple[Client, list[bytes]]]) -> None:
    client, requests = daemon(sized(b'{"a":1}'), sized(b"{}", "404 Not Found"))
    client._version = None
    assert client.post("/one", body={"b": 2}) == {"a": 1}
    with pytest.raises(errors.NotFound):
        client.get("/two")
    assert [request.split(b" ")[1] for request in requests] == [b"/v1.45/one", b"/v1.45/two"]
    assert client.version == "1.45"


def test_an_older_daemon_is_asked_and_gets_the_request_again(
    daemon: Callable[..., tuple[Client, list[bytes]]],
) -> None:
    refusal = sized(TOO_NEW, "400 Bad Request").replace(b"\r\n", b"\r\nContent-Type: application/json\r\n", 1)
    ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n"
    client, requests = daemon(refusal, ping, sized(b'{"a":1}'), sized(b"{}"))
    client._version = None
    assert client.post("/one", body={"b": 2}) == {"a": 1}
    client.get("/two")
    asked = [tuple(request.split(b" ")[:2]) for request in requests]
    assert asked == [(b"POST", b"/v1.45/one"), (b"HEAD", b"/_ping"), (b"POST", b"/v1.41/one"), (b"GET", b"/v1.41/two")]
    assert requests[0].partition(b"\r\n\r\n")[2] == requests[2].partition(b"\r\n\r\n")[2] == b'{"b":2}'
    assert client.version == "1.41"


def test_what_cannot_be_sent_twice_waits_for_the_version(
    daemon: Callable[..., tuple[Client, list[bytes]]],
) -> None:
    ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n"
    client, requests = daemon(ping, sized(b"{}"))
    client._version = None
    client.call("POST", "/load", raw_body=iter([b"once"])).read()
    assert [request.split(b" ")[1] for request in requests] == [b"/_ping", b"/v1.41/load"]


def test_a_hijacked_connection_is_handed_over_with_what_was_read(
    daemon: Callable[..., tuple[Client, list[bytes]]],
) -> None:
    client, requests = daemon(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")
    stream, early = client.hijack("/containers/x/attach", {"stream": "1"})
    assert early + b"".join(iter(lambda: stream.recv(100), b"")) == b"early"
    assert b"Upgrade: tcp\r\n" in requests[0]


def test_messages_are_read_as_they_come(daemon: Callable[..., tuple[Client, list[bytes]]]) -> None:
    client, _ = daemon(b'HTTP/1.0 200 OK\r\n\r\n{"a":1}\r\n\n{"b"' + b":2}\n")
    assert list(client.messages(client.call("GET", "/events"))) == [{"a": 1}, {"b": 2}]


def test_an_answer_that_is_cut_short_is_told() -> None:
    theirs, ours = socket.socketpair()
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    theirs.close()
    with pytest.raises(Unavailable, match="closed the connection"):
        Connection(SocketStream(ours), "x").request("GET", "/", {}).read()
    ours.close()


def test_a_chunked_body_goes_out_as_it_is_made() -> None:
    theirs, ours = socket.socketpair()
    theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    Connection(SocketStream(ours), "x").request("PUT", "/a", {}, iter([b"abc", b"", b"de"]))
    assert theirs.recv(1000).endswith(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    theirs.close()
    ours.close()


def read_all(sock: socket.socket, into: list[bytes]) -> None:
    while data := sock.recv(1 << 20):
        into.append(data)


@pytest.mark.parametrize("shape", ["whole", "shorter than told", "no regular file"])
def test_a_file_goes_out_as_one_chunk(tmp_path: Path, shape: str) -> None:
    size = 700_001
    content = (
        bytes(size) if shape == "no regular file" else b"x" * (size // 2 if shape == "shorter than told" else size)
    )
    (tmp_path / "file").write_bytes(content)
    path = "/dev/zero" if shape == "no regular file" else str(tmp_path / "file")
    theirs, ours = socket.socketpair()
    received: list[bytes] = []
    with theirs, open(path, "rb", buffering=0) as file:
        theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        reader = threading.Thread(target=read_all, args=(theirs, received))
        reader.start()
        with ours:
            body = iter([b"head", FilePart(file.fileno(), size), b"tail"])
            Connection(SocketStream(ours), "x").request("PUT", "/a", {}, body)
        reader.join(20)
    _, _, sent = b"".join(received).partition(b"\r\n\r\n")
    chunk = content.ljust(size, b"\0")
    assert sent == b"4\r\nhead\r\n%x\r\n%b\r\n4\r\ntail\r\n0\r\n\r\n" % (size, chunk)


@pytest.mark.parametrize(
    ("host", "scheme", "address"),
    [("unix:///a/b", "unix", "/a/b"), ("tcp://h:1", "tcp", "h:1"), ("h:1", "tcp", "h:1"), ("tcp://h", "tcp", "h:2375"),
     ("ssh://u@h:22", "ssh", "u@h:22"), ("tcp://[::1]:5", "tcp", "[::1]:5"), ("http://h:80/base/", "tcp", "h:80")],
)  # fmt: skip
def test_endpoints(host: str, scheme: str, address: str) -> None:
    endpoint = parse_endpoint(host)
    assert (endpoint.scheme, endpoint.address) == (scheme, address)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InvalidInput, match="invalid bind address format: foo://x"):
        parse_endpoint("foo://x")


def test_json_is_written_as_go_writes_it() -> None:
    value = {"b": [1, 2.5, True, None, "é<\n"], "a": {}, "c": []}
    assert encode(value) == '{"b":[1,2.5,true,null,"é<\\n"],"a":{},"c":[]}'
    assert encode({"a": [1]}, indent="    ") == '{\n    "a": [\n        1\n    ]\n}'
    assert encode("<&>", escape_html=True) == '"\\u003c\\u0026\\u003e"'
    assert encode({"b": 1, "a": 2}, sort_keys=True) == '{"a":2,"b":1}'
    assert decode(' \n{"a": [1, "\\u00e9"]}\n') == {"a": [1, "é"]}
    for text in ("", "{", "[1] 2", "nope"):
        with pytest.raises(ValueError):
            decode(text)


def test_versions_and_queries() -> None:
    assert min_version("1.9", "1.45") == "1.9"
    assert min_version("1.51", "1.45") == "1.45"
    assert render_query({}) == ""
    assert render_query({"a": "x&y", "b": []}) == "?a=x%26y"
