"""Log servers that speak TLS, vouched for by an authority of the test's own: what they are told, and who is refused."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from support.engines import Dockerd, Engine, Havred, serving
from support.netns import opened_inside

SAID = ("busybox", "echo", "hi")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `ca.pem`, and `server.pem` and `server-key.pem` for 127.0.0.1 that it signs."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    made = ("-subj", "/CN=ca", "-keyout", "ca-key.pem", "-out", "ca.pem")
    other = ("-subj", "/CN=other", "-keyout", "other-key.pem", "-out", "other.pem")
    named = ("-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-CA", "ca.pem", "-CAkey", "ca-key.pem")
    stored = ("-keyout", "server-key.pem", "-out", "server.pem")
    for words in (made, other, (*named, *stored)):
        subprocess.run(["openssl", "req", "-x509", *key, *words], cwd=folder, check=True, capture_output=True)
    return folder


@contextmanager
def tls_server(engine: Engine, certificates: Path) -> Iterator[tuple[str, Future[bytes]]]:
    """A server of one connection; its address, and all that it is told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    with (
        opened_inside(engine.netns, lambda: socket.create_server(("127.0.0.1", 0))) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        server.settimeout(20)

        def accept() -> bytes:
            accepted = server.accept()[0]
            accepted.settimeout(20)
            with context.wrap_socket(accepted, server_side=True) as connection, connection.makefile("rb") as file:
                return file.read()

        yield f"127.0.0.1:{server.getsockname()[1]}", threads.submit(accept)


def run(engine: Engine, driver: str, *options: str, exit_code: int) -> str:
    chosen = [word for option in options for word in ("--log-opt", option)]
    return engine.docker("run", "--rm", "--log-driver", driver, *chosen, *SAID, check=exit_code).stderr


class TestOfAHostThatTrustsTheAuthority:
    @pytest.fixture(scope="class", params=[Havred, Dockerd])
    @classmethod
    def engine(cls, request: pytest.FixtureRequest, archive: Path, certificates: Path) -> Iterator[Engine]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
            with serving(request.param(), archive) as engine:
                yield engine

    def test_fluentd(self, engine: Engine, certificates: Path) -> None:
        with tls_server(engine, certificates) as (address, told):
            run(engine, "fluentd", f"fluentd-address=tls://{address}", "tag=x", exit_code=0)
            tag, _, record, _ = msgspec.msgpack.decode(told.result(20))
        assert (tag, record["source"], record["log"]) == ("x", "stdout", "hi")

    def test_syslog(self, engine: Engine, certificates: Path) -> None:
        """An authority that was named is trusted as well, not instead."""
        with tls_server(engine, certificates) as (address, told):
            ca = f"syslog-tls-ca-cert={certificates}/other.pem"
            run(engine, "syslog", f"syslog-address=tcp+tls://{address}", ca, exit_code=0)
            assert re.fullmatch(rb"<30>\w{3} [ \d]\d \S+ \w{12}\[\d+\]: hi\n", told.result(20))


def test_syslog(engine: Engine, certificates: Path) -> None:
    with tls_server(engine, certificates) as (address, told):
        ca = f"syslog-tls-ca-cert={certificates}/ca.pem"
        run(engine, "syslog", f"syslog-address=tcp+tls://{address}", ca, "syslog-format=rfc5424", exit_code=0)
        length, _, message = told.result(20).partition(b" ")
    assert len(message) == int(length)
    assert re.fullmatch(rb"<30>1 \S+ \S+ \w{12} \d+ \w{12} - hi\n", message)


def test_a_server_that_nobody_vouches_for_is_told_nothing(engine: Engine, certificates: Path) -> None:
    for driver, scheme, options in (
        ("fluentd", "tls", ()),
        ("syslog", "tcp+tls", (f"syslog-tls-ca-cert={certificates}/other.pem",)),
    ):
        with tls_server(engine, certificates) as (address, told):
            failed = run(engine, driver, f"{driver}-address={scheme}://{address}", *options, exit_code=125)
            assert re.search("failed to verify certificate: .*(unknown authority|unable to get local issuer)", failed)
            with pytest.raises(ssl.SSLError):
                told.result(20)


def test_who_does_not_care_who_is_told(engine: Engine, certificates: Path) -> None:
    with tls_server(engine, certificates) as (address, told):
        blind = "syslog-tls-skip-verify=true"
        run(engine, "syslog", f"syslog-address=tcp+tls://{address}", blind, exit_code=0)
        assert told.result(20).endswith(b": hi\n")
