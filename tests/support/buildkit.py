"""BuildKit's calls by hand over a daemon's socket, for those that the available clients do not make."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from grpclib.const import Cardinality

from havre.api.buildkit import messages as m
from havre.api.buildkit.http2 import Channel, Routes, server_protocol, unary
from havre.api.buildkit.protobuf import Message
from havre.api.buildkit.sessionmessages import CredentialsRequest, CredentialsResponse

CONTROL, BRIDGE = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
AUTH = "/moby.filesync.v1.Auth/"

A = TypeVar("A", bound=Message)


def _taken_over(path: Path, target: str, headers: Mapping[str, str], methods: list[str]) -> socket.socket:
    """A hijacked connection after the HTTP upgrade."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(path))
    lines = [f"POST {target} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"X-Docker-Expose-Session-Grpc-Method: {method}" for method in methods]
    connection.sendall("\r\n".join((*lines, "", "")).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):  # HTTP/2 follows
        piece = connection.recv(1)
        assert piece, answer
        answer += piece
    assert b" 101 " in answer.splitlines()[0], answer
    return connection


class Caller:
    """A client of one daemon, with a session if it has `routes`."""

    def __init__(self, channel: Channel, session: str) -> None:
        self._channel = channel
        self.session = session

    async def ask(self, method: str, question: Message, reply: type[A], build: str = "") -> A:
        """Call a unary method; `build` is the reference of its build."""
        metadata = [("buildkit-controlapi-buildid", build)] if build else []
        async with self._channel.request(
            method, Cardinality.UNARY_UNARY, type(question), reply, metadata=metadata
        ) as stream:
            await stream.send_message(question, end=True)
            answer = await stream.recv_message()
        assert isinstance(answer, reply)
        return answer

    async def listen(self, method: str, question: Message, reply: type[A]) -> AsyncIterator[A]:
        """Call a method that answers with a stream, until it ends."""
        async with self._channel.request(method, Cardinality.UNARY_STREAM, type(question), reply) as stream:
            await stream.send_message(question, end=True)
            async for answer in stream:
                yield answer

    async def solve(self, exporter: str, attrs: dict[str, str], options: dict[str, str]) -> dict[str, str]:
        """Build by Control.Solve only. Returns the exporter's response."""
        request = m.SolveRequest(
            ref=secrets.token_hex(12),
            frontend="dockerfile.v0",
            frontend_attrs=options,
            exporters=[m.Exporter(exporter, attrs)],
            session=self.session,
        )
        return (await self.ask(f"{CONTROL}Solve", request, m.SolveResponse)).exporter_response


@asynccontextmanager
async def calling(path: Path, routes: Routes | None = None) -> AsyncIterator[Caller]:
    """A caller of the daemon at a socket, whose session serves `routes`."""
    loop, session = asyncio.get_running_loop(), ""
    async with AsyncExitStack() as stack:
        if routes:
            session = secrets.token_hex(12)
            headers = {"X-Docker-Expose-Session-Uuid": session}
            taken = _taken_over(path, "/session", headers, list(routes))
            transport, _ = await loop.create_connection(lambda: server_protocol(routes), sock=taken)
            stack.callback(transport.close)
        channel = Channel()
        stack.callback(channel.close)
        await loop.create_connection(channel.make_protocol, sock=_taken_over(path, "/grpc", {}, []))
        yield Caller(channel, session)


def credentials(known: Mapping[str, tuple[str, str]]) -> Routes:
    """The routes of a session with users and passwords by host."""

    async def tell(asked: CredentialsRequest, metadata: Any) -> CredentialsResponse:
        return CredentialsResponse(*known.get(asked.host, ("", "")))

    return {f"{AUTH}Credentials": unary(tell, CredentialsRequest, CredentialsResponse)}
