"""Our registry as a cache: what is on its way is passed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from havre.errors import Failed
from havre.oci.digest import digest_of
from havre.oci.manifest import Descriptor
from havre.oci.reference import Reference
from havre.registry import Registry, RegistryConfig
from support.ownregistry import Caller, manifest, play, serving

BIG = bytes(range(256)) * 12000


class Slow(Registry):
    """Gives two thirds of a blob at once, and the rest (or another) when told to."""

    def __init__(self) -> None:
        super().__init__(RegistryConfig())
        self.go_on = asyncio.Event()
        self.rest = BIG[2_000_000:]

    async def blob(self, ref: Reference, descriptor: Descriptor, auth: object = None) -> AsyncIterator[bytes]:  # type: ignore[override]
        yield BIG[:2_000_000]
        await self.go_on.wait()
        if not self.rest:
            raise Failed("it broke")
        yield self.rest


async def seed(upstream: Caller, ask: Caller) -> str:
    for data in (BIG, b"{}"):
        await upstream.blob("a", data)
    kind = "application/vnd.oci.image.manifest.v1+json"
    assert (await upstream("PUT", "/v2/a/manifests/1", manifest(BIG), Content_Type=kind))[0] == 201
    assert (await ask("GET", "/v2/a/manifests/1"))[0] == 200
    return f"/v2/a/blobs/{digest_of(BIG)}"


def test_the_first_bytes_go_on_before_the_last_have_come(tmp_path: Path) -> None:
    async def work() -> None:
        registry = Slow()
        async with serving(tmp_path / "upstream") as upstream:
            options = {"registry": registry, "upstream": upstream.host}
            async with serving(tmp_path / "cache", **options) as ask, aiohttp.ClientSession() as session:
                path = await seed(upstream, ask)
                assert (await ask("HEAD", path))[1]["Content-Length"] == str(len(BIG))
                async with (
                    session.get(f"http://{ask.host}{path}") as one,
                    session.get(f"http://{ask.host}{path}") as two,
                ):
                    for response in (one, two):
                        assert await response.content.readexactly(1_000_000) == BIG[:1_000_000]
                    part = asyncio.create_task(ask("GET", path, Range="bytes=5-9"))
                    registry.go_on.set()
                    assert [await response.content.read() for response in (one, two)] == [BIG[1_000_000:]] * 2
                    assert (await part)[2] == BIG[5:10]
                assert (await ask("GET", path))[2] == BIG
        await registry.close()

    play(work)


@pytest.mark.parametrize("rest", [b"", BIG[2_000_000:-1] + b"!"])
def test_what_breaks_or_lies_is_not_passed_on_whole(tmp_path: Path, rest: bytes) -> None:
    async def work() -> None:
        registry = Slow()
        registry.rest = rest
        async with serving(tmp_path / "upstream") as upstream:
            options = {"registry": registry, "upstream": upstream.host}
            async with serving(tmp_path / "cache", **options) as ask, aiohttp.ClientSession() as session:
                path = await seed(upstream, ask)
                async with session.get(f"http://{ask.host}{path}") as response:
                    await response.content.readexactly(1_000_000)
                    registry.go_on.set()
                    with pytest.raises(aiohttp.ClientError):
                        await response.content.read()
                assert list((tmp_path / "cache/uploads").iterdir()) == []
                registry.rest = BIG[2_000_000:]
                assert (await ask("GET", path))[2] == BIG
        await registry.close()

    play(work)
