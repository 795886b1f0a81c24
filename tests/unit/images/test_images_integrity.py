"""A store damaged by hand: everything is found and named, and mended where a registry or the layer itself allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from havre.images.integrity import Finding
from havre.oci.digest import Digest, digest_of
from support.imagery import FakeRegistry, Stage, config_of, layer_tar, staged, stream

BASE, TOP = layer_tar("base"), layer_tar("top")
CONFIG = config_of(BASE, TOP)


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def layer_file(stage: Stage, tar: bytes, name: str) -> Path:
    return stage.storage.layers.path(digest_of(tar)) / name


def told(findings: list[Finding]) -> list[tuple[str, str, bool]]:
    return [(one.kind, one.id, one.mended) for one in findings]


def test_a_pulled_image_is_fetched_again(tmp_path: Path) -> None:
    async def work() -> None:
        registry = FakeRegistry()
        digest = registry.put_image("a:1", CONFIG, [BASE, TOP])
        async with staged(tmp_path, registry) as stage:
            await stage.images.pull("host.example/a", "1")
            await stage.images.tag("host.example/a:1", "other", "2")
            assert await stage.images.check() == []
            damage(layer_file(stage, BASE, "tar"))
            (layer_file(stage, TOP, "index")).unlink()
            damage(stage.storage.blobs.path(Digest(digest_of(CONFIG))))
            found = await stage.images.check()
            assert told(found) == [
                ("blob", digest_of(CONFIG), False),
                *sorted([("layer", digest_of(BASE), False), ("layer", digest_of(TOP), False)], key=told_order(stage)),
                ("image", digest_of(CONFIG), False),
            ]
        async with staged(tmp_path, registry) as stage:  # a start makes the index anew, and cannot read the image
            assert stage.images.list() == []
            assert {one.kind for one in await stage.images.check()} == {"blob", "layer", "image"}
            mended = await stage.images.check(repair=True)
            assert all(one.mended for one in mended), mended
            assert mended[-1].outcome == f"fetched host.example/a@{digest} again"
            assert await stage.images.check() == []
            assert stage.images.inspect("other:2").root_fs.layers == [digest_of(BASE), digest_of(TOP)]
            assert b"".join([c async for c in stage.storage.layers.open_tar(digest_of(BASE))]) == BASE

    play(work)


def test_a_document_that_is_gone_is_fetched_again(tmp_path: Path) -> None:
    async def work() -> None:
        registry = FakeRegistry()
        registry.put_image("a:1", CONFIG, [BASE, TOP])
        async with staged(tmp_path, registry) as stage:
            id = await stage.images.pull("host.example/a", "1")
            stage.storage.blobs.path(Digest(id)).unlink()
        async with staged(tmp_path, registry) as stage:
            (image,) = await stage.images.check(repair=True)
            assert image.mended
            assert stage.images.resolve("host.example/a:1") == id

    play(work)


def told_order(stage: Stage) -> Callable[[tuple[str, str, bool]], int]:
    """Findings on layers come in the store's order."""
    order = [layer.diff_id for layer in stage.storage.layers.all()]
    return lambda one: order.index(Digest(one[1]))


def test_what_no_registry_has_is_named_and_kept(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            id = await stage.images.import_(stream(BASE), "mine")
            damage(layer_file(stage, BASE, "tar"))
            layer, image = await stage.images.check(repair=True)
            assert (layer.problem, layer.mended) == (f"the data of layer {digest_of(BASE)} is damaged", False)
            assert (image.id, image.mended) == (id, False)
            assert image.outcome == "no registry has it: remove it, then build or load it again"
            assert stage.storage.layers.get(digest_of(BASE)) is not None

    play(work)


def test_an_index_is_made_anew_and_waste_is_removed(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await stage.images.import_(stream(BASE), "mine")
            index = layer_file(stage, BASE, "index")
            before = index.read_bytes()
            damage(index)
            stray = await stage.storage.blobs.add(b"stray")
            stage.storage.blobs.path(stray).write_bytes(b"other")
            blob, layer = await stage.images.check(repair=True)
            assert (blob.outcome, layer.outcome) == ("removed: nothing needs it", "index rebuilt")
            assert index.read_bytes() == before
            assert await stage.images.check() == []

    play(work)


def test_an_image_that_cannot_be_read_nor_fetched_is_forgotten(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            id = await stage.images.import_(stream(BASE), "mine")
            stage.storage.blobs.path(Digest(id)).unlink()
        async with staged(tmp_path) as stage:
            (image,) = await stage.images.check(repair=True)
            assert (image.kind, image.id, image.outcome.partition(":")[0]) == ("image", id, "removed from the database")
            assert await stage.images.collect_garbage() == len(BASE)
            assert await stage.images.check() == []

    play(work)
