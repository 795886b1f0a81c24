"""SSH agents of clients of `havre build`, for `RUN --mount=type=ssh` and git, over connections that the client opens.

    client                                          daemon
    POST /build/agent?buildid=B&id=I, Upgrade  -->  waits until a process of the build connects to I's socket
    opens the next connection                  <--  the process's first bytes
    the agent's responses                      -->  relayed until either side closes, or the build ends

Each process gets its own connection, because an agent's connection has state (session-bind@openssh.com).

Source: ssh-agent(1); draft-miller-ssh-agent.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from havre.aio import finish
from havre.api.call import Call
from havre.api.hijack import Connection, Taken, render_head, take_over
from havre.builds.contexts import Contexts
from havre.errors import HavreError, InvalidInput
from havre.listening import Acceptor, Budget

log = logging.getLogger(__name__)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_PIECE = 32 << 10
_USERS = 64  # concurrent connections to one socket, as a RUN's programs are untrusted
_RAW = "application/vnd.docker.raw-stream"


@asynccontextmanager
async def agent_socket(path: Path, serve: Serve) -> AsyncIterator[None]:
    """Accept connections on the Unix socket `path` and pass each to `serve`, during a block."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(accepted: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        task.add_done_callback(connections.discard)
        reader, writer = await asyncio.open_unix_connection(sock=accepted)
        try:
            await serve(reader, writer)
        except (HavreError, ConnectionError) as error:
            log.info("the SSH agent's connection ended: %s", error)
        finally:
            writer.close()

    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.bind(str(path))
        opened.listen(_USERS)
    except BaseException:
        opened.close()
        raise
    acceptor = Acceptor(opened, connected, Budget(2 * _USERS, _USERS), path)
    try:
        yield
    finally:
        acceptor.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


class _Offer:
    """A connection that a client has opened in advance."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.over = asyncio.Event()


class Agents:
    """The connections offered by all clients, by build and agent."""

    def __init__(self) -> None:
        self._offers: defaultdict[tuple[str, str], list[_Offer]] = defaultdict(list)
        self._changed = asyncio.Condition()

    async def offer(self, call: Call) -> web.StreamResponse:
        """Hold the connection until it was used and closed, or the client disconnects."""
        key = call.text("buildid"), call.text("id")
        if not all(key) or call.request.headers.get("Upgrade") is None:
            raise InvalidInput("an agent is offered with buildid, id and an Upgrade header")
        await call.announce(101, _RAW)
        mine = _Offer(take_over(call.request, render_head(call.headers, _RAW, "tcp")))
        offers = self._offers[key]
        offers.append(mine)
        try:
            async with self._changed:
                self._changed.notify_all()
            await mine.over.wait()
        finally:
            if mine in offers:
                offers.remove(mine)
            if not offers and self._offers.get(key) is offers:
                del self._offers[key]
        return Taken()

    @asynccontextmanager
    async def forwarded(self, build_id: str, ids: Collection[str], contexts: Contexts) -> AsyncIterator[Forwarded]:
        """The agents `ids` of a build during a block; the clients' connections are closed with it."""
        async with AsyncExitStack() as stack:
            try:
                yield Forwarded(self, build_id, ids, contexts, stack)
            finally:
                await finish(stack.aclose())
                for id in ids:
                    for offer in self._offers.get((build_id, id), ()):
                        offer.over.set()

    async def converse(
        self, build_id: str, id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Relay one connection of a process to the client's agent."""
        key = build_id, id
        async with self._changed:
            await self._changed.wait_for(lambda: self._offers.get(key))
            offer = self._offers[key].pop(0)
        both = [
            asyncio.ensure_future(_send(reader, offer.connection)),
            asyncio.ensure_future(_receive(offer.connection, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            offer.over.set()
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)


class Forwarded:
    """The agents of one build: a socket for each that is used."""

    def __init__(
        self, agents: Agents, build_id: str, ids: Collection[str], contexts: Contexts, stack: AsyncExitStack
    ) -> None:
        self._agents = agents
        self._build_id = build_id
        self._ids = ids
        self._contexts = contexts
        self._stack = stack
        self._sockets: dict[str, Path] = {}
        self._lock = asyncio.Lock()

    async def ssh(self, id: str) -> Path | None:
        """The socket of an agent; None if it is not forwarded."""
        if id not in self._ids:
            return None
        async with self._lock:
            if id not in self._sockets:
                path = await self._stack.enter_async_context(self._contexts.borrow()) / "agent"

                async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    await self._agents.converse(self._build_id, id, reader, writer)

                await self._stack.enter_async_context(agent_socket(path, serve))
                self._sockets[id] = path
            return self._sockets[id]


async def _send(reader: asyncio.StreamReader, connection: Connection) -> None:
    while data := await reader.read(_PIECE):
        await connection.write(data)


async def _receive(connection: Connection, writer: asyncio.StreamWriter) -> None:
    while data := await connection.read():
        writer.write(data)
        await writer.drain()
