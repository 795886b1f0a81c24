"""A web server whose responses the test defines, and a registry client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from havre.oci.reference import Reference, parse_reference
from havre.registry import Registry, RegistryConfig

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers every request by `answer` and records it."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.open = True  # whether /v2/ requires no credentials
        self.requests: list[web.Request] = []
        self.host = ""

    @classmethod
    @asynccontextmanager
    async def run(cls, answer: Answer, address: str = "127.0.0.1") -> AsyncIterator[Server]:
        server = cls(answer)
        runner = web.ServerRunner(web.Server(server._handle), shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, address, 0)
        await site.start()
        server.host = f"{address}:{runner.addresses[0][1]}"
        try:
            yield server
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/" and self.open:
            return web.Response()
        self.requests.append(request)  # type: ignore[arg-type]
        return await self.answer(request)  # type: ignore[arg-type]

    def ref(self, text: str = "a/b:1") -> Reference:
        return parse_reference(f"{self.host}/{text}")

    def seen(self) -> list[tuple[str, str, str | None]]:
        return [(r.method, r.path, r.headers.get("Authorization")) for r in self.requests]


@asynccontextmanager
async def client(**config: Any) -> AsyncIterator[Registry]:
    registry = Registry(RegistryConfig(**config))
    try:
        yield registry
    finally:
        await registry.close()


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def needs(header: str, then: Answer, challenge: str) -> Answer:
    """Answers by `then` if the request is authorized by `header`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == header:
            return await then(request)
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    return answer
