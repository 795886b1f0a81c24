"""Services made of plain values, a daemon's edge on a real unix socket, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from havre.api.server import Server, UnixListener, serve
from havre.containers.container import Container, State
from havre.errors import NotFound
from havre.events import Events
from havre.wire.config import Config, HostConfig
from support.rows import container_row

CONTAINER_ID = "ab" * 32


def container(tty: bool = False, **fields: Any) -> Container:
    """A running container named `golden`."""
    values: dict[str, Any] = {
        "id": CONTAINER_ID,
        "created": "2026-11-24T12:55:02.161871052Z",
        "image": "sha256:" + "cd" * 32,
        "path": "sleep",
        "args": ["1000"],
        "config": Config(image="busybox", tty=tty, hostname="golden"),
        "host_config": HostConfig(network_mode="host"),
        "state": State(status="running", pid=7, started_at="2026-11-24T12:55:02.3Z"),
    }
    return container_row("golden", **(values | fields))


class FakeAttachment:
    """Echoes its input in upper case and ends when the input does; `emit` adds output."""

    def __init__(self, tty: bool = False) -> None:
        self.tty = tty
        self.closed = asyncio.Event()
        self.received = b""
        self.input_ended = False
        self.queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()

    @property
    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        return self._output()

    async def _output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self.queue.get()) is not None:
            yield item

    async def write_stdin(self, data: bytes) -> None:
        self.received += data
        self.queue.put_nowait((1, data.upper()))

    async def close_stdin(self) -> None:
        self.input_ended = True
        self.queue.put_nowait((2, b"done"))
        self.queue.put_nowait(None)

    def close(self) -> None:
        self.closed.set()


class FakeContainers:
    """One container; calls are recorded in `calls`."""

    def __init__(self) -> None:
        self.container = container()
        self.attachment = FakeAttachment()
        self.calls: list[tuple[str, Any]] = []

    def get(self, ref: str) -> Container:
        if ref not in ("golden", CONTAINER_ID):
            raise NotFound(f"No such container: {ref}")
        return self.container

    async def attach(self, ref: str, options: Any) -> FakeAttachment:
        self.get(ref)
        self.calls.append(("attach", options))
        return self.attachment

    def detached(self, ref: str) -> None:
        self.calls.append(("detached", ref))

    def __getattr__(self, name: str) -> Any:
        async def record(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, (args, kwargs)))
            self.get(args[0]) if args and isinstance(args[0], str) else None
            return SimpleNamespace(id=CONTAINER_ID, warnings=[])

        return record


class FakeExecs:
    """One exec, `e1`, that a container of the tests may have."""

    def __init__(self, containers: Any) -> None:
        self.containers = containers

    def get(self, id: str) -> Any:
        if id != "e1":
            raise NotFound(f"No such exec instance: {id}")
        return self.containers.exec

    def create(self, ref: str, spec: Any) -> Any:
        self.containers.get(ref)
        return SimpleNamespace(id="e1")

    def ids_of(self, container_id: str) -> list[str]:
        return []

    async def start(self, id: str, size: Any) -> Any:
        if self.containers.exec_failure is not None:
            raise self.containers.exec_failure
        return self.containers.attachment


def services(**parts: Any) -> Any:
    """A `Services` look-alike with the parts a test needs."""
    containers = parts.get("containers", FakeContainers())
    whole = {"containers": containers, "execs": FakeExecs(containers), "membership": containers, "events": Events()}
    whole["system"] = SimpleNamespace(builder_version="2")
    return SimpleNamespace(**(whole | parts))


async def start(path: Path, parts: Any) -> Server:
    """An edge listening at `path`."""
    return await serve(parts, [UnixListener(path)])


class Wire:
    """A blocking client on the raw socket, driven from threads so that the loop stays free."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(path))

    async def send(self, data: bytes) -> None:
        await asyncio.to_thread(self._socket.sendall, data)

    async def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def until(self, text: bytes) -> bytes:
        """What arrives, up to and including `text`."""
        received = b""
        while text not in received:
            piece = await asyncio.to_thread(self._socket.recv, 65536)
            assert piece, f"the connection ended after {received!r}"
            received += piece
        return received

    async def to_end(self) -> bytes:
        """What arrives until the server closes."""
        received = b""
        while piece := await asyncio.to_thread(self._socket.recv, 65536):
            received += piece
        return received

    def close(self) -> None:
        self._socket.close()


async def exchange(path: Path, method: str, target: str, headers: str = "", body: bytes = b"") -> bytes:
    """One request, answered to its end."""
    wire = Wire(path)
    try:
        head = f"{method} {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}\r\n"
        await wire.send(head.encode() + body)
        return await wire.to_end()
    finally:
        wire.close()


async def post_json(path: Path, target: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A JSON body by POST."""
    headers = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return await exchange(path, "POST", target, headers, body)
