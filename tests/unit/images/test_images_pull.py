"""Pulling and pushing, against a registry that is a dictionary and the real layer store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from havre.errors import Failed, HavreError, InvalidInput, NotFound, Unsupported
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from havre.oci.manifest import describe
from havre.oci.reference import Reference
from havre.registry import Auth
from support.imagery import FakeRegistry, Stage, config_of, layer_tar, staged, stream

BASE, TOP = layer_tar("base", content=b"b" * 5000), layer_tar("top")
CONFIG = config_of(BASE, TOP)


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def short(stage: Stage, repository: str, at: int) -> str:
    _, body = stage.registry.manifests[repository, "1"]
    return str(json.loads(body)["layers"][at]["digest"][7:19])


def test_lines_are_dockerds(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            digest = stage.registry.put_image("a/b:1", CONFIG, [BASE, TOP])
            id = await stage.images.pull("r.io/a/b", "1", progress=stage.lines.append)
            assert id == digest_of(CONFIG)
            base, top = short(stage, "a/b", 0), short(stage, "a/b", 1)
            assert stage.said()[:3] == ["1: Pulling from a/b", f"{base}: Pulling fs layer", f"{top}: Pulling fs layer"]
            of_base = [line.removeprefix(f"{base}: ") for line in stage.said() if line.startswith(base)]
            assert list(dict.fromkeys(of_base)) == [
                "Pulling fs layer",
                "Downloading",
                "Verifying Checksum",
                "Download complete",
                "Extracting",
                "Pull complete",
            ]
            assert stage.said().index(f"{base}: Pull complete") < stage.said().index(f"{top}: Extracting")
            assert stage.said()[-2:] == [f"Digest: {digest}", "Status: Downloaded newer image for r.io/a/b:1"]
            assert stage.events == [("pull", "r.io/a/b:1", "r.io/a/b")]
            details = stage.images.inspect("r.io/a/b:1")
            assert (details.repo_tags, details.repo_digests) == (["r.io/a/b:1"], [f"r.io/a/b@{digest}"])
            assert details.root_fs.layers == [digest_of(BASE), digest_of(TOP)]

            stage.lines.clear()
            await stage.images.pull("r.io/a/b", "1", progress=stage.lines.append)
            words = "Status: Image is up to date for r.io/a/b:1"
            assert stage.said() == ["1: Pulling from a/b", f"Digest: {digest}", words]

    play(work)


def test_index_is_resolved_for_the_platform(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            entries = []
            for architecture in ("arm64", "amd64"):
                config = config_of(BASE).replace(b"amd64", architecture.encode())
                stage.registry.put_image(f"a/b:{architecture}", config, [BASE])
                media_type, body = stage.registry.manifests["a/b", architecture]
                entry = json.loads(json.dumps({"mediaType": media_type, "size": len(body), "digest": digest_of(body)}))
                entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
            index = json.dumps({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}).encode()
            digest = stage.registry.put_document("a/b", "1", mediatypes.OCI_INDEX, index)
            for wanted in ("linux/arm64", "linux/amd64"):
                id = await stage.images.pull("r.io/a/b", "1", platform=wanted)
                assert f"linux/{stage.images.inspect(id).architecture}" == wanted
            assert stage.images.inspect("r.io/a/b:1").repo_digests == [f"r.io/a/b@{digest}"]
            with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
                await stage.images.pull("r.io/a/b", "1", platform="linux/s390x")
            with pytest.raises(
                NotFound, match="does not match the specified platform: wanted linux/arm64, actual: linux/amd64"
            ):
                await stage.images.pull("r.io/a/b", "amd64", platform="linux/arm64")

    play(work)


def test_two_pulls_share_a_layer(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            for name in ("a/b:1", "a/c:1"):
                stage.registry.put_image(name, CONFIG, [BASE, TOP])
            lines: list[list[object]] = [[], []]
            pulls = [
                stage.images.pull(f"r.io/{name}", "1", progress=said.append)
                for name, said in zip(("a/b", "a/c"), lines, strict=True)
            ]
            first, second = await asyncio.gather(*pulls)
            assert first == second
            assert len(stage.registry.downloads) == 2
            assert all(any(getattr(line, "status", "") == "Download complete" for line in said) for said in lines)

    play(work)


def test_cancelled_pull_leaves_nothing_and_the_other_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            gate, reached = asyncio.Event(), asyncio.Event()
            stage.registry.put_image("a/b:1", config_of(BASE), [BASE])

            def on_blob(digest: object, at: int) -> Awaitable[bool]:
                reached.set()
                return gate.wait()

            stage.registry.on_blob = on_blob
            alone = asyncio.create_task(stage.images.pull("r.io/a/b", "1"))
            await reached.wait()
            alone.cancel()
            await asyncio.gather(alone, return_exceptions=True)
            while await stage.storage.unfinished():
                await asyncio.sleep(0.01)
            assert stage.storage.layers.all() == []
            assert stage.images.list() == []
            assert stage.storage.held() == set()

            reached.clear()
            one, two = (asyncio.create_task(stage.images.pull("r.io/a/b", "1")) for _ in range(2))
            await reached.wait()
            await asyncio.sleep(0)
            one.cancel()
            gate.set()
            assert await two == digest_of(config_of(BASE))
            assert one.cancelled() or (await asyncio.gather(one, return_exceptions=True))

    play(work)


def test_failed_pull_keeps_finished_layers_for_the_next_try(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            stage.registry.put_image("a/b:1", CONFIG, [BASE, TOP])
            manifest = json.loads(stage.registry.manifests["a/b", "1"][1])
            base, top = (layer["digest"] for layer in manifest["layers"])
            good = stage.registry.blobs["a/b"][top]

            async def until_base_stands() -> None:
                while stage.storage.layers.get(digest_of(BASE)) is None:
                    await asyncio.sleep(0.001)

            stage.registry.on_blob = lambda digest, at: until_base_stands() if digest == top else None
            stage.registry.blobs["a/b"][top] = good[:-5] + b"wrong"
            with pytest.raises(HavreError):
                await stage.images.pull("r.io/a/b", "1")
            assert stage.images.list() == []
            assert [layer.diff_id for layer in stage.storage.layers.all()] == [digest_of(BASE)]
            assert await stage.storage.unfinished() == []

            stage.registry.blobs["a/b"][top] = good
            await stage.images.pull("r.io/a/b", "1", progress=stage.lines.append)
            assert f"{base[7:19]}: Already exists" in stage.said()
            assert stage.registry.downloads.count(base) == 1

    play(work)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            registry = stage.registry
            registry.put_image("a/b:short", CONFIG, [BASE])
            with pytest.raises(InvalidInput, match="2 diff IDs for 1 layers"):
                await stage.images.pull("r.io/a/b", "short")
            registry.put_image("a/b:windows", CONFIG.replace(b"linux", b"windows"), [BASE, TOP])
            with pytest.raises(Unsupported, match='operating system "windows" cannot be used'):
                await stage.images.pull("r.io/a/b", "windows")
            chart = describe("application/vnd.cncf.helm.config.v1+json", b"{}")
            body = json.dumps(
                {
                    "schemaVersion": 2,
                    "config": {"mediaType": chart.media_type, "digest": chart.digest, "size": 2},
                    "layers": [],
                }
            )
            registry.put_document("a/b", "chart", mediatypes.OCI_MANIFEST, body.encode())
            with pytest.raises(Unsupported, match="helm"):
                await stage.images.pull("r.io/a/b", "chart")
            lie = config_of(TOP, BASE)
            registry.put_image("a/b:lie", lie, [BASE, TOP])
            with pytest.raises(Failed, match="does not match"):
                await stage.images.pull("r.io/a/b", "lie")
            assert stage.images.list() == []

    play(work)


def test_every_tag_is_pulled_where_none_is_named(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            stage.registry.put_image("a/b:1", CONFIG, [BASE, TOP])
            stage.registry.put_image("a/b:2", config_of(BASE), [BASE])
            await stage.images.pull("r.io/a/b", progress=stage.lines.append)
            tags = [tag for row in stage.images.list() for tag in row.repo_tags]
            assert sorted(tags) == ["r.io/a/b:1", "r.io/a/b:2"]
            assert stage.said()[-1] == "Status: Downloaded newer image for r.io/a/b"

    play(work)


def test_push_uploads_mounts_or_skips(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            id = await stage.images.import_(stream(TOP), "r.io/a/b", "1")
            await stage.images.push("r.io/a/b", "1", progress=stage.lines.append)
            layer = digest_of(TOP)[7:19]
            assert stage.said()[0] == "The push refers to repository [r.io/a/b]"
            assert list(dict.fromkeys(stage.said()))[1:4] == [
                f"{layer}: {w}" for w in ("Preparing", "Pushing", "Pushed")
            ]
            outcome = stage.lines[-1].aux
            assert outcome is not None
            media_type, body = stage.registry.manifests["a/b", "1"]
            assert (media_type, outcome) == (
                mediatypes.DOCKER_MANIFEST,
                {"Tag": "1", "Digest": digest_of(body), "Size": len(body)},
            )
            assert stage.said()[-2] == f"1: digest: {digest_of(body)} size: {len(body)}"

            for name, words in (
                ("r.io/a/b", "Layer already exists"),
                ("r.io/a/c", "Mounted from a/b"),
                ("r.io/a/b", "Layer already exists"),
                ("r.io/a/d", "Mounted from a/b"),
            ):
                stage.lines.clear()
                await stage.images.tag(id, name, "2")
                await stage.images.push(name, "2", progress=stage.lines.append)
                assert f"{layer}: {words}" in stage.said()
            del stage.registry.blobs["a/b"], stage.registry.blobs["a/c"]  # a/d was seen last
            await stage.images.tag(id, "r.io/a/e", "2")
            await stage.images.push("r.io/a/e", "2", progress=stage.lines.append)
            assert f"{layer}: Mounted from a/d" in stage.said()
            assert stage.registry.manifests["a/c", "2"] == (media_type, body)
            assert sorted(stage.images.inspect(id).repo_digests) == [f"r.io/a/{n}@{digest_of(body)}" for n in "bcde"]

    play(work)


def test_pulled_image_is_pushed_with_its_own_manifest(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            import zstandard

            digest = stage.registry.put_image("a/b:1", CONFIG, [BASE, TOP], pack=zstandard.compress)
            await stage.images.pull("r.io/a/b", "1")
            await stage.images.tag("r.io/a/b:1", "r.io/a/c", "1")
            await stage.images.push("r.io/a/c", "1")
            assert digest_of(stage.registry.manifests["a/c", "1"][1]) == digest
            assert len(stage.registry.mounts) == 2

            await stage.images.tag("r.io/a/b:1", "other.io/d", "1")
            stage.registry.blobs["d"] = {}
            await stage.images.push("other.io/d", "1", progress=stage.lines.append)
            assert stage.said().count(f"{digest_of(TOP)[7:19]}: Pushed") == 1

    play(work)


def test_two_push_one_document(tmp_path: Path) -> None:
    """It is there for as long as one of them needs it, and no longer."""

    class Slow(FakeRegistry):
        passed = asyncio.Event()

        async def has_blob(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool:
            if ref.repository == "slow":
                await self.passed.wait()
            return await super().has_blob(ref, digest, auth)

    async def work() -> None:
        async with staged(tmp_path, Slow()) as stage:
            stage.registry.put_image("a/b:1", CONFIG, [BASE, TOP])
            await stage.images.pull("r.io/a/b", "1")
            cache = config_of(TOP)
            slow = asyncio.create_task(stage.images.push_document(cache, "r.io/slow"))
            await asyncio.sleep(0)
            await stage.images.push_document(cache, "r.io/fast")
            Slow.passed.set()
            await slow
            for repository in ("slow", "fast"):
                assert digest_of(cache) in stage.registry.blobs[repository]
            assert not stage.storage.blobs.has(digest_of(cache))

    play(work)


def test_push_of_what_is_not_here(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            with pytest.raises(NotFound) as error:
                await stage.images.push("r.io/a/b", "1", progress=stage.lines.append)
            assert error.value.message == "An image does not exist locally with the tag: r.io/a/b"
            with pytest.raises(InvalidInput, match="digest"):
                await stage.images.push("r.io/a/b", digest_of(b""))

    play(work)
