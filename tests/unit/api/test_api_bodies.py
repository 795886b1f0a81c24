"""Bodies that a thread reads past the HTTP parser: they arrive whole, however they come, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from havre.api.bodies import Chunked, Sized
from havre.errors import InvalidInput, NotFound
from unit.api.api_fakes import Wire, exchange, services, start

BODY = random.Random(1).randbytes(700_001)
PUT = b"PUT /v1.45/containers/golden/archive?path=/ HTTP/1.1\r\nHost: x\r\n"
LENGTH = f"Content-Length: {len(BODY)}\r\n"
SIZED = PUT + LENGTH.encode() + b"\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks of `size` bytes, an extension and a trailer among its lines."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\n"


class FakeFiles:
    """Records what is written; refuses when `refuse_after` bytes have come, or at once when that is 0."""

    def __init__(self, refuse_after: int | None = None) -> None:
        self.received = bytearray()
        self.refuse_after = refuse_after
        self.failure: BaseException | None = None
        self.may_begin = asyncio.Event()
        self.may_begin.set()

    async def write(self, ref: str, path: str, archive: Callable[[Any], Awaitable[None]], **_: Any) -> None:
        if self.refuse_after == 0:
            raise NotFound("no such place")
        await self.may_begin.wait()
        try:
            await archive(self._take)
        except BaseException as error:
            self.failure = error
            raise

    def _take(self, piece: Any) -> None:
        self.received += piece
        if self.refuse_after is not None and len(self.received) > self.refuse_after:
            raise InvalidInput("no archive")


def run(tmp_path: Path, files: FakeFiles, scenario: Callable[[Wire], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario against an edge; no task may be left behind."""

    async def main() -> None:
        server = await start(tmp_path / "s", services(files=files))
        wire = Wire(tmp_path / "s")
        try:
            await scenario(wire)
        finally:
            await server.close()
            wire.close()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 20))


