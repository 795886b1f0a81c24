"""One request as a handler sees it: decode its parameters, run its work, create its response.

Handlers are thin: `call.body(T)` and `call.flag("force")` in, one call of the engine, `call.json(value)` out.

A client that disconnects cancels its handler. That is right for logs and events, but would interrupt work that
changes state; such work runs under `call.settle`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from aiohttp import web

from havre.aio import feed
from havre.api.bodies import HoldingProtocol, feed_body
from havre.api.services import Services
from havre.errors import Forbidden, HavreError, InvalidInput
from havre.wire.conversion import lower
from havre.wire.decode import check_content_type, decode_body, refuse_repeated
from havre.wire.filters import decode_filters
from havre.wire.queries import parse_bool, parse_int, parse_platform_parameter, parse_time
from havre.wire.versions import Version

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_JSON_BODY = 8 << 20
MAX_SHOWN_BODY = 4 << 20  # bytes shown to authorization plugins; dockerd's limit since CVE-2026-34040
JSON = "application/json"

_settling: set[asyncio.Task[Any]] = set()


class Approve(Protocol):
    """Raises Forbidden or Failed unless a response may be sent."""

    async def __call__(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None: ...


class Call:
    """A request, the services, and the client's API version.

    `approve` is set if responses need approval (`api.authorization`); then a body is parsed as JSON only if it was
    shown to the plugins, or `may_read_unseen`.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        services: Services,
        version: Version,
        fields: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> None:
        self.request = request
        self.services = services
        self.version = version
        self.fields = fields
        self.headers = dict(headers)
        self.query = request.query
        self.approve: Approve | None = None
        self.may_read_unseen = False
        self._shown: bytes | None = None

    @property
    def name(self) -> str:
        """The `{name}` of the path."""
        return self.fields["name"]

    def text(self, name: str, default: str = "") -> str:
        """A query parameter as text."""
        return self.query.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """A query parameter as a boolean, as Docker parses it."""
        return parse_bool(self.query[name]) if name in self.query else default

    def integer(self, name: str) -> int | None:
        """A query parameter as an integer; None when absent or empty."""
        value = self.query.get(name, "")
        return parse_int(value, name) if value else None

    def platforms(self, name: str = "platform") -> list[str]:
        """The platforms of a query parameter: OCI platforms in JSON, as Docker's clients send, or `os/architecture`."""
        return [parse_platform_parameter(text, name) for text in self.query.getall(name, []) if text]

    def platform(self) -> str | None:
        """The single platform, if given."""
        found = self.platforms()
        if len(found) > 1:
            raise InvalidInput("multiple platforms is not supported", "give one platform")
        return found[0] if found else None

    def need(self, least: tuple[int, int], pattern: str) -> None:
        """Refuse an older client, in dockerd's words, at an endpoint that it does not know."""
        if self.version < least:
            needed = f"requires minimum API version {least[0]}.{least[1]}"
            raise InvalidInput(f"{self.request.method} {pattern} {needed}")

    def filters(self) -> dict[str, list[str]]:
        """The `filters` parameter, in either of its JSON forms."""
        return decode_filters(self.query.get("filters", ""))

    def prune_filters(self) -> dict[str, list[str]]:
        """As `filters`, with `until` converted to seconds since the epoch."""
        filters = self.filters()
        if "until" in filters:
            filters["until"] = [str(parse_time(each, "until", time.time())) for each in filters["until"]]
        return filters

    async def body(self, into: type[T]) -> T:
        """The JSON body as `into`; 400 if it is not JSON, too long, or of another shape."""
        return decode_body(await self.json_body(), into)

    async def json_body(self) -> bytes:
        """The JSON body as bytes; 400 if it is too long or of another type."""
        check_content_type(self.request.headers.get("Content-Type", ""))
        return await self._read_body()

    async def optional_body(self, into: type[T]) -> T:
        """The JSON body as `into`; an empty body counts as an empty object."""
        body = await self._read_body()
        if not body:
            return decode_body(b"{}", into)
        check_content_type(self.request.headers.get("Content-Type", ""))
        return decode_body(body, into)

    async def show_body(self) -> bytes:
        """Read the whole body, which handlers read afterwards; b"" if a thread is to read it. Forbidden if too long.

        A body read by a thread (`api.bodies`) is an archive, whatever its type, and never parsed as JSON.
        """
        protocol = self.request.protocol
        if isinstance(protocol, HoldingProtocol) and protocol.holds:
            return b""
        too_long = f"request body too large for authorization plugin: size exceeds {MAX_SHOWN_BODY} bytes"
        self._shown = await self._receive(MAX_SHOWN_BODY, Forbidden(too_long))
        return self._shown

    async def _read_body(self) -> bytes:
        if self._shown is not None:
            if self._shown.strip():
                refuse_repeated(self._shown)
            return self._shown
        too_long = f"request body too large: more than {MAX_JSON_BODY} bytes of JSON"
        body = await self._receive(MAX_JSON_BODY, InvalidInput(too_long))
        if body and self.approve is not None and not self.may_read_unseen:
            raise Forbidden("the body was not shown to the authorization plugins", "send it as application/json")
        return body

    async def _receive(self, limit: int, too_long: HavreError) -> bytes:
        received = bytearray()
        async for chunk in self.request.content.iter_any():
            received += chunk
            if len(received) > limit:
                raise too_long
        return bytes(received)

    def upload(self) -> AsyncIterator[bytes]:
        """The body as a stream, for tars; InvalidInput if the client disconnects before its end."""
        return _until_cut_off(self.request) if self._shown is None else _once(self._shown)

    async def feed(self, take: Callable[[Any], None]) -> None:
        """Pass the body, an archive, to `take` in a thread; by `api.bodies.feed_body` unless already read."""
        await (feed_body(self.request, take) if self._shown is None else feed(_once(self._shown), take))

    async def announce(self, status: int, content_type: str) -> None:
        """To be called before the head of a streamed response. Forbidden, Failed."""
        if self.approve is not None:
            await self.approve(status, self.headers | {"Content-Type": content_type})

    async def settle(self, work: Coroutine[Any, Any, T], abandon: Callable[[T], None] | None = None) -> T:
        """Run `work` to its end even if the client disconnects; then log its failure, or pass its result to
        `abandon`."""
        task = asyncio.get_running_loop().create_task(work)
        _settling.add(task)
        task.add_done_callback(_settling.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(functools.partial(_outlived, abandon))
            raise

    def json(self, value: Any, status: int = 200) -> web.Response:
        """`value` as JSON, in the shape that the client's version has (`wire.conversion`)."""
        return self.respond(msgspec.json.encode(lower(value, self.version)) + b"\n", JSON, status)

    def respond(self, body: bytes, content_type: str, status: int = 200) -> web.Response:
        """A complete response of any type."""
        return web.Response(body=body, status=status, headers=self.headers | {"Content-Type": content_type})

    def nothing(self, status: int = 204) -> web.Response:
        """A response without a body."""
        return web.Response(status=status, headers=self.headers)

    async def stream(
        self, content_type: str = JSON, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Send the head of a streamed response."""
        told = self.headers | {"Content-Type": content_type} | dict(headers or {})
        if self.approve is not None:
            await self.approve(status, told)
        response = web.StreamResponse(status=status, headers=told)
        await response.prepare(self.request)
        return response


async def _until_cut_off(request: web.BaseRequest) -> AsyncIterator[bytes]:
    content = request.content
    while True:
        try:
            async for chunk in content.iter_any():
                yield chunk
            return
        except ConnectionError:
            if not content.is_eof():
                raise InvalidInput("unexpected EOF", "the client left before the end of its body") from None
            content._exception = None  # the whole body was received; aiohttp (whose version is pinned) would discard it


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def settling() -> set[asyncio.Task[Any]]:
    """The state-changing tasks that are running."""
    return set(_settling)


def _outlived(abandon: Callable[[Any], None] | None, task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        if abandon is not None:
            abandon(task.result())
    elif isinstance(error, HavreError):
        log.warning("an operation failed after its client had disconnected: %s", error)
    else:
        log.error("an operation failed after its client had disconnected", exc_info=error)
