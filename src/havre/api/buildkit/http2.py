"""gRPC on a hijacked connection, in both roles.

    POST /grpc     the client is the HTTP/2 client:   server_protocol(routes)
    POST /session  the client is the HTTP/2 server:   Channel, on which we call it

grpclib implements HTTP/2 and gRPC; this module adds our messages, a limit on the size of a message, and a channel on
an existing connection that never reconnects. Only this module uses grpclib's private names (`Handler`,
`Connection._connection`, `Channel._create_connection`); its version is pinned.

Source: gRPC, "gRPC over HTTP2"; the limit is BuildKit's (16 MiB), the window measured (FLOW_WINDOW).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import h2.config
import hpack
from grpclib import client as grpc_client
from grpclib import protocol
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as Route
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.server import Handler, Stream

from havre.api.buildkit import protobuf
from havre.api.buildkit.messages import Any as Detail
from havre.api.buildkit.messages import RpcStatus
from havre.api.buildkit.protobuf import Message
from havre.errors import HavreError

log = logging.getLogger(__name__)

MAX_MESSAGE = 16 << 20
_TIMESTAMP = "buildkit-current-timestamp"
FLOW_WINDOW = 64 << 20  # 200 MB of context arrive twice as fast as with 4 MiB

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
Metadata: TypeAlias = Mapping[str, Any]
Routes: TypeAlias = dict[str, Route]

_CONFIG = Configuration(
    _keepalive_time=None, http2_connection_window_size=FLOW_WINDOW, http2_stream_window_size=FLOW_WINDOW
)


class _Codec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Message, message_type: type[Message]) -> bytes:
        return protobuf.encode(message)

    def decode(self, data: bytes, message_type: type[Message]) -> Message:
        try:
            return protobuf.decode(message_type, data)
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"malformed {message_type.__name__}: {error}") from error


class _DetailsCodec(StatusDetailsCodecBase):
    """Encodes the details of an error, which BuildKit's clients show: its position in the Dockerfile."""

    def encode(self, status: Status, message: str | None, details: Sequence[Detail]) -> bytes:
        return protobuf.encode(RpcStatus(status.value, message or "", list(details)))

    def decode(self, status: Status, message: str | None, data: bytes) -> Sequence[Detail]:
        try:
            return protobuf.decode(RpcStatus, data).details
        except ValueError:
            return ()


class _Stream(protocol.Stream):
    """Refuses an oversized message by its length prefix, before reading it."""

    async def recv_data(self, size: int) -> bytes:
        if size > MAX_MESSAGE:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"message larger than max ({size} vs. {MAX_MESSAGE})")
        return await super().recv_data(size)


class _Connection(protocol.Connection):
    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> protocol.Stream:
        return _Stream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)


class _PlainEncoder(hpack.Encoder):
    """Sends headers without Huffman coding, whose cost in hpack is quadratic in a value's length: an error that quotes
    a Dockerfile of 64 KiB would block the event loop for three seconds, one of 2 MiB for an hour.
    """

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        encoded: bytes = super().encode(headers, huffman=False)
        return encoded


class _Protocol(protocol.H2Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.connection._connection.encoder = _PlainEncoder()
        self.connection = _Connection(self.connection._connection, transport, config=self.config)
        self.processor = protocol.EventsProcessor(self.handler, self.connection)


def _h2_config(*, client_side: bool) -> h2.config.H2Configuration:
    return h2.config.H2Configuration(
        client_side=client_side,
        header_encoding="ascii",
        validate_inbound_headers=False,
        validate_outbound_headers=False,
        normalize_inbound_headers=False,
        normalize_outbound_headers=False,
    )


# -- as server


def server_protocol(routes: Routes) -> asyncio.Protocol:
    """The protocol of a connection on which the client calls us."""
    handler = Handler(routes, _Codec(), _DetailsCodec(), _DispatchServerEvents())
    return _Protocol(handler, _CONFIG.__for_server__(), _h2_config(client_side=False))


def unary(answer: Callable[[Q, Metadata], Awaitable[A]], question: type[Q], reply: type[A]) -> Route:
    """A method with one request and one response message; a `HavreError` becomes the call's status."""

    async def handle(stream: Stream[Any, Any]) -> None:
        message = await _only_message(stream)
        try:
            answered = await answer(message, stream.metadata or {})
        except HavreError as error:
            raise refusal(error) from error
        await stream.send_message(answered)

    return Route(handle, Cardinality.UNARY_UNARY, question, reply)


def streaming(
    answer: Callable[[Q, Metadata], AsyncIterator[A]], question: type[Q], reply: type[A], *, stamped: bool = False
) -> Route:
    """A method with one request message and a stream of responses, `stamped` with the daemon's time."""

    async def handle(stream: Stream[Any, Any]) -> None:
        message = await _only_message(stream)
        if stamped:
            await stream.send_initial_metadata(metadata={_TIMESTAMP: datetime.now(UTC).isoformat()})
        try:
            async for each in answer(message, stream.metadata or {}):
                await stream.send_message(each)
        except HavreError as error:
            raise refusal(error) from error

    return Route(handle, Cardinality.UNARY_STREAM, question, reply)


async def _only_message(stream: Stream[Any, Any]) -> Any:
    message = await stream.recv_message()
    if message is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the call has no message")
    return message


def refusal(error: HavreError, message: str = "", details: Sequence[Detail] = ()) -> GRPCError:
    """An error as BuildKit reports errors: status UNKNOWN and the message, plus our hint."""
    told = message or error.message
    return GRPCError(Status.UNKNOWN, f"{told} ({error.hint})" if error.hint else told, list(details) or None)


# -- as client


class Channel(grpc_client.Channel):
    """Calls to the client on the connection that it opened. Once it is closed, every call fails."""

    def __init__(self) -> None:
        super().__init__("localhost", codec=_Codec(), status_details_codec=_DetailsCodec(), config=_CONFIG)

    def make_protocol(self) -> asyncio.Protocol:
        """The protocol for the connection; calls may start once its `connection_made` has run."""
        made = _Protocol(grpc_client.Handler(), self._config, _h2_config(client_side=True))
        self._protocol = made
        return made

    async def _create_connection(self) -> protocol.H2Protocol:
        raise ConnectionResetError("the client's session has ended")
