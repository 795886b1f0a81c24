"""The client's SSH agent on a local socket, for `RUN --mount=type=ssh`.

    ssh in a RUN --> Unix socket --> SSH/ForwardAgent, a stream for each connection --> the client's agent

Source: moby/buildkit session/sshforward; ssh-agent(1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grpclib.client import Stream

from havre.api.agents import agent_socket
from havre.api.buildkit.sessionmessages import BytesMessage
from havre.api.buildkit.sessions import Session

_FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
_ID = "buildkit.ssh.id"
_PIECE = 32 << 10


@asynccontextmanager
async def forward_agent(session: Session, id: str, path: Path) -> AsyncIterator[None]:
    """Forward the socket `path` to the client's agent `id` during a block."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with session.converse(_FORWARD, [(_ID, id or "default")], BytesMessage, BytesMessage) as stream:
            await _relay(reader, writer, stream)

    async with agent_socket(path, serve):
        yield


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream[Any, BytesMessage]) -> None:
    """Relay both directions until the agent closes or the socket's user disconnects."""
    await stream.send_request()

    async def forward() -> None:
        while data := await reader.read(_PIECE):
            await stream.send_message(BytesMessage(data))
        await stream.end()

    forwarding = asyncio.ensure_future(forward())
    try:
        async for answer in stream:
            writer.write(answer.data)
            await writer.drain()
    finally:
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)
