"""TLS that can be half-closed, against a server of the standard library's ssl; and ssh, against scripts."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.client.endpoint import TlsFiles
from havre.client.http import Connection
from havre.client.secure import TlsStream, connect_ssh
from havre.errors import Unavailable

OPENSSL = shutil.which("openssl") or "openssl"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def server(pem: Path) -> Iterator[tuple[socket.socket, list[bytes]]]:
    """Our raw end of a connection whose other end reads to the end, then answers."""
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem / "cert.pem", pem / "key.pem")
    received: list[bytes] = []

    def serve() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as secure:
                while data := secure.recv(1000):
                    received.append(data)
                secure.sendall(b"answer after your end")
        except ssl.SSLError as error:
            received.append(str(error).encode())

    thread = threading.Thread(target=serve)
    thread.start()
    yield ours, received
    ours.close()
    thread.join()


def test_the_answer_comes_after_our_half_close(
    server: tuple[socket.socket, list[bytes]], pem: Path, tmp_path: Path
) -> None:
    sock, received = server
    stream = TlsStream(sock, "localhost", TlsFiles(ca=str(pem / "cert.pem")))  # type: ignore[arg-type]
    stream.sendall(b"hello ")
    (tmp_path / "file").write_bytes(b"there and further")
    with open(tmp_path / "file", "rb", buffering=0) as file:
        assert stream.send_file(file.fileno(), 5) == 5
    stream.close_write()
    assert b"".join(iter(lambda: stream.recv(1000), b"")) == b"answer after your end"
    assert b"".join(received) == b"hello there"


def test_an_unknown_certificate_is_refused_unless_verification_is_off(
    server: tuple[socket.socket, list[bytes]],
) -> None:
    sock, _ = server
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsStream(sock, "localhost", TlsFiles())  # type: ignore[arg-type]


def _ssh(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Connection:
    """A connection by an ssh(1) which is that script."""
    (directory / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    return Connection(connect_ssh("box"), "x")


def test_an_answer_by_ssh_is_heard_though_the_body_was_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = _ssh(tmp_path, monkeypatch, r"printf 'HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad'")
    answer = connection.request("POST", "/build", {}, bytes(4 << 20))
    assert (answer.status, answer.read()) == (400, b"bad")
    connection.close()


def test_an_ssh_that_ends_without_an_answer_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = _ssh(tmp_path, monkeypatch, "echo no such host >&2; exit 255")
    with pytest.raises(Unavailable, match=r"has exited with exit status 255, .*: stderr=no such host"):
        connection.request("POST", "/build", {}, bytes(4 << 20))
    connection.close()
