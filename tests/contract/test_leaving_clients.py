"""Clients that leave before the end of an answer: what they have asked for is done, and none is the engine's bug."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.raw import ask
from support.waiting import until

_BIG = 8 << 20


def leave(engine: Engine, method: str, target: str, *, body: bytes = b"", length: int = 0, after: int = 0) -> None:
    """Send a request whose body should have `length` bytes, and hang up once so many bytes of the answer are here."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(engine.socket))
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n"
        if length:
            head += f"Content-Type: application/x-tar\r\nContent-Length: {length}\r\n"
        raw.sendall(head.encode() + b"\r\n" + body)
        while after > 0 and (got := raw.recv(1 << 16)):
            after -= len(got)


@pytest.fixture
def big(havred: Engine) -> Iterator[str]:
    """A container with a file that no socket's buffer holds."""
    havred.out("run", "--name", "big", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", f"count={_BIG >> 20}")
    yield "big"
    havred.out("rm", "-f", "big")


def logged(engine: Engine, since: int) -> str:
    """What the daemon has logged, once it has answered one more client."""
    assert ask(engine.socket, "GET", "/_ping").status == 200
    return engine.log.read_text()[since:]


@pytest.mark.parametrize("query", ["?quiet=1", "?quiet=0"])
@pytest.mark.parametrize("after", [0, 1], ids=["at once", "with the head"])
def test_what_was_sent_is_loaded(engine: Engine, archive: Path, query: str, after: int) -> None:
    ask(engine.socket, "DELETE", "/images/busybox:latest?force=1")
    body = archive.read_bytes()
    leave(engine, "POST", f"/images/load{query}", body=body, length=len(body), after=after)
    until(lambda: ask(engine.socket, "GET", "/images/busybox:latest/json").status == 200, "the image to be loaded")


def test_the_head_of_a_load_comes_with_its_result(engine: Engine, archive: Path) -> None:
    body = archive.read_bytes()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(engine.socket))
        raw.sendall(b"POST /images/load?quiet=1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        raw.sendall(body[:-1])
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        raw.settimeout(20)
        raw.sendall(body[-1:])
        got = b""
        while b"Loaded image" not in got:
            got += raw.recv(4096)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("after", [1, _BIG // 2])
def test_who_leaves_a_transfer_is_no_bug(havred: Engine, big: str, after: int) -> None:
    since = len(havred.log.read_text())
    for target in (f"{big}/export", f"{big}/archive?path=/", f"{big}/archive?path=/big"):
        leave(havred, "GET", f"/containers/{target}", after=after)
    assert len(ask(havred.socket, "GET", f"/containers/{big}/export").body) > _BIG  # takes longer than theirs
    assert "Traceback" not in logged(havred, since)


def test_who_cuts_an_upload_off_is_no_bug(havred: Engine, big: str, archive: Path) -> None:
    since, body = len(havred.log.read_text()), archive.read_bytes()
    for method, target in (
        ("POST", "/images/load"),
        ("POST", "/images/create?fromSrc=-&repo=cut"),
        ("POST", "/build"),
        ("PUT", f"/containers/{big}/archive?path=/tmp"),
    ):
        for cut in (0, len(body) // 2):
            leave(havred, method, target, body=body[:cut], length=len(body))
    until(lambda: logged(havred, since).count("unexpected EOF") >= 2, "the loads to end")
    assert "Traceback" not in logged(havred, since)
