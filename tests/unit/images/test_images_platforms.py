"""Names that stand for several platforms: pulled, made of images that are here, removed, kept over restarts."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from havre.errors import Conflict, InvalidInput, NotFound
from havre.images.catalog import NameRow
from havre.images.index import IndexRow
from havre.images.summaries import ImageUser
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from havre.oci.manifest import Descriptor, describe, render_index, render_manifest
from havre.oci.platform import Platform
from havre.wire.values import ImageId
from support.imagery import FakeRegistry, Stage, archive, config_of, layer_tar, pack_layer, staged, stream

ARCHITECTURES = ("amd64", "arm64", "s390x")
SHARED = layer_tar("shared")


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def tars(architecture: str) -> list[bytes]:
    return [SHARED, layer_tar(architecture)]


def config(architecture: str, **more: str) -> bytes:
    return config_of(*tars(architecture), **more).replace(b'"amd64"', f'"{architecture}"'.encode())


def id_of(architecture: str) -> ImageId:
    return ImageId(digest_of(config(architecture)))


def put_index(registry: FakeRegistry, *architectures: str, media_type: str = mediatypes.OCI_INDEX) -> Digest:
    """`a/b:1`, an index of one image for each architecture."""
    entries = []
    for architecture in architectures:
        registry.put_image(f"a/b:only-{architecture}", config(architecture), tars(architecture))
        entry = describe(*registry.manifests["a/b", f"only-{architecture}"])
        entries.append(msgspec.structs.replace(entry, platform=Platform(architecture, "linux")))
    return registry.put_document("a/b", "1", media_type, render_index(entries, media_type))


async def pull(stage: Stage, *architectures: str) -> None:
    for architecture in architectures:
        await stage.images.pull("r.io/a/b", "1", platform=f"linux/{architecture}", progress=stage.lines.append)


def architectures_of(stage: Stage, name: str) -> list[str]:
    return [stage.images.inspect(id).architecture for id in stage.images.platforms_of(name)]


@pytest.mark.parametrize("media_type", mediatypes.INDEXES)
def test_platforms_are_added_to_a_name(tmp_path: Path, media_type: str) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            index = put_index(stage.registry, *ARCHITECTURES, media_type=media_type)
            await pull(stage, "s390x")
            assert stage.images.resolve("r.io/a/b:1") == id_of("s390x")
            await pull(stage, "arm64", "amd64", "arm64")
            told = [line.status for line in stage.lines if line.status.startswith("Status")]
            assert [text.split()[1] for text in told] == ["Downloaded", "Downloaded", "Downloaded", "Image"]
            assert architectures_of(stage, "r.io/a/b:1") == ["amd64", "arm64", "s390x"]
            [row] = stage.images.list()
            assert (row.id, row.repo_tags) == (id_of("amd64"), ["r.io/a/b:1"])
            assert row.repo_digests == [f"r.io/a/b@{index}"]
            assert row.size == len(SHARED) + sum(len(layer_tar(each)) for each in ARCHITECTURES)
            for architecture in ARCHITECTURES:
                details = stage.images.inspect("r.io/a/b:1", f"linux/{architecture}")
                assert (details.id, details.repo_tags) == (id_of(architecture), ["r.io/a/b:1"])
                assert stage.images.history("r.io/a/b:1", f"linux/{architecture}")[0].id == id_of(architecture)
                assert (await stage.images.acquire(f"r.io/a/b@{index}", f"linux/{architecture}")).id == details.id
            with pytest.raises(NotFound, match="does not match the specified platform: wanted linux/386, actual: "):
                await stage.images.acquire("r.io/a/b:1", "linux/386")
            assert stage.images.leftovers() == []
        async with staged(tmp_path, stage.registry) as stage:
            assert architectures_of(stage, "r.io/a/b:1") == ["amd64", "arm64", "s390x"]
            assert await stage.images.collect_garbage() == 0

    play(work)


def test_another_index_takes_the_name(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            old = put_index(stage.registry, "amd64", "arm64")
            await pull(stage, "amd64", "arm64")
            new = put_index(stage.registry, "arm64", "s390x")
            await pull(stage, "s390x")
            assert architectures_of(stage, "r.io/a/b:1") == ["s390x"]
            assert architectures_of(stage, f"r.io/a/b@{old}") == ["amd64", "arm64"]
            await pull(stage, "arm64")
            assert architectures_of(stage, f"r.io/a/b@{new}") == ["arm64", "s390x"]
            assert len(stage.images.list()) == 2
            assert [row.repo_tags for row in stage.images.list({"dangling": ["true"]})] == [[]]
            await stage.images.prune()
            assert {row.id for row in stage.images.list(all=True)} == {id_of("arm64")}
            with pytest.raises(NotFound):
                stage.images.resolve(id_of("amd64"))

    play(work)


def test_removal_takes_every_platform_but_what_others_need(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_index(stage.registry, *ARCHITECTURES)
            await pull(stage, *ARCHITECTURES)
            await stage.images.tag("r.io/a/b:1", "other", "1")
            assert architectures_of(stage, "other:1") == list(ARCHITECTURES)
            await stage.images.tag(id_of("s390x"), "plain", "1")
            assert [item.untagged for item in await stage.images.remove("other:1")] == ["other:1"]
            stage.users[id_of("arm64")] = [ImageUser("c" * 64, running=False)]
            with pytest.raises(Conflict, match=r"unable to remove repository reference \"r.io/a/b:1\""):
                await stage.images.remove("r.io/a/b:1")
            stage.users.clear()
            freed = [item.deleted for item in await stage.images.remove("r.io/a/b:1") if item.deleted]
            assert {id_of("amd64"), id_of("arm64")} <= set(freed)
            assert [row.repo_tags for row in stage.images.list(all=True)] == [["plain:1"]]
            assert {layer.diff_id for layer in stage.storage.layers.all()} == set(map(digest_of, tars("s390x")))
            assert stage.images.leftovers() == []

    play(work)


def test_one_platform_is_removed(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_index(stage.registry, *ARCHITECTURES)
            await pull(stage, *ARCHITECTURES)
            with pytest.raises(InvalidInput, match="Use --force to force delete"):
                await stage.images.remove("r.io/a/b:1", platforms=["linux/arm64"])
            stage.users[id_of("arm64")] = [ImageUser("c" * 64, running=True)]
            with pytest.raises(Conflict, match="is being used by running container cccccccccccc"):
                await stage.images.remove("r.io/a/b:1", force=True, platforms=["linux/arm64"])
            stage.users.clear()
            with pytest.raises(NotFound, match="wanted linux/386"):
                await stage.images.remove("r.io/a/b:1", force=True, platforms=["linux/s390x", "linux/386"])
            await stage.images.remove("r.io/a/b:1", force=True, platforms=["linux/amd64", "linux/amd64"])
            assert architectures_of(stage, "r.io/a/b:1") == ["arm64", "s390x"]
            await stage.images.remove(id_of("arm64"), force=True, platforms=["linux/arm64"])
            assert architectures_of(stage, "r.io/a/b:1") == ["s390x"]
            await pull(stage, "arm64")
            await stage.images.remove(id_of("s390x"))
            assert architectures_of(stage, "r.io/a/b:1") == ["arm64"]
            await stage.images.remove("r.io/a/b:1", force=True, platforms=["linux/arm64"])
            assert (stage.images.list(all=True), stage.images.leftovers()) == ([], [])

    play(work)


def test_prune_leaves_a_name_of_which_one_platform_is_used(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_index(stage.registry, *ARCHITECTURES)
            await pull(stage, *ARCHITECTURES)
            everything = {"dangling": ["false"]}
            stage.users[id_of("s390x")] = [ImageUser("c" * 64, running=False)]
            [row] = stage.images.list(shared_size=True, containers=True)
            assert (row.containers, row.shared_size, row.size) == (1, 0, stage.images.layers_size())
            assert (await stage.images.prune(everything)).images_deleted is None
            assert stage.images.prunable(everything, ()) == []
            [planned] = stage.images.prunable(everything, {"c" * 64})
            assert planned.size == len(SHARED) + sum(len(layer_tar(each)) for each in ARCHITECTURES)
            stage.users.clear()
            assert await stage.images.delete_exactly([planned.id]) == planned.size
            assert (stage.images.list(all=True), stage.images.leftovers()) == ([], [])

    play(work)


def test_an_index_is_made_of_images_that_are_here(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            for architecture in ("arm64", "amd64"):
                stage.registry.put_image(f"c:{architecture}", config(architecture), tars(architecture))
                await stage.images.pull("r.io/c", architecture, platform=f"linux/{architecture}")
            configs = [config("arm64"), config("amd64")]
            assert await stage.images.create_platforms(configs, ["made", "made:2"]) == [id_of("arm64"), id_of("amd64")]
            for name in ("made:latest", "made:2"):
                assert architectures_of(stage, name) == ["amd64", "arm64"]
            [row] = [row for row in stage.images.list() if "made:2" in row.repo_tags]
            await stage.images.show_manifests(row)
            assert isinstance(row.descriptor, Descriptor)
            document = msgspec.json.decode(await stage.storage.blobs.read(row.descriptor.digest))
            assert [entry["platform"]["architecture"] for entry in document["manifests"]] == ["arm64", "amd64"]
            manifest = msgspec.json.decode(await stage.storage.blobs.read(document["manifests"][0]["digest"]))
            assert manifest["config"]["digest"] == id_of("arm64")
            assert [layer["digest"] for layer in manifest["layers"]] == [digest_of(tar) for tar in tars("arm64")]
            with pytest.raises(InvalidInput, match="two images are for the platform linux/arm64"):
                await stage.images.create_platforms([configs[0], configs[0]], ["x"])
            with pytest.raises(InvalidInput, match="is not in the store"):
                await stage.images.create_platforms([config("s390x")], ["x"])
            with pytest.raises(NotFound):
                stage.images.resolve("x")

    play(work)


def test_a_pull_that_was_killed_before_its_name_was_set_leaves_garbage_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_index(stage.registry, "amd64", "arm64")
            await pull(stage, "amd64", "arm64")
            names = stage.storage.db.table("image_names", NameRow)
            for name in await names.all():
                await names.delete(name)
        async with staged(tmp_path) as stage:
            assert await stage.storage.db.table("image_indexes", IndexRow).all() == {}
            assert {row.id for row in stage.images.list()} == {id_of("amd64"), id_of("arm64")}
            await stage.images.prune()
            assert (stage.images.list(), stage.images.leftovers(), stage.storage.blobs.all()) == ([], [], [])

    play(work)


def test_a_name_whose_image_is_lost_means_another_platform(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_index(stage.registry, *ARCHITECTURES)
            await pull(stage, *ARCHITECTURES)
            path = stage.storage.blobs.path(Digest(id_of("amd64")))
        path.write_bytes(b"{}")
        async with staged(tmp_path, stage.registry) as stage:
            assert architectures_of(stage, "r.io/a/b:1") == ["arm64", "s390x"]
            assert await stage.images.collect_garbage() == 0
            assert all(finding.mended for finding in await stage.images.check(repair=True))
            assert architectures_of(stage, "r.io/a/b:1") == list(ARCHITECTURES)

    play(work)


def test_a_damaged_index_leaves_the_image_and_is_fetched_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            index = put_index(stage.registry, "amd64", "arm64")
            await pull(stage, "amd64", "arm64")
            path = stage.storage.blobs.path(index)
        path.write_bytes(b"{}")
        async with staged(tmp_path, stage.registry) as stage:
            assert stage.images.resolve("r.io/a/b:1") == id_of("amd64")
            assert "a document of it is missing or damaged" in {f.problem for f in await stage.images.check()}
            assert all(finding.mended for finding in await stage.images.check(repair=True))
            assert architectures_of(stage, "r.io/a/b:1") == ["amd64", "arm64"]
            assert await stage.images.check() == []

    play(work)


async def push(stage: Stage, name: str, platform: str | None = None) -> list[str]:
    """What was said of the push, digests at the end."""
    stage.lines.clear()
    await stage.images.push(name, "1", platform=platform, progress=stage.lines.append)
    return stage.said()


def manifests_at(registry: FakeRegistry, repository: str, tag: str = "1") -> list[str]:
    """The platforms of the index at a tag; the manifests and blobs that it leads to must be there."""
    _, body = registry.manifests[repository, tag]
    entries = msgspec.json.decode(body).get("manifests", [])
    for entry in entries:
        media_type, body = registry.manifests[repository, entry["digest"]]
        manifest = msgspec.json.decode(body)
        assert (entry["mediaType"], manifest["mediaType"], entry["size"]) == (media_type, media_type, len(body))
        assert all(layer["digest"] in registry.blobs[repository] for layer in (*manifest["layers"], manifest["config"]))
    return [entry["platform"]["architecture"] for entry in entries]


@pytest.mark.parametrize("media_type", mediatypes.INDEXES)
def test_a_whole_index_is_pushed_as_it_came(tmp_path: Path, media_type: str) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            index = put_index(stage.registry, *ARCHITECTURES, media_type=media_type)
            await pull(stage, *ARCHITECTURES)
            await stage.images.tag("r.io/a/b:1", "r.io/copy", "1")
            said = await push(stage, "r.io/copy")
            assert said[-2] == f"1: digest: {index} size: {len(stage.registry.manifests['a/b', '1'][1])}"
            assert stage.registry.manifests["copy", "1"] == stage.registry.manifests["a/b", "1"]
            assert manifests_at(stage.registry, "copy") == list(ARCHITECTURES)
            assert f"r.io/copy@{index}" in stage.images.inspect("r.io/copy:1").repo_digests

    play(work)


def test_of_an_index_that_is_not_whole_one_image_is_pushed(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            index = put_index(stage.registry, *ARCHITECTURES)
            await pull(stage, "s390x")
            await stage.images.tag("r.io/a/b:1", "r.io/copy", "1")
            await push(stage, "r.io/copy")
            pushed = stage.registry.manifests["a/b", "only-s390x"]
            note = stage.lines[-1].aux or {}
            assert (note["manifestPushedInsteadOfIndex"], note["originalIndex"]["digest"]) == (True, index)
            assert note["selectedManifest"]["digest"] == digest_of(pushed[1])
            assert stage.registry.manifests["copy", "1"] == pushed
            own = f"r.io/copy@{digest_of(pushed[1])}"
            assert own in stage.images.inspect("r.io/copy:1").repo_digests
            await pull(stage, "arm64")
            with pytest.raises(Conflict, match="multiple matching manifests found but no specific platform requested"):
                await push(stage, "r.io/copy")
            await push(stage, "r.io/copy", "linux/arm64")
            assert stage.registry.manifests["copy", "1"] == stage.registry.manifests["a/b", "only-arm64"]
            with pytest.raises(NotFound, match="wanted linux/amd64, actual: linux/arm64, linux/s390x"):
                await push(stage, "r.io/copy", "linux/amd64")
            await pull(stage, "amd64")
            await stage.images.remove("r.io/a/b:1", force=True, platforms=["linux/s390x"])
            await stage.images.tag("r.io/a/b:1", "r.io/third", "1")
            await push(stage, "r.io/third")
            assert stage.registry.manifests["third", "1"] == stage.registry.manifests["a/b", "only-amd64"]
            await push(stage, "r.io/copy")
            assert digest_of(stage.registry.manifests["copy", "1"][1]) == index
            await pull(stage, "s390x")
            assert len(stage.images.list()) == 1
            assert own in stage.images.inspect("r.io/copy:1", "linux/s390x").repo_digests
            assert own in [item.untagged for item in await stage.images.remove("r.io/copy:1")]
            for name in ("r.io/third:1", "r.io/a/b:1"):
                await stage.images.remove(name)
            assert (stage.images.list(), stage.images.leftovers()) == ([], [])

    play(work)


def test_what_the_repository_has_already_makes_an_index_whole(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            index = put_index(stage.registry, *ARCHITECTURES)
            await pull(stage, "arm64")
            await stage.images.tag("r.io/a/b:1", "r.io/a/b", "stable")
            await stage.images.push("r.io/a/b", "stable")
            assert digest_of(stage.registry.manifests["a/b", "stable"][1]) == index

    play(work)


def test_a_made_index_is_pushed_with_compressed_layers(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            for architecture in ("amd64", "arm64"):
                stage.registry.put_image(f"c:{architecture}", config(architecture), tars(architecture))
                await stage.images.pull("r.io/c", architecture, platform=f"linux/{architecture}")
            await stage.images.create_platforms(list(map(config, ("amd64", "arm64"))), ["r.io/made:1", "r.io/made:2"])
            await push(stage, "r.io/made")
            assert manifests_at(stage.registry, "made") == ["amd64", "arm64"]
            [digest] = [name for name in stage.images.inspect("r.io/made:1").repo_digests if "r.io/made@" in name]
            assert digest == f"r.io/made@{digest_of(stage.registry.manifests['made', '1'][1])}"
            assert stage.images.platforms_of("r.io/made:1") == stage.images.platforms_of("r.io/made:2")
            before = dict(stage.registry.manifests)
            await push(stage, "r.io/made")
            assert stage.registry.manifests == before
            await stage.images.remove("r.io/made:2")
            assert stage.images.leftovers() == []

    play(work)


async def saved(stage: Stage, *names: str, platforms: tuple[str, ...] = ()) -> bytes:
    return b"".join([chunk async for chunk in stage.images.save(names, platforms)])


def members(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: file.read() for member in archive if (file := archive.extractfile(member)) is not None}


def test_every_platform_is_saved_and_loaded(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path / "a") as stage:
            put_index(stage.registry, *ARCHITECTURES)
            await pull(stage, "arm64", "amd64")
            await stage.images.tag("r.io/a/b:1", "x", "1")
            tar = await saved(stage, "x:1")
            assert tar == await saved(stage, "x:1")
            files = members(tar)
            [top] = msgspec.json.decode(files["index.json"])["manifests"]
            assert top["annotations"]["io.containerd.image.name"] == "docker.io/library/x:1"
            inner = msgspec.json.decode(files[f"blobs/sha256/{top['digest'][7:]}"])
            assert [entry["platform"]["architecture"] for entry in inner["manifests"]] == ["amd64", "arm64"]
            [item] = msgspec.json.decode(files["manifest.json"])
            assert item["Config"] == f"blobs/sha256/{id_of('amd64')[7:]}"
            one = members(await saved(stage, "x:1", platforms=("linux/arm64",)))
            [top] = msgspec.json.decode(one["index.json"])["manifests"]
            assert top["mediaType"] == mediatypes.OCI_MANIFEST
            with pytest.raises(NotFound, match="wanted linux/s390x"):
                await saved(stage, "x:1", platforms=("linux/s390x",))
        async with staged(tmp_path / "b") as stage:
            with pytest.raises(NotFound, match="contains no image for linux/s390x"):
                await stage.images.load(stream(tar), platforms=["linux/s390x"])
            assert (stage.images.list(), stage.storage.layers.all()) == ([], [])
            await stage.images.load(stream(tar), stage.lines.append, ["linux/arm64"])
            assert architectures_of(stage, "x:1") == ["arm64"]
            await stage.images.load(stream(tar), stage.lines.append)
            assert stage.said() == ["Loaded image: x:1\n"] * 2
            assert architectures_of(stage, "x:1") == ["amd64", "arm64"]
            assert (await saved(stage, "x:1"), stage.images.leftovers()) == (tar, [])

    play(work)


def test_an_index_with_attestations_and_missing_platforms_is_loaded(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_index(stage.registry, *ARCHITECTURES)
            index = msgspec.json.decode(stage.registry.manifests["a/b", "1"][1])
            statement = b'{"_type": "https://in-toto.io/Statement/v0.1"}'
            layer = describe("application/vnd.in-toto+json", statement)
            attested = render_manifest(describe(mediatypes.OCI_CONFIG, b"{}"), [layer], mediatypes.OCI_MANIFEST)
            marked = msgspec.structs.replace(
                describe(mediatypes.OCI_MANIFEST, attested),
                platform=Platform("unknown", "unknown"),
                annotations={"vnd.docker.reference.type": "attestation-manifest"},
            )
            index["manifests"].append(msgspec.to_builtins(marked))
            body = msgspec.json.encode(index)
            blobs = [b"{}", statement, attested, body, stage.registry.manifests["a/b", "only-s390x"][1]]
            blobs += [config("s390x"), *map(pack_layer, tars("s390x"))]
            files = {f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in blobs}
            top = {**msgspec.to_builtins(describe(mediatypes.OCI_INDEX, body)), "annotations": {
                "io.containerd.image.name": "docker.io/library/y:1"}}  # fmt: skip
            files["index.json"] = msgspec.json.encode({"schemaVersion": 2, "manifests": [top]})
            await stage.images.load(stream(archive(files)))
            assert architectures_of(stage, "y:1") == ["s390x"]
            [row] = stage.images.list()
            await stage.images.show_manifests(row)
            told = [(one.kind, one.available) for one in row.manifests or ()]
            assert told == [("image", False), ("image", False), ("image", True), ("attestation", False)]

    play(work)
