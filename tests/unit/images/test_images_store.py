"""Images at rest: names, removal, prune, archives, import, and what is left after a restart."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import zstandard

from havre.errors import Conflict, HavreError, InvalidInput, NotFound
from havre.images.deletion import Pruned
from havre.images.summaries import ImageUser
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from support.imagery import Stage, archive, config_of, layer_tar, staged, stream

BASE, TOP = layer_tar("base"), layer_tar("top")
CONFIG = config_of(BASE, TOP)
HEX = digest_of(CONFIG)[7:]
BEFORE = archive({"0/layer.tar": BASE})[: 512 + len(BASE)]  # a member that comes again under its name


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def docker_archive(config: bytes = CONFIG, tars: tuple[bytes, ...] = (BASE, TOP), **item: object) -> dict[str, bytes]:
    """A docker-archive as older dockerds write it, configuration and description last."""
    layers = {f"{n}/layer.tar": tar for n, tar in enumerate(tars)}
    described = {"Config": "c.json", "RepoTags": ["x:1"], "Layers": list(layers), **item}
    return {**layers, "c.json": config, "manifest.json": json.dumps([described]).encode()}


async def load(stage: Stage, data: bytes) -> list[str]:
    return [str(id) for id in await stage.images.load(stream(data, 1000), stage.lines.append)]


async def collected(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def removed(items: list[object]) -> list[str]:
    return [getattr(item, "untagged", "") or getattr(item, "deleted", "")[:14] for item in items]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_docker_archive(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            assert await load(stage, pack(archive(docker_archive()))) == [digest_of(CONFIG)]
            assert stage.said() == ["Loaded image: x:1\n"]
            assert stage.images.inspect("x:1").root_fs.layers == [digest_of(BASE), digest_of(TOP)]
            assert ("load", digest_of(CONFIG), digest_of(CONFIG)) in stage.events

    play(work)


def test_layers_shared_by_links_compressed_layers_and_several_images(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            files = {"a/layer.tar": gzip.compress(BASE), "c1": config_of(BASE), "c2": config_of(BASE, Cmd=["x"])}
            items = [
                {"Config": "c1", "RepoTags": ["one:1", "one:2"], "Layers": ["a/layer.tar"]},
                {"Config": "./c2", "RepoTags": None, "Layers": ["b/layer.tar"]},
            ]
            files["manifest.json"] = json.dumps(items).encode()
            await load(stage, archive(files, {"b/layer.tar": "../a/layer.tar"}))
            second = digest_of(config_of(BASE, Cmd=["x"]))
            assert stage.said() == ["Loaded image: one:1\n", "Loaded image: one:2\n", f"Loaded image ID: {second}\n"]

    play(work)


def oci_layout(*, named: str = "x:1", nested: bool = False) -> dict[str, bytes]:
    packed = gzip.compress(BASE)
    config = config_of(BASE)
    blobs = {"config": config, "layer": packed}
    files = {f"blobs/sha256/{digest_of(body)[7:]}": body for body in blobs.values()}

    def point(media_type: str, body: bytes, **more: object) -> dict[str, object]:
        files[f"blobs/sha256/{digest_of(body)[7:]}"] = body
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}

    manifest = {
        "schemaVersion": 2,
        "config": point(mediatypes.OCI_CONFIG, config),
        "layers": [point(mediatypes.OCI_LAYER_GZIP, packed)],
    }
    entry = point(mediatypes.OCI_MANIFEST, json.dumps(manifest).encode())
    if nested:
        platform = {"os": "linux", "architecture": "amd64"}
        index = {"schemaVersion": 2, "manifests": [{**entry, "platform": platform}]}
        entry = point(mediatypes.OCI_INDEX, json.dumps(index).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": named}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return files


@pytest.mark.parametrize("nested", [False, True])
def test_oci_layout(tmp_path: Path, nested: bool) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            stage.images._platform = stage.images._platform.__class__("amd64", "linux")
            assert await load(stage, archive(oci_layout(nested=nested))) == [digest_of(config_of(BASE))]
            assert stage.images.inspect("x:1").root_fs.layers == [digest_of(BASE)]
            await load(stage, archive(oci_layout(named="just-a-tag")))
            assert stage.said()[-1].startswith("Loaded image ID: sha256:")

    play(work)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"garbage" * 100, "invalid tar header"),
        (archive(docker_archive())[:2000], "middle of a member"),
        (archive({"x": b"y"}), "contains no images"),
        (archive(docker_archive(Layers=["0/layer.tar"])), "expected 2, got 1"),
        (archive(docker_archive(Layers=["1/layer.tar", "0/layer.tar"])), "invalid diffID"),
        (archive(docker_archive(tars=(BASE,), Layers=["0/layer.tar", "../../etc/passwd"])), "does not contain it"),
        (archive(docker_archive(Config="/etc/passwd")), "does not contain it"),
        (archive(docker_archive(config=b"{}")), "expected 0, got 2"),
        (archive(docker_archive(RepoTags=["x@" + digest_of(b"")])), "invalid tag"),
        (archive(docker_archive(RepoTags=["NO"])), "lowercase"),
        (archive({**docker_archive(), "manifest.json": b"[{}]"}), "invalid manifest.json"),
        (archive({"../evil": b"x"}), "points outside"),
        (archive({**oci_layout(), f"blobs/sha256/{'0' * 64}": b"{}"}), "does not match the digest in its name"),
        (archive({**oci_layout(), f"blobs/sha256/{'0' * 64}": TOP}), "does not match"),
        (archive(docker_archive(Layers=["a", "b"]), {"a": "b", "b": "a"}), "form a loop"),
        (gzip.compress(archive(docker_archive()), mtime=0)[:-20], "ends in the middle"),
        (archive({**docker_archive(), "manifest.json": b'[{"Config": "\xff"}]'}), "invalid manifest.json"),
        (archive({**docker_archive(), "manifest.json": b"[" * 100_000}), "invalid manifest.json"),
        (archive(docker_archive(RepoTags=[f"x:{n}" for n in range(10_001)])), "gives its images 10001 names"),
        (BEFORE + archive({**docker_archive(), "0/layer.tar": TOP}), "invalid diffID"),
    ],
)
def test_hostile_archives_leave_nothing(tmp_path: Path, data: bytes, words: str) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            with pytest.raises(HavreError, match=words):
                await load(stage, data)
            assert stage.images.list() == []
            assert stage.storage.layers.all() == []
            assert stage.storage.blobs.all() == []
            assert await stage.storage.unfinished() == []
            assert stage.storage.held() == set()

    play(work)


def test_members_that_no_image_names_are_dropped(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await load(stage, archive({**docker_archive(), "extra/layer.tar": layer_tar("extra"), "README": b"hello"}))
            assert {layer.diff_id for layer in stage.storage.layers.all()} == {digest_of(BASE), digest_of(TOP)}

    play(work)


def test_the_last_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            strange = archive({"0/layer.tar": layer_tar("strange")})[: 512 + len(layer_tar("strange"))]
            await load(stage, strange + archive(docker_archive()))
            assert {layer.diff_id for layer in stage.storage.layers.all()} == {digest_of(BASE), digest_of(TOP)}

    play(work)


def test_load_moves_a_name(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            old = await stage.images.import_(stream(BASE), "x", "1")
            await load(stage, archive(docker_archive()))
            words = f"The image x:1 already exists, renaming the old one with ID {old} to empty string\n"
            assert stage.said() == [words, "Loaded image: x:1\n"]
            assert stage.images.list({"dangling": ["true"]})[0].id == old

    play(work)


def test_save_is_both_layouts_and_always_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path / "one") as stage:
            await load(stage, archive(docker_archive()))
            await stage.images.tag("x:1", "x", "2")
            await stage.images.tag("x:1", "r.io/y")
            saved = await collected(stage.images.save(["x", "r.io/y"]))
            assert saved == await collected(stage.images.save(["x", "r.io/y"]))
            with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
                names = tar.getnames()
                assert names == sorted(names)
                assert {"index.json", "manifest.json", "oci-layout", "repositories"} < set(names)
                manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
                index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
            assert manifest[0]["RepoTags"] == ["x:1", "x:2", "r.io/y:latest"]
            full = [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]]
            assert full == ["docker.io/library/x:1", "docker.io/library/x:2", "r.io/y:latest"]
            with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
                members = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
            del members["manifest.json"]
        for data in (saved, archive(members)):
            async with staged(tmp_path / str(len(data))) as stage:
                assert await load(stage, data) == [digest_of(CONFIG)]
                assert stage.images.list()[0].repo_tags == ["x:1", "x:2", "r.io/y:latest"]

    play(work)


def test_save_by_id_has_no_name(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await load(stage, archive(docker_archive()))
            saved = await collected(stage.images.save([HEX[:12]]))
            await stage.images.remove("x:1")
            await load(stage, saved)
            assert stage.images.list()[0].repo_tags == []
            with pytest.raises(NotFound, match="No such image: nope:latest"):
                stage.images.save(["nope"])

    play(work)


def test_names(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await load(stage, archive(docker_archive()))
            for name in ("x:1", "docker.io/library/x:1", HEX, f"sha256:{HEX}", HEX[:4], f"sha256:{HEX[:8]}"):
                assert stage.images.resolve(name) == f"sha256:{HEX}"
            for name, words in [
                ("x", "No such image: x:latest"),
                ("y:2", "No such image: y:2"),
                ("0" * 12, f"No such image: {'0' * 12}:latest"),
                ("sha256:" + "0" * 64, "No such image: sha256:" + "0" * 64),
                ("0" * 64, "No such image: sha256:" + "0" * 64),
            ]:
                with pytest.raises(NotFound) as error:
                    stage.images.resolve(name)
                assert error.value.message == words
            with pytest.raises(InvalidInput, match=r"repository name \(library/NOPE\) must be lowercase"):
                stage.images.resolve("NOPE")
            for repository, tag, words in [
                ("sha256", "1", "refusing to create an ambiguous tag"),
                ("x@" + digest_of(b""), "", "refusing to create a tag with a digest reference"),
                ("x", "a:b", "invalid tag format"),
            ]:
                with pytest.raises(InvalidInput, match=words):
                    await stage.images.tag("x:1", repository, tag)
            image = await stage.images.acquire("x:1")
            assert (image.id, image.config.cmd, str(image.platform)) == (f"sha256:{HEX}", ["sh"], "linux/amd64")
            assert image.layers == (digest_of(BASE), digest_of(TOP))
            with pytest.raises(NotFound, match="wanted linux/arm64, actual: linux/amd64"):
                await stage.images.acquire("x:1", "linux/arm64")

    play(work)


def test_removal_frees_what_nothing_else_needs(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await load(stage, archive(docker_archive()))
            other = await stage.images.import_(stream(BASE), "y", "1")
            stage.storage.snapshots.used = set()
            items = await stage.images.remove("x:1")
            assert [item.untagged or item.deleted for item in items] == [
                "x:1", f"sha256:{HEX}", digest_of(f"{digest_of(BASE)} {digest_of(TOP)}".encode()),
            ]  # fmt: skip
            assert [layer.diff_id for layer in stage.storage.layers.all()] == [digest_of(BASE)]
            assert [action for action, *_ in stage.events][-2:] == ["untag", "delete"]

            stage.users[other] = [ImageUser("c" * 64, True)]
            stage.storage.snapshots.used = {digest_of(BASE)}
            with pytest.raises(Conflict, match=r'"y:1" \(must force\) - container cccccccccccc is using'):
                await stage.images.remove("y:1")
            assert [item.untagged for item in await stage.images.remove("y:1", force=True)] == ["y:1"]
            with pytest.raises(Conflict, match="cannot be forced"):
                await stage.images.remove(other, force=True)
            stage.users.clear()
            assert [item.deleted for item in await stage.images.remove(other)] == [other]
            assert [layer.diff_id for layer in stage.storage.layers.all()] == [digest_of(BASE)]
            stage.storage.snapshots.used = set()
            assert await stage.images.collect_garbage() > 0
            assert stage.storage.layers.all() == []
            assert stage.storage.blobs.all() == []

    play(work)


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("havre.images.loading.MAX_MEMBERS", 100)

    async def work() -> None:
        async with staged(tmp_path) as stage:
            with pytest.raises(InvalidInput, match="too many members"):
                await load(stage, archive({}, {f"link{n}": "x" for n in range(101)}))
            assert stage.images.list() == []

    play(work)


def test_what_is_kept_of_an_archive_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("havre.images.loading.MAX_DOCUMENTS", 100_000)
    monkeypatch.setattr("havre.images.loading.MAX_ARCHIVE", 4 << 20)
    config = config_of(BASE, TOP, Cmd=["x" * 2000])
    often = [{"Config": "c.json", "Layers": ["0/layer.tar", "1/layer.tar"]}] * 99
    for data, words in [
        (archive({f"{n}.json": b"{" + b" " * 999 for n in range(110)}), "too many documents"),
        (archive({}, {f"{n:090}": "y" * 90 for n in range(400)}), "too many documents"),
        (
            archive(docker_archive(config) | {"manifest.json": json.dumps(often).encode()}),
            "refers to too many documents",
        ),
        (gzip.compress(archive({"zeros": bytes(8 << 20)}), mtime=0), "unpacks to more than"),
    ]:

        async def work(data: bytes = data, words: str = words) -> None:
            async with staged(tmp_path / str(len(data))) as stage:
                with pytest.raises(InvalidInput, match=words):
                    await load(stage, data)
                assert stage.images.list() == []
                assert stage.storage.layers.all() == []
                assert await stage.storage.unfinished() == []

        play(work)


def test_prune_takes_what_a_failed_pull_left_and_spares_what_is_held(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            layers = stage.storage.layers
            async with layers.ingest() as base, layers.ingest() as top:
                for sink, tar in ((base, BASE), (top, TOP)):
                    await sink.write(tar)
                    await sink.finish()
                assert await stage.images.prune() == Pruned()  # only just come: nobody could hold them yet
            with stage.images.hold([digest_of(BASE)]):
                assert (await stage.images.prune()).space_reclaimed == len(TOP)
            assert [layer.diff_id for layer in stage.storage.layers.all()] == [digest_of(BASE)]

    play(work)


def test_nothing_is_garbage_while_an_image_cannot_be_read(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            id = await stage.images.import_(stream(BASE), "x")
            config = stage.storage.blobs.path(Digest(id))
        body = config.read_bytes()
        config.write_bytes(body.replace(b"{", b"[", 1))
        async with staged(tmp_path) as stage:
            assert stage.images.list() == []
            assert await stage.images.collect_garbage() == 0
        config.write_bytes(body)
        async with staged(tmp_path) as stage:
            assert stage.images.inspect("x").root_fs.layers == [digest_of(BASE)]

    play(work)


def test_parents_go_with_their_last_child(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            parent = await stage.images.import_(stream(BASE))
            child = await stage.images.create(config_of(BASE, Cmd=["x"]), parent=parent, names=["child"])
            assert [row.id for row in stage.images.list()] == [child]
            assert {row.id for row in stage.images.list(all=True)} == {parent, child}
            with pytest.raises(Conflict, match="image has dependent child images"):
                await stage.images.remove(parent, force=True)
            assert [i.untagged or i.deleted for i in await stage.images.remove("child")] == [
                "child:latest", child, parent, digest_of(BASE),
            ]  # fmt: skip

    play(work)


def test_prune(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            dangling = await stage.images.import_(stream(BASE))
            tagged = await stage.images.import_(stream(TOP), "x", "1", changes=["LABEL keep=1"])
            used = await stage.images.import_(stream(layer_tar("used")), "y", "1")
            stage.users[used] = [ImageUser("c" * 64, False)]
            pruned = await stage.images.prune()
            assert [i.deleted for i in pruned.images_deleted or ()] == [dangling, digest_of(BASE)]
            assert pruned.space_reclaimed == len(BASE)
            assert (await stage.images.prune({"dangling": ["false"], "label!": ["keep"]})).images_deleted is None
            pruned = await stage.images.prune({"dangling": ["false"]})
            assert [i.untagged or i.deleted for i in pruned.images_deleted or ()] == ["x:1", tagged, digest_of(TOP)]
            with pytest.raises(InvalidInput, match="invalid filter 'bogus'"):
                await stage.images.prune({"bogus": ["x"]})

    play(work)


def test_import(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            id = await stage.images.import_(
                stream(gzip.compress(BASE)),
                "x",
                "1",
                message="hi",
                changes=['CMD ["x"]', "ENV A=b"],
                platform="linux/arm64",
            )
            details = stage.images.inspect("x:1")
            assert (details.id, details.comment, details.architecture) == (id, "hi", "arm64")
            assert (details.config.cmd, details.config.env) == (["x"], ["A=b"])
            assert [(step.comment, step.size, step.tags) for step in stage.images.history("x:1")] == [
                ("hi", len(BASE), ["x:1"])
            ]
            for repository, change, words in [
                ("x@" + digest_of(b""), "CMD x", "cannot import digest reference"),
                ("x", "FROM y", "FROM is not a valid change command"),
            ]:
                with pytest.raises(InvalidInput, match=words):
                    await stage.images.import_(stream(BASE), repository, changes=[change])
            with pytest.raises(InvalidInput, match="invalid tar header"):
                await stage.images.import_(stream(b"garbage" * 100))
            assert len(stage.images.list()) == 1

    play(work)


def test_sizes_and_history(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await load(stage, archive(docker_archive()))
            await stage.images.import_(stream(BASE), "y")
            rows = {row.repo_tags[0]: row for row in stage.images.list(shared_size=True, containers=True)}
            both = len(BASE) + len(TOP)
            assert (rows["x:1"].size, rows["x:1"].shared_size, rows["x:1"].containers) == (both, len(BASE), 0)
            assert rows["y:latest"].shared_size == len(BASE)
            assert stage.images.layers_size() == both
            assert [(step.id[:9], step.created_by, step.size) for step in stage.images.history("x:1")] == [
                ("sha256:" + HEX[:2], "step 1", len(TOP)),
                ("<missing>", "step 0", len(BASE)),
            ]

    play(work)


def test_reference_filter_hides_other_names(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await load(stage, archive(docker_archive(RepoTags=["x:1", "y:1"])))
            assert [row.repo_tags for row in stage.images.list({"reference": ["y"]})] == [["y:1"]]

    play(work)


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            await load(stage, archive(docker_archive()))
            before = (stage.images.list(), stage.images.inspect("x:1"))
        async with staged(tmp_path) as stage:
            assert (stage.images.list(), stage.images.inspect("x:1")) == before
            stage.storage.blobs.path(digest_of(CONFIG)).write_bytes(b"damaged")
        async with staged(tmp_path) as stage:
            assert stage.images.list() == []
            with pytest.raises(NotFound):
                stage.images.resolve("x:1")
            await load(stage, archive(docker_archive()))
            assert stage.images.resolve("x:1") == digest_of(CONFIG)

    play(work)