class TestFraming:
    @pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
    def test_chunks_cut_anywhere(self, step: int) -> None:
        wire, body = chunked(BODY[:500], 60), Chunked()
        received = b""
        for at in range(0, len(wire), step):
            piece = bytearray(wire[at : at + step])
            received += piece[: body.strip(piece, len(piece))]
        assert (received, body.ended) == (BODY[:500], True)

    @pytest.mark.parametrize(
        "wire",
        [b"x\r\n", b"\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b"1\n", b"1\r\nabc\r\n", b"1" * 17 + b"\r\n"],
    )
    def test_bad_chunks(self, wire: bytes) -> None:
        with pytest.raises(InvalidInput, match="malformed chunk"):
            Chunked().strip(bytearray(wire), len(wire))

    def test_a_line_without_end(self) -> None:
        body = Chunked()
        assert body.strip(bytearray(b"1" * 4000), 4000) == 0
        with pytest.raises(InvalidInput, match="too long"):
            body.strip(bytearray(b"1" * 1000), 1000)

    def test_trailers_without_end(self) -> None:
        wire = b"0\r\n" + b"A: b\r\n" * 1000
        with pytest.raises(InvalidInput, match="more than 64 trailer fields"):
            Chunked().strip(bytearray(wire), len(wire))

    def test_a_size(self) -> None:
        body = Sized(5)
        assert [body.strip(bytearray(4), 4), body.ended] == [4, False]
        assert [body.strip(bytearray(4), 4), body.ended] == [1, True]


class TestOnTheWire:
    @pytest.mark.parametrize("head", [SIZED, CHUNKED], ids=["sized", "chunked"])
    @pytest.mark.parametrize("first", [0, 1, 100_000], ids=["head alone", "a byte with the head", "more with it"])
    def test_all_of_it_arrives(self, tmp_path: Path, head: bytes, first: int) -> None:
        files = FakeFiles()
        body = BODY if head is SIZED else chunked(BODY, 32 << 10)

        async def scenario(wire: Wire) -> None:
            await wire.send(head + body[:first])
            for at in range(first, len(body), 99_991):
                await wire.send(body[at : at + 99_991])
            answer = await wire.to_end()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Connection: close\r\n" in answer

        run(tmp_path, files, scenario)
        assert files.received == BODY

    def test_a_client_that_waits_to_be_asked(self, tmp_path: Path) -> None:
        files = FakeFiles()

        async def scenario(wire: Wire) -> None:
            await wire.send(PUT + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            await wire.until(b"HTTP/1.1 100 Continue\r\n\r\n")
            await wire.send(b"hello")
            assert b"200 OK" in await wire.to_end()

        run(tmp_path, files, scenario)
        assert files.received == b"hello"

    def test_a_short_body_keeps_the_connection(self, tmp_path: Path) -> None:
        files = FakeFiles()

        async def scenario(wire: Wire) -> None:
            for _ in range(2):
                await wire.send(PUT + b"Content-Length: 5\r\n\r\nhello")
                assert b"200 OK" in await wire.until(b"\r\n\r\n")

        run(tmp_path, files, scenario)
        assert files.received == b"hellohello"

    def test_what_looks_like_a_head_in_another_s_body_is_body(self, tmp_path: Path) -> None:
        files, hidden = FakeFiles(), CHUNKED + b"0\r\n\r\n"

        async def scenario(wire: Wire) -> None:
            await wire.send(PUT + b"Content-Length: %d\r\n" % len(hidden))
            await wire.send(b"\r\n")
            await wire.send(hidden)
            assert b"200 OK" in await wire.until(b"\r\n\r\n")

        run(tmp_path, files, scenario)
        assert files.received == hidden

    def test_behind_another_request(self, tmp_path: Path) -> None:
        files = FakeFiles()

        async def scenario(wire: Wire) -> None:
            await wire.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            await wire.send(SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            await wire.send(BODY)
            answer = await wire.to_end()
            assert answer.count(b"HTTP/1.1 200 OK") == 2

        run(tmp_path, files, scenario)
        assert files.received == BODY

    def test_behind_another_body_that_nobody_has_read_yet(self, tmp_path: Path) -> None:
        files = FakeFiles()
        files.may_begin.clear()

        async def scenario(wire: Wire) -> None:
            await wire.send(PUT + b"Content-Length: 5\r\n\r\nhello")
            await wire.send(SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            sending = asyncio.ensure_future(wire.send(BODY))
            files.may_begin.set()
            assert (await wire.to_end()).count(b"HTTP/1.1 200 OK") == 2
            await sending

        run(tmp_path, files, scenario)
        assert files.received == b"hello" + BODY

    @pytest.mark.parametrize("after", [0, 200_000], ids=["before it was read", "in the middle"])
    def test_refused_while_the_client_still_sends(self, tmp_path: Path, after: int) -> None:
        async def scenario(wire: Wire) -> None:
            await wire.send(SIZED)
            await wire.send(BODY)
            answer = await wire.until(b'"}')
            assert (b"no archive" if after else b"no such place") in answer

        run(tmp_path, FakeFiles(after), scenario)

    def test_a_bad_chunk(self, tmp_path: Path) -> None:
        files = FakeFiles()

        async def scenario(wire: Wire) -> None:
            await wire.send(CHUNKED + b"5\r\nhello")
            while not files.received:
                await asyncio.sleep(0.01)
            await wire.send(b"!\r\n")
            answer = await wire.to_end()
            assert b"malformed chunk of the body" in answer
            assert b"\r\nConnection: close\r\n" in answer

        run(tmp_path, files, scenario)

    @pytest.mark.parametrize("sent", [SIZED + BODY[:1000], CHUNKED + b"5dc\r\n" + BODY[:1000]])
    def test_a_body_that_ends_early(self, tmp_path: Path, sent: bytes) -> None:
        files = FakeFiles()

        async def scenario(wire: Wire) -> None:
            await wire.send(sent)
            await wire.half_close()
            answer = await wire.to_end()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b'{"message":"unexpected EOF"}' in answer

        run(tmp_path, files, scenario)
        assert files.received == BODY[:1000]

    def test_a_client_that_leaves(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        files = FakeFiles()

        async def scenario(wire: Wire) -> None:
            await wire.send(SIZED + BODY[:1000])
            wire.close()
            while files.failure is None:
                await asyncio.sleep(0.01)

        run(tmp_path, files, scenario)
        assert files.received == BODY[:1000]
        assert not caplog.records

    def test_as_many_at_a_time_as_there_may_be(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = FakeFiles()
        monkeypatch.setattr("havre.aio._transfers", threading.BoundedSemaphore(1))

        async def scenario(wire: Wire) -> None:
            await wire.send(SIZED + BODY[:1000])
            while not files.received:
                await asyncio.sleep(0.01)
            answer = await exchange(tmp_path / "s", "PUT", "/containers/golden/archive?path=/", LENGTH, BODY)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b'"there are 256 transfers of files already, which is the limit"' in answer
            await wire.send(BODY[1000:])
            assert b"200 OK" in await wire.to_end()
            answer = await exchange(tmp_path / "s", "PUT", "/containers/golden/archive?path=/", LENGTH, BODY)
            assert b"200 OK" in answer

        run(tmp_path, files, scenario)
        assert files.received == BODY + BODY

    def test_the_daemon_stops_meanwhile(self, tmp_path: Path) -> None:
        files = FakeFiles()

        async def scenario(wire: Wire) -> None:
            await wire.send(SIZED + BODY[:1000])
            while not files.received:
                await asyncio.sleep(0.01)

        run(tmp_path, files, scenario)
        assert files.failure is not None
