"""Registries that lie, dawdle or drown: a clear error within bounded time and memory."""

from __future__ import annotations

import asyncio
import gzip
import time
from pathlib import Path

import pytest
from aiohttp import web

from havre.errors import Failed, HavreError, InvalidInput, NotFound
from havre.oci import mediatypes
from havre.oci.digest import digest_of
from havre.oci.manifest import MAX_DOCUMENT, Descriptor
from havre.registry import client as client_module
from havre.registry import transport
from havre.registry.limits import Limits
from support.httpserver import Answer, Server, client, needs, play
from support.imagery import PlainStorage, layer_tar

BODY = bytes(range(256)) * 4096
LAYER = Descriptor(mediatypes.OCI_LAYER_GZIP, digest_of(BODY), len(BODY))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (transport, client_module):
        monkeypatch.setattr(module, "backoff_s", lambda attempt: 0.0)


def trickle(pause_s: float, status: int = 200) -> Answer:
    """Answers with a body that never quite ends."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Length": str(len(BODY))})
        await response.prepare(request)
        for _ in range(100_000):
            try:
                await response.write(b"x")
            except ConnectionError:
                break
            await asyncio.sleep(pause_s)
        return response

    return answer


def test_a_blob_that_trickles_is_given_up_once() -> None:
    async def work() -> None:
        async with Server.run(trickle(0.01)) as server, client(limits=Limits(patience_s=0.3)) as registry:
            with pytest.raises(Failed, match=r"is downloaded too slowly: \d+ bytes in 0 s"):
                async for _ in registry.blob(server.ref(), LAYER):
                    pass
            assert len(server.requests) == 1

    play(work)


def test_a_blob_that_breaks_after_every_few_bytes_is_given_up() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
            await response.prepare(request)
            await response.write(b"xyz")
            assert request.transport is not None
            request.transport.close()
            return response

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(HavreError):
                async for _ in registry.blob(server.ref(), LAYER):
                    pass
            assert len(server.requests) <= Limits().attempts

    play(work)


def test_a_manifest_that_trickles_or_never_begins_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "DOCUMENT_S", 0.2)

    async def work() -> None:
        async def silent(request: web.Request) -> web.StreamResponse:
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.01)
            return web.Response()

        for answer in (trickle(0.02), silent):
            async with Server.run(answer) as server, client(limits=Limits(answer_s=0.2)) as registry:
                with pytest.raises(Failed, match="request canceled while waiting"):
                    await registry.manifest(server.ref())

    play(work)


def test_a_refusal_that_trickles_is_told_without_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_REFUSAL_S", 0.2)

    async def work() -> None:
        async with Server.run(trickle(0.02, status=404)) as server, client() as registry:
            with pytest.raises(NotFound, match="manifest unknown"):
                await registry.manifest(server.ref())

    play(work)


def test_a_manifest_without_end_is_cut_off() -> None:
    async def work() -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b" " * 65536)
            except ConnectionError:
                return response

        async with Server.run(endless) as server, client() as registry:
            with pytest.raises(InvalidInput, match=f"more than {MAX_DOCUMENT} bytes"):
                await registry.manifest(server.ref())

    play(work)


def test_a_wish_to_wait_for_ever_is_not_granted() -> None:
    async def work() -> None:
        async def busy(request: web.Request) -> web.StreamResponse:
            return web.Response(status=429, headers={"Retry-After": "99999"})

        async with Server.run(busy) as server, client(limits=Limits(wait_s=0.01)) as registry:
            with pytest.raises(HavreError, match="429"):
                await registry.manifest(server.ref())
            assert len(server.requests) == Limits().attempts

    play(work)


def test_a_wish_to_wait_a_moment_is_granted() -> None:
    async def work() -> None:
        came: list[float] = []

        async def busy(request: web.Request) -> web.StreamResponse:
            came.append(time.monotonic())
            status = 429 if len(came) == 1 else 200
            return web.Response(body=b"{}", status=status, headers={"Retry-After": "1"})

        async with Server.run(busy) as server, client() as registry:
            await registry.manifest(server.ref())
            assert came[1] - came[0] >= 1

    play(work)


def test_a_configuration_that_is_another_is_refused() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=BODY[::-1])

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(Failed, match=f"verification failed for digest {LAYER.digest}"):
                await registry.document(server.ref(), LAYER, None, len(BODY))
            with pytest.raises(InvalidInput, match="at most 100 are accepted"):
                await registry.document(server.ref(), LAYER, None, 100)

    play(work)


def in_pieces(body: bytes, status: int = 200) -> Answer:
    """Answers with a body whose two halves come one after the other."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for half in (body[: len(body) // 2], body[len(body) // 2 :]):
            await response.write(half)
            await asyncio.sleep(0.05)
        return response

    return answer


def test_answers_that_come_in_pieces_are_read_whole() -> None:
    async def work() -> None:
        refusal = b'{"errors": [{"code": "DENIED", "message": "not you"}]}'
        async with Server.run(in_pieces(refusal, 400)) as server, client() as registry:
            with pytest.raises(InvalidInput, match="not you"):
                await registry.manifest(server.ref())

        token, body = in_pieces(b'{"token": "secret"}'), b'{"tags": ["one"]}'
        served = needs("Bearer secret", in_pieces(body), "")

        async def answer(request: web.Request) -> web.StreamResponse:
            response = await (token if request.path == "/token" else served)(request)
            if response.status == 401:
                response.headers["WWW-Authenticate"] = f'Bearer realm="http://{server.host}/token"'
            return response

        async with Server.run(answer) as server, client() as registry:
            assert await registry.tags(server.ref()) == ["one"]

    play(work)


@pytest.mark.parametrize("body", [b"<html>", b'{"tags": ["\xff"]}', b'{"tags": ' + b"[" * 100_000])
def test_a_listing_that_is_none_is_refused(body: bytes) -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body)

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(InvalidInput, match="invalid list of tags"):
                await registry.tags(server.ref())

    play(work)


def test_a_listing_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_MAX_LISTING", 10_000)

    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            link = f"</v2/a/b/tags/list?last={len(server.requests)}>; rel=next"
            return web.json_response({"tags": ["x" * 1000]}, headers={"Link": link})

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(InvalidInput, match="more than 10000 bytes"):
                await registry.tags(server.ref())
            assert len(server.requests) == 10

    play(work)


@pytest.mark.parametrize("packed", [gzip.compress, bytes], ids=["gzip", "tar"])
def test_a_layer_that_unfolds_without_end_is_refused(tmp_path: Path, packed: type[bytes]) -> None:
    bomb = packed(layer_tar("zeros", content=bytes(8 << 20)))

    async def take_in(storage: PlainStorage) -> None:
        async with storage.layers.ingest() as sink:
            await sink.write(bomb)
            await sink.finish()

    async def work() -> None:
        async with PlainStorage.open(tmp_path) as storage:
            storage.layers.layer_limit = 1 << 20
            with pytest.raises(InvalidInput, match="unpacks to more than 1048576 bytes"):
                await take_in(storage)
            assert storage.layers.all() == []
            assert await storage.unfinished() == []
            assert storage.held() == set()

    play(work)
