"""TLS that can be half-closed, against a server of the standard library's ssl."""

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
from havre.client.secure import TlsStream

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
