"""Attach on the wire: both forms, half-close, leaving, back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from havre.api import hijack
from unit.api.api_fakes import FakeAttachment, FakeContainers, Wire, container, exchange, services, start

Scenario = Callable[[Path, FakeContainers], Coroutine[Any, Any, None]]

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
ALL = "stream=1&stdin=1&stdout=1&stderr=1"


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario against an edge on a socket; no task may be left behind."""

    def go(scenario: Scenario) -> None:
        async def main() -> None:
            path, containers = tmp_path / "api.sock", FakeContainers()
            server = await start(path, services(containers=containers))
            try:
                await scenario(path, containers)
            finally:
                await server.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(asyncio.wait_for(main(), 20))

    return go


class Watched(hijack.Connection):
    """A connection that tells when it reads no more, and when its writers have to wait."""

    full: asyncio.Event  # as much was read ahead as may be
    stuck: asyncio.Event  # the client takes no more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        assert isinstance(self.transport, asyncio.Transport)
        if not self.transport.is_reading():
            self.full.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stuck.set()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    """The class of all connections that are taken over."""
    monkeypatch.setattr(Watched, "full", asyncio.Event(), raising=False)
    monkeypatch.setattr(Watched, "stuck", asyncio.Event(), raising=False)
    monkeypatch.setattr(hijack, "Connection", Watched)
    return Watched


async def attach(path: Path, query: str = ALL, headers: str = UPGRADE, prefix: str = "/v1.45") -> Wire:
    wire = Wire(path)
    await wire.send(f"POST {prefix}/containers/golden/attach?{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return wire


def test_upgrade_then_half_close_then_output(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        wire = await attach(path)
        head = await wire.until(b"\r\n\r\n")
        assert head.split(b"\r\n")[:4] == [
            b"HTTP/1.1 101 UPGRADED",
            b"Content-Type: application/vnd.docker.multiplexed-stream",
            b"Connection: Upgrade",
            b"Upgrade: tcp",
        ]
        await wire.send(b"hello")
        await wire.half_close()
        assert await wire.to_end() == b"\x01\0\0\0\0\0\0\x05HELLO" + b"\x02\0\0\0\0\0\0\x04done"
        assert containers.attachment.received == b"hello"
        await containers.attachment.closed.wait()

    run(scenario)


def test_without_upgrade_the_answer_is_200_and_raw(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        containers.attachment.queue.put_nowait((1, b"x"))
        containers.attachment.queue.put_nowait(None)
        wire = await attach(path, headers="")
        expected = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
        assert await wire.to_end() == expected + b"\x01\0\0\0\0\0\0\x01x"

    run(scenario)


@pytest.mark.parametrize(
    ("prefix", "tty", "kind"),
    [
        ("/v1.41", False, b"raw-stream"),
        ("/v1.42", False, b"multiplexed-stream"),
        ("/v1.42", True, b"raw-stream"),
        ("", False, b"multiplexed-stream"),
    ],
)
def test_content_type_by_version_and_tty(run: Callable[[Scenario], None], prefix: str, tty: bool, kind: bytes) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        containers.container = container(tty=tty)
        containers.attachment = FakeAttachment(tty)
        containers.attachment.queue.put_nowait((1, b"x"))
        containers.attachment.queue.put_nowait(None)
        wire = await attach(path, prefix=prefix)
        answer = await wire.to_end()
        assert b"Content-Type: application/vnd.docker." + kind + b"\r\n" in answer
        assert answer.endswith(b"\r\n\r\n" + (b"x" if tty else b"\x01\0\0\0\0\0\0\x01x"))

    run(scenario)


def test_output_goes_on_when_the_client_has_no_input_from_the_start(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        wire = await attach(path, query="stream=1&stdout=1")
        await wire.until(b"\r\n\r\n")
        await wire.half_close()
        for piece in (b"one", b"two"):
            containers.attachment.queue.put_nowait((1, piece))
            await wire.until(piece)
        containers.attachment.queue.put_nowait(None)
        assert await wire.to_end() == b""
        assert not containers.attachment.input_ended

    run(scenario)


@pytest.mark.parametrize("half_closed", [False, True])
def test_leaving_is_noticed(run: Callable[[Scenario], None], half_closed: bool) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        wire = await attach(path, query="stream=1&stdout=1")
        await wire.until(b"\r\n\r\n")
        if half_closed:
            await wire.half_close()
            containers.attachment.queue.put_nowait((1, b"on"))
            await wire.until(b"on")
        wire.close()
        await containers.attachment.closed.wait()

    run(scenario)


def test_detach_keys_end_the_stream_and_not_the_process(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        containers.attachment = FakeAttachment(tty=True)
        wire = await attach(path, query=ALL + "&detachKeys=ctrl-a,b")
        await wire.until(b"\r\n\r\n")
        await wire.send(b"x\x01")
        assert await wire.until(b"X") == b"X"
        await wire.send(b"by")
        await wire.to_end()
        assert containers.attachment.received == b"x"
        assert not containers.attachment.input_ended

    run(scenario)


def test_a_missing_container_is_told_in_plain_text(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        answer = await exchange(path, "POST", "/containers/none/attach")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert b"Content-Type: application/vnd.docker.raw-stream" in head
        assert body == b"No such container: none\r\n"

    run(scenario)


def test_input_waits_for_a_slow_process(run: Callable[[Scenario], None], watched: type[Watched]) -> None:
    """A client that sends without end is held back by the kernel, not by the daemon's memory."""

    async def scenario(path: Path, containers: FakeContainers) -> None:
        gate = asyncio.Event()
        taken = 0

        async def slow(data: bytes) -> None:
            nonlocal taken
            taken += len(data)
            await gate.wait()

        containers.attachment.write_stdin = slow  # type: ignore[method-assign]
        wire = await attach(path)
        await wire.until(b"\r\n\r\n")
        sending = asyncio.create_task(wire.send(b"x" * (8 << 20)))
        await watched.full.wait()
        assert not sending.done()
        assert taken < 2 << 20
        gate.set()
        await sending
        await wire.half_close()
        await wire.to_end()
        assert taken == 8 << 20

    run(scenario)


def test_output_waits_for_a_slow_client(run: Callable[[Scenario], None], watched: type[Watched]) -> None:
    async def scenario(path: Path, containers: FakeContainers) -> None:
        piece, count = b"y" * 65536, 200
        for _ in range(count):
            containers.attachment.queue.put_nowait((1, piece))
        containers.attachment.queue.put_nowait(None)
        wire = await attach(path, query="stream=1&stdout=1")
        await wire.until(b"\r\n\r\n")
        await watched.stuck.wait()
        for _ in range(count):  # turns of the loop in which a daemon that does not wait would go on
            await asyncio.sleep(0)
        assert containers.attachment.queue.qsize() > count // 2
        assert len(await wire.to_end()) > (count - 20) * 65536

    run(scenario)


def test_closing_the_server_ends_open_streams(tmp_path: Path) -> None:
    async def main() -> None:
        path, containers = tmp_path / "api.sock", FakeContainers()
        server = await start(path, services(containers=containers))
        wire = await attach(path)
        await wire.until(b"\r\n\r\n")
        await server.close()
        assert await wire.to_end() == b""
        assert containers.attachment.closed.is_set()
        wire.close()

    asyncio.run(asyncio.wait_for(main(), 20))
