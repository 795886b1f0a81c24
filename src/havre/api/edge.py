"""Processing common to all requests: version, redirect, guard, route, headers, errors.

    foreign page --> 403     path "//" --> 301     /vX.Y --> version (400)
    guard --> 401, 403       OPTIONS   --> 200     no route --> 404 {"message": "page not found"}
    plugins --> 403          handler   --> its response, or its HavreError as {"message"}

A `HavreError` carries its status. Any other exception of a handler is a bug: `EdgeProtocol.handle_error` responds
500 and logs the traceback. The guard runs before routing, so no route can bypass it.

Source: moby's api/server (middleware, httputils); messages and headers are dockerd 26's.
Why: docs/decisions/062.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import posixpath
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from havre import __version__
from havre.api.authorization import Authorization
from havre.api.bodies import HoldingProtocol
from havre.api.call import Call
from havre.api.origin import check_origin
from havre.api.router import Router
from havre.api.services import Services
from havre.errors import Failed, HavreError, InvalidInput
from havre.linux.room import hint_when_full, is_full
from havre.wire.versions import NEWEST, OLDEST, Version, parse_version

log = logging.getLogger(__name__)

Guard: TypeAlias = Callable[[web.BaseRequest, str, str], Awaitable[None]]

_PREFIX = re.compile(r"/v([0-9][0-9.]*)(/.*)?", re.DOTALL)
# docker's CLI reads the operating system from the parentheses, which must come last.
SERVER = f"Docker/{__version__}-havre ({platform.system().lower()})"


@dataclass(frozen=True)
class Edge:
    """Answers requests. `guard(request, method, path)` raises `Unauthorized` or `Forbidden` to refuse one.

    `names` are the host names accepted over plain TCP (`api.origin`).
    """

    router: Router
    services: Services
    guard: Guard | None = None
    experimental: bool = False
    names: frozenset[str] = frozenset()
    authorization: Authorization | None = None
    oldest: Version = OLDEST
    headers: Mapping[str, str] = field(init=False)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        said = {
            "Api-Version": str(NEWEST),
            "Docker-Experimental": str(self.experimental).lower(),
            "Ostype": "linux",
            "Server": SERVER,
        }
        object.__setattr__(self, "headers", said)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to a request. An exception is a bug, or means that the client has disconnected."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        protocol = request.protocol
        assert isinstance(protocol, HoldingProtocol)
        try:
            answer = await self._route(request)
        except HavreError as error:
            if request.writer.output_size > 0:
                log.warning("%s %s failed after its response had begun: %s", request.method, request.path, error)
                raise ConnectionResetError("the answer has begun; it can only be cut off") from error
            answer = self.refuse(error)
        except OSError as error:
            if not is_full(error) or request.writer.output_size > 0:
                raise
            what = f": {error.filename}" if isinstance(error.filename, str) else ""
            answer = self.refuse(Failed(f"no space left on device{what}", hint_when_full(error)))
        finally:
            self.tasks.discard(task)
            protocol.let_go()
        if protocol.taken:
            answer.force_close()
        return answer

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        check_origin(request, self.names)
        raw = request.raw_path.partition("?")[0]
        if (clean := _clean(raw)) != raw:
            return web.Response(status=301, headers={"Location": _with_query(clean, request), "Server": SERVER})
        version, path = self._split_version(unquote(raw))
        if self.guard is not None:
            await self.guard(request, request.method, path)
        if request.method == "OPTIONS":
            return web.Response(headers=self.headers)
        found = self.router.find(request.method, path)
        if "%00" in request.raw_path.partition("?")[2]:
            raise InvalidInput("invalid query: it contains a NUL character")
        if found is None:
            return refusal(404, "page not found", {"Server": SERVER})
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # no body has been sent yet; aiohttp counts the "100 Continue"
        handler, fields = found
        call = Call(request, self.services, version, fields, self.headers)
        if self.authorization is not None and self.authorization.active:
            return await self.authorization.handle(call, path, handler)
        return await handler(call)

    def _split_version(self, path: str) -> tuple[Version, str]:
        match = _PREFIX.fullmatch(path)
        if match is None:
            return NEWEST, path
        return parse_version(match[1], self.oldest), match[2] or "/"

    def refuse(self, error: HavreError) -> web.Response:
        """An error in Docker's shape; a 304 has no body."""
        headers = self.headers if error.hint is None else {**self.headers, "Havre-Hint": _one_line(error.hint)}
        if error.status < 400:
            return web.Response(status=error.status, headers=headers)
        return refusal(error.status, error.message, headers)


def refusal(status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    """`{"message": ...}` with a status. Message and shape are exactly dockerd's, so the hint is in a header."""
    body = msgspec.json.encode({"message": message}) + b"\n"
    return web.Response(body=body, status=status, headers={**headers, "Content-Type": "application/json"})


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _clean(path: str) -> str:
    """The path without empty, `.` and `..` segments, as Go's router cleans it; a trailing slash stays."""
    if "//" not in path and "/." not in path:
        return path
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _with_query(path: str, request: web.BaseRequest) -> str:
    query = request.raw_path.partition("?")[2]
    return f"{path}?{query}" if query else path


class EdgeProtocol(HoldingProtocol):
    """aiohttp's connection, with errors of the HTTP parser in Docker's shape."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called for invalid HTTP, and for exceptions of a handler other than `HavreError`."""
        has_left = self.transport is None or self.transport.is_closing()
        if isinstance(exc, ConnectionError) and (has_left or request.writer.output_size > 0):
            raise exc  # aiohttp then closes the connection without a response
        if exc is not None and not isinstance(exc, HttpProcessingError):
            log.error("%s %s failed", request.method, request.path, exc_info=exc)
            message = f"internal error: {type(exc).__name__}: {exc}"
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer has begun; it can only be cut off")
        answer = refusal(status, message or "malformed HTTP request", {"Server": SERVER})
        answer.force_close()
        return answer


class EdgeServer(web.Server):
    """Creates an `EdgeProtocol` for each connection."""

    def __init__(self, edge: Edge, **settings: Any) -> None:
        super().__init__(edge.answer, handler_cancellation=True)
        self._settings = settings

    def __call__(self) -> RequestHandler:
        return EdgeProtocol(self, loop=self._loop, **self._settings)
