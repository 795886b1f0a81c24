"""Listening: unix sockets and their modes, TCP with and without TLS, inherited descriptors, what is in the way."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import subprocess
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from havre.api.server import InheritedListener, Listener, Server, TcpListener, UnixListener, serve
from havre.api.tls import server_context
from havre.errors import Conflict, Failed, InvalidInput
from unit.api.api_fakes import FakeContainers, exchange, services


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def listen(*listeners: Listener, parts: Any = None) -> Server:
    return await serve(parts or services(), listeners)


def test_a_unix_socket_is_for_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def scenario() -> None:
        server = await listen(UnixListener(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert server.addresses == [f"unix://{path}"]
        await server.close()
        await server.close()
        assert not path.exists()

    for mask in (0o000, 0o077):
        old = os.umask(mask)
        try:
            run(scenario())
        finally:
            os.umask(old)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def scenario() -> None:
        server = await listen(UnixListener(path))
        assert (await exchange(path, "GET", "/_ping")).endswith(b"OK")
        await server.close()

    run(scenario())


def test_another_daemons_socket_and_other_files_are_left_alone(tmp_path: Path) -> None:
    path, file = tmp_path / "s", tmp_path / "f"
    file.write_text("data")

    async def scenario() -> None:
        first = await listen(UnixListener(path))
        with pytest.raises(Conflict, match="another daemon"):
            await listen(UnixListener(path))
        assert (await exchange(path, "GET", "/_ping")).endswith(b"OK")
        await first.close()
        with pytest.raises(Conflict, match="not a socket"):
            await listen(UnixListener(file))
        assert file.read_text() == "data"

    run(scenario())


def test_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def scenario() -> None:
        with pytest.raises(Failed, match="cannot listen on unix:///proc/nowhere"):
            await listen(UnixListener(path), UnixListener(Path("/proc/nowhere")))
        assert not path.exists()
        with pytest.raises(InvalidInput, match="no group named"):
            await listen(UnixListener(path, "no-such-group-here"))

    run(scenario())


def test_tcp_and_inherited_listeners(tmp_path: Path) -> None:
    inherited = socket.socket(socket.AF_UNIX)
    inherited.bind(str(tmp_path / "handed-over"))
    inherited.listen()

    async def scenario() -> None:
        server = await listen(TcpListener("127.0.0.1", 0), InheritedListener(inherited.detach()))
        host, _, port = server.addresses[0].removeprefix("tcp://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"OK")
        writer.close()
        assert (await exchange(tmp_path / "handed-over", "GET", "/_ping")).endswith(b"OK")
        await server.close()

    run(scenario())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that is its own authority, for server and client alike."""
    directory = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(directory / "key.pem")]
    command = ["openssl", "req", "-x509", *key, "-out", str(directory / "cert.pem"), "-days", "2", *subject]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def client_context(directory: Path, *, with_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "cert.pem"))
    if with_certificate:
        context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


def talk_tls(port: int, context: ssl.SSLContext, request: bytes, *, half_close: bool) -> bytes:
    """Send a request, close our half by close_notify alone (as Go does), and read to the end."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    received = b""
    state, sent = "handshake", False
    with raw:
        while True:
            try:
                if state == "handshake":
                    tls.do_handshake()
                    state = "open"
                if not sent:
                    tls.write(request)
                    sent = True
                    if half_close:
                        raw.sendall(outgoing.read())
                        try:
                            tls.unwrap()
                        except ssl.SSLWantReadError:
                            raw.sendall(outgoing.read())
                while piece := tls.read(65536):
                    received += piece
                return received
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                data = raw.recv(65536)
                if not data:
                    return received
                incoming.write(data)
            except (ssl.SSLZeroReturnError, ssl.SSLSyscallError):
                return received


def test_tls_asks_for_the_clients_certificate(certificates: Path) -> None:
    context = server_context(certificates / "cert.pem", certificates / "key.pem", certificates / "cert.pem")

    async def scenario() -> None:
        server = await listen(TcpListener("127.0.0.1", 0, context))
        port = int(server.addresses[0].rpartition(":")[2])
        request = b"GET /_ping HTTP/1.0\r\n\r\n"
        known = client_context(certificates, with_certificate=True)
        assert (await asyncio.to_thread(talk_tls, port, known, request, half_close=False)).endswith(b"OK")
        unknown = client_context(certificates, with_certificate=False)
        answer = b""
        with suppress(ssl.SSLError, ConnectionError):
            answer = await asyncio.to_thread(talk_tls, port, unknown, request, half_close=False)
        assert answer == b""
        await server.close()

    run(scenario())


def test_tls_output_goes_on_after_close_notify(certificates: Path) -> None:
    context = server_context(certificates / "cert.pem", certificates / "key.pem", None)

    async def scenario() -> None:
        containers = FakeContainers()
        server = await listen(TcpListener("127.0.0.1", 0, context), parts=services(containers=containers))
        port = int(server.addresses[0].rpartition(":")[2])
        request = b"POST /containers/golden/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        client = client_context(certificates, with_certificate=False)
        talking = asyncio.create_task(asyncio.to_thread(talk_tls, port, client, request, half_close=True))
        answer = await talking
        assert answer.endswith(b"\r\n\r\n\x02\0\0\0\0\0\0\x04done")
        assert containers.attachment.input_ended
        await server.close()

    run(scenario())


def test_unusable_certificates(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot use the TLS files"):
        server_context(tmp_path / "no", tmp_path / "no", None)
