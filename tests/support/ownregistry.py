"""havre's registry in this process, with raw requests to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from havre.distribution.repositories import Repositories
from havre.distribution.server import Server
from havre.oci import mediatypes
from havre.oci.digest import digest_of

LAYER, CONFIG = b"layer" * 1000, b"{}"


class Caller:
    """Sends requests to one server."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session, self._base = session, base
        self.host = base.partition("://")[2]

    async def __call__(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = path if path.startswith("http") else self._base + path
        async with self._session.request(method, url, data=body, headers=named) as response:
            return response.status, dict(response.headers), await response.read()

    async def code(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        status, _, answer = await self(method, path, body, **headers)
        return status, json.loads(answer)["errors"][0]["code"]

    async def blob(self, name: str, data: bytes) -> str:
        digest = digest_of(data)
        assert (await self("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data))[0] == 201
        return digest

    async def image(self, name: str, tag: str, **more: Any) -> str:
        for data in (LAYER, CONFIG):
            await self.blob(name, data)
        body = manifest(**more)
        status, headers, _ = await self(
            "PUT", f"/v2/{name}/manifests/{tag}", body, Content_Type=mediatypes.OCI_MANIFEST
        )
        assert (status, headers["Docker-Content-Digest"]) == (201, digest_of(body))
        return digest_of(body)


def manifest(layer: bytes = LAYER, **more: Any) -> bytes:
    part = {"mediaType": mediatypes.OCI_LAYER, "digest": digest_of(layer), "size": len(layer)}
    config = {"mediaType": mediatypes.OCI_CONFIG, "digest": digest_of(CONFIG), "size": len(CONFIG)}
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_MANIFEST, "config": config, "layers": [part], **more}
    return json.dumps(document).encode()


@asynccontextmanager
async def serving(root: Path, **options: Any) -> AsyncIterator[Caller]:
    runner = web.ServerRunner(web.Server(Server(Repositories(root), **options).handle), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Caller(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))
