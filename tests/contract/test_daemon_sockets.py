"""The daemon's doors: TLS with certificates made as Docker's documentation says, socket activation, readiness."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import make_certificates
from support.engines import Engine, Havred, serving
from support.raw import ask

PORT = 17376
AS_SYSTEMD = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def havred(tmp_path: Path) -> Iterator[Engine]:
    """A daemon that listens on TCP with mutual TLS, too."""
    certs = tmp_path / "certs"
    make_certificates(certs)
    flags = [
        *("-H", f"tcp://127.0.0.1:{PORT}", "--tlsverify", "--tlscacert", str(certs / "ca.pem")),
        *("--tlscert", str(certs / "server.pem"), "--tlskey", str(certs / "server-key.pem")),
    ]
    with serving(Havred(flags)) as engine:
        yield engine


def test_mutual_tls(havred: Engine, tmp_path: Path) -> None:
    ca = ("--tlscacert", str(tmp_path / "certs/ca.pem"))
    pair = ("--tlscert", str(tmp_path / "certs/client.pem"), "--tlskey", str(tmp_path / "certs/client-key.pem"))
    tcp = ("-H", f"tcp://127.0.0.1:{PORT}")
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    environment.pop("DOCKER_HOST", None)

    def version(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*havred.inside, program, *words, "version", "--format", "{{.Server.Os}}"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    for program in ("docker", str(Path(sys.prefix) / "bin" / "havre")):
        assert version(program, "--tlsverify", *ca, *pair, *tcp).stdout == "linux\n", program
        for refused in (("--tlsverify", *ca, *tcp), tcp):
            done = version(program, *refused)
            assert (done.returncode, done.stdout.strip()) == (1, ""), program
            assert "template" not in done.stderr
    assert f"{havred.socket.stat().st_mode & 0o777:o}" == "660"


def test_clients_of_a_daemon_that_cannot_start_are_told_so(tmp_path: Path) -> None:
    """Those who wait on the socket that systemd has handed over get an answer, instead of the next try and the next."""
    (tmp_path / "daemon.json").write_text('{"unheard-of": 1}')
    command = [str(Path(sys.prefix) / "bin" / "havred"), "-H", "fd://", "--config-file", str(tmp_path / "daemon.json")]
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "api"))
        door.listen()
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in waiting:
            client.connect(str(tmp_path / "api"))
            client.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
        ended = subprocess.run(
            [sys.executable, "-c", AS_SYSTEMD, *command],
            env={**os.environ, "LISTEN_FDS": "1"},
            preexec_fn=lambda: os.dup2(door.fileno(), 3),
            pass_fds=[3],
            check=False,
            timeout=30,
        )
        assert ended.returncode == 1
        for client in waiting:
            with client, client.makefile("rb") as answer:
                assert answer.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
                message = json.loads(answer.read().partition(b"\r\n\r\n")[2])["message"]
                assert message.startswith("the daemon does not start: unable to configure the daemon with file")
                assert "unheard-of" in message


def test_socket_activation(havred: Engine, tmp_path: Path) -> None:
    """As systemd does it: listen, hand the socket over, wait for READY, keep the socket when the daemon ends."""
    path, notices = tmp_path / "api", tmp_path / "notify"
    (tmp_path / "daemon.json").write_text("{}")
    command = [str(Path(sys.prefix) / "bin" / "havred"), "-H", "fd://", "--pidfile", str(tmp_path / "pid")]
    command += ["--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "run")]
    command += ["--config-file", str(tmp_path / "daemon.json")]
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        door.bind(str(path))
        door.listen()
        notify.bind(str(notices))
        notify.settimeout(20)
        for _ in range(2):
            process = subprocess.Popen(
                [*havred.inside, sys.executable, "-c", AS_SYSTEMD, *command],
                env={**os.environ, "LISTEN_FDS": "1", "NOTIFY_SOCKET": str(notices)},
                preexec_fn=lambda: os.dup2(door.fileno(), 3),
                pass_fds=[3],
                stderr=subprocess.DEVNULL,
            )
            assert notify.recv(100) == b"READY=1"
            assert ask(path, "GET", "/_ping").body == b"OK"
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert notify.recv(100) == b"STOPPING=1"
            assert process.wait(20) == 0
            assert path.exists(), "the daemon has unlinked a socket that is not its own"
