"""Sessions: connections on which the daemon calls the client during a build.

    client                                    daemon
    POST /session, X-Docker-Expose-Session-*  -->  Session(id, methods)
                                              <--  FileSync/DiffCopy, Auth/Credentials, Secrets/GetSecret ...

A build names its session by ID; the session's connection may arrive after the build's first call.

Source: moby/buildkit session/manager.go, session/*/*.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from grpclib.client import Stream
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from havre.api.buildkit.http2 import Channel
from havre.api.buildkit.protobuf import Message
from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound

WAIT_S = 10.0  # for the session of a build that has started

A = TypeVar("A", bound=Message)


class Session:
    """One client. `offers(method)` reports whether it serves a method.

    `shared_key` identifies its directory across builds.
    """

    def __init__(self, id: str, shared_key: str, methods: Iterable[str], channel: Channel) -> None:
        self.id = id
        self.shared_key = shared_key
        self._methods = frozenset(method.lower() for method in methods)
        self._channel = channel

    def offers(self, method: str) -> bool:
        """Report whether the client serves `method` ("/package.Service/Method"), ignoring case."""
        return method.lower() in self._methods

    async def ask(self, method: str, question: Message, reply: type[A]) -> A:
        """Call a unary method. `NotFound` if the client reports it, `Failed` for other errors."""
        async with self._call(method, Cardinality.UNARY_UNARY, (), type(question), reply) as stream:
            await stream.send_message(question, end=True)
            answer = await stream.recv_message()
        if not isinstance(answer, reply):
            raise Failed(f"the client's answer to {method} is empty")
        return answer

    @asynccontextmanager
    async def converse(
        self, method: str, metadata: Sequence[tuple[str, str]], sent: type[Message], received: type[A]
    ) -> AsyncIterator[Stream[Any, A]]:
        """Call a bidirectional streaming method. The stream is cancelled unless read to its end."""
        if not self.offers(method):
            raise Failed(f"the client does not offer {method}")
        async with self._call(method, Cardinality.STREAM_STREAM, metadata, sent, received) as stream:
            yield stream

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        cardinality: Cardinality,
        metadata: Sequence[tuple[str, str]],
        sent: type[Message],
        received: type[A],
    ) -> AsyncIterator[Stream[Any, A]]:
        with _translated():
            async with self._channel.request(method, cardinality, sent, received, metadata=metadata) as stream:
                yield stream


_KINDS: dict[Status, type[HavreError]] = {Status.NOT_FOUND: NotFound, Status.ALREADY_EXISTS: Conflict}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except GRPCError as error:
        kind = _KINDS.get(error.status, Failed)
        raise kind(error.message or f"the client failed with {error.status.name}") from error
    except (StreamTerminatedError, ConnectionError) as error:
        raise Failed("the client's session has ended") from error


class Sessions:
    """The open sessions."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def opened(self, session: Session) -> AsyncIterator[None]:
        """Register a session during a block, so that builds can find it."""
        if not session.id:
            raise InvalidInput("the session has no ID")
        async with self._changed:
            self._open[session.id] = session
            self._changed.notify_all()
        try:
            yield
        finally:
            if self._open.get(session.id) is session:
                del self._open[session.id]

    async def find(self, id: str) -> Session:
        """The session with this ID, waiting for it if necessary; `NotFound` if it does not arrive."""
        try:
            async with asyncio.timeout(WAIT_S), self._changed:
                await self._changed.wait_for(lambda: id in self._open)
                return self._open[id]
        except TimeoutError:
            raise NotFound(f"no active session for {id}") from None
