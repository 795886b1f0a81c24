"""The two-way copy, the demultiplexer and the detach keys."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from havre.cli.stream import DETACHED, ENDED, Copy, Demultiplexer
from havre.cli.tty import DetachFilter, parse_keys
from havre.client.endpoint import SocketStream
from havre.errors import InvalidInput


def frame(kind: int, data: bytes) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("step", [1, 3, 8, 1000])
def test_frames_may_be_cut_anywhere(step: int) -> None:
    data = frame(1, b"out") + frame(2, b"error") + frame(1, b"") + frame(1, b"x" * 100)
    demultiplexer = Demultiplexer()
    parts = [part for i in range(0, len(data), step) for part in demultiplexer.feed(data[i : i + step])]
    assert b"".join(text for kind, text in parts if kind == 1) == b"out" + b"x" * 100
    assert b"".join(text for kind, text in parts if kind == 2) == b"error"


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_detach_keys(typed: list[bytes], passed: bytes, detached: bool) -> None:
    keys = DetachFilter(parse_keys("ctrl-p,ctrl-q"))
    out, over = b"", False
    for data in typed:
        more, over = keys.feed(data)
        out += more
    assert (out, over) == (passed, detached)


def test_detach_keys_are_read_and_refused() -> None:
    assert parse_keys("ctrl-a,b,ctrl-@") == b"\x01b\x00"
    for text in ("ctrl-!,x", "ctrl-A,a"):
        with pytest.raises(InvalidInput, match="invalid detach keys"):
            parse_keys(text)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, SocketStream]]:
    """The daemon's end as a socket, ours as a stream."""
    theirs, ours = socket.socketpair()
    yield theirs, SocketStream(ours)
    theirs.close()
    ours.close()


def test_an_echo_of_more_than_all_buffers_hold_does_not_lock(
    pair: tuple[socket.socket, SocketStream], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    theirs, ours = pair
    data = os.urandom(1 << 20) * 4
    source, sink = os.pipe()

    def echo() -> None:
        while received := theirs.recv(1 << 16):
            theirs.sendall(frame(1, received))
        theirs.shutdown(socket.SHUT_WR)

    def feed() -> None:
        with os.fdopen(sink, "wb") as file:
            file.write(data)

    threads = [threading.Thread(target=echo), threading.Thread(target=feed)]
    for thread in threads:
        thread.start()
    assert Copy(ours, b"", tty=False, stdin=source).run() == ENDED
    for thread in threads:
        thread.join()
    os.close(source)
    assert capfdbinary.readouterr().out == data


def test_output_after_the_end_of_input_is_not_lost(
    pair: tuple[socket.socket, SocketStream], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    theirs, ours = pair

    def late() -> None:
        assert theirs.recv(10) == b""  # our half-close arrives
        theirs.sendall(frame(1, b"late\n") + frame(2, b"error\n"))
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=late)
    thread.start()
    assert Copy(ours, frame(1, b"early "), tty=False, stdin=None).run() == ENDED
    thread.join()
    captured = capfdbinary.readouterr()
    assert (captured.out, captured.err) == (b"early late\n", b"error\n")


def test_detaching_ends_the_copy(pair: tuple[socket.socket, SocketStream]) -> None:
    theirs, ours = pair
    source, sink = os.pipe()
    os.write(sink, b"ls\n\x10\x11")
    assert Copy(ours, b"", tty=True, stdin=source, detach=DetachFilter(b"\x10\x11")).run() == DETACHED
    os.close(source)
    os.close(sink)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):  # what was typed in the same breath as the keys is not sent
        theirs.recv(10)
