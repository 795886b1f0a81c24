"""Clients that stop in the middle of a transfer hold up nobody but themselves."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support import tars
from support.engines import Engine, Havred, serving
from support.raw import ask
from support.waiting import until

EACH = 7  # of three kinds: more than the daemon has threads for other work
BIG = 8 << 20  # more than pipes and sockets hold


@pytest.fixture
def havred(archive: Path, tmp_path: Path) -> Iterator[Engine]:
    """A daemon of the test's own with a stopped container `box` that has a big file."""
    (tmp_path / "big").write_bytes(os.urandom(BIG))
    with serving(Havred(), archive) as engine:
        engine.out("create", "--name", "box", "busybox", "true")
        engine.docker("cp", str(tmp_path / "big"), "box:/big", check=0)
        yield engine


def begin(engine: Engine, request: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(engine.socket))
    client.sendall(request)
    return client


@contextmanager
def stalled(engine: Engine) -> Iterator[Sequence[socket.socket]]:
    """Clients of which no one reads on or sends on, once the daemon is in the middle of each transfer."""
    get = [b"GET /containers/box/archive?path=/big", b"GET /containers/box/export"]
    with ExitStack() as stack:
        readers, writers = list[socket.socket](), list[socket.socket]()
        for number in range(EACH):
            readers += [stack.enter_context(begin(engine, each + b" HTTP/1.1\r\nHost: x\r\n\r\n")) for each in get]
            head = b"PUT /containers/box/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BIG
            part = tars.header(b"part%d" % number, size=BIG // 2) + bytes(100_000)
            writers.append(stack.enter_context(begin(engine, head + part)))
        for reader in readers:
            assert select.select([reader], [], [], 20)[0], "the daemon has sent nothing"
        for number in range(EACH):
            until(lambda path=f"/part{number}": has(engine, path), "the beginning of an archive to be written")
        yield [*readers, *writers]


def has(engine: Engine, path: str) -> bool:
    return ask(engine.socket, "HEAD", f"/containers/box/archive?path={path}").status == 200


def descriptors(engine: Engine) -> int:
    return len(os.listdir(f"/proc/{engine.pid}/fd"))


def test_everybody_else_goes_on(havred: Engine, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("small")
    ask(havred.socket, "GET", "/_ping")
    before = descriptors(havred)
    with stalled(havred):
        havred.docker("create", "--name", "other", "busybox", "cat", "/small", check=0, timeout_s=20)
        havred.docker("cp", str(tmp_path / "small"), "other:/", check=0, timeout_s=20)
        assert havred.docker("start", "-a", "other", check=0, timeout_s=20).stdout == "small"
        havred.docker("inspect", "other", check=0, timeout_s=20)
        havred.docker("cp", "box:/big", str(tmp_path / "copied"), check=0, timeout_s=20)
        havred.docker("rm", "other", check=0, timeout_s=20)
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "big").read_bytes()
    until(lambda: descriptors(havred) <= before, "what the transfers held to be closed")


def test_the_daemon_can_be_stopped(havred: Engine) -> None:
    with stalled(havred) as clients:
        begun = time.monotonic()
        havred.stop()
        assert time.monotonic() - begun < 10
        for client in clients:
            while client.recv(1 << 20):
                pass
    havred.start()
    assert has(havred, "/big")


@pytest.mark.parametrize("runs", [True, False])
def test_a_removal_breaks_transfers_off(havred: Engine, tmp_path: Path, runs: bool) -> None:
    before = descriptors(havred)
    if runs:
        havred.docker("rm", "box", check=0)
        havred.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000", check=0)
        havred.docker("cp", str(tmp_path / "big"), "box:/big", check=0)
    id = havred.out("inspect", "-f", "{{.Id}}", "box")
    with stalled(havred) as clients:
        havred.docker("rm", "-f", "box", check=0, timeout_s=20)
        assert id not in Path(f"/proc/{havred.pid}/mountinfo").read_text()
        assert not (havred.root / "data/snapshots" / id).exists()
        for client in clients:
            received = b""
            while piece := client.recv(1 << 20):
                received += piece
            assert received.startswith(b"HTTP/1.1 200 ") or b"is marked for removal" in received
    until(lambda: descriptors(havred) <= before, "what the transfers held to be closed")
