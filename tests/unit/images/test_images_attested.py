"""What is attested of images: pulled with them, kept, pushed, restated for other manifests, removed, mended."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from havre.errors import Failed
from havre.images import pull as pulling
from havre.images.catalog import NameRow
from havre.oci import mediatypes
from havre.oci.attestation import Predicate, attest
from havre.oci.digest import Digest, digest_of
from havre.oci.manifest import Descriptor, describe, render_index, render_manifest
from havre.oci.platform import Platform
from support.imagery import FakeRegistry, Stage, config_of, layer_tar, staged, stream

_ARCHITECTURES = ("amd64", "arm64")
_SAID = Predicate("https://example.org/said/v1", b'{"order":  "kept", "as": "it is"}')
_ENVELOPE = b'{"payloadType": "application/vnd.in-toto+json", "payload": "", "signatures": []}'


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def config(architecture: str) -> bytes:
    return config_of(layer_tar(architecture)).replace(b'"amd64"', f'"{architecture}"'.encode())


def put_attested(registry: FakeRegistry, *, signed: bool = False) -> Digest:
    """`a/b:1`, an index of an image for each architecture and an attestation of each."""
    entries, attestations = [], []
    for architecture in _ARCHITECTURES:
        registry.put_image(f"a/b:{architecture}", config(architecture), [layer_tar(architecture)])
        platform = Platform(architecture, "linux")
        entry = msgspec.structs.replace(describe(*registry.manifests["a/b", architecture]), platform=platform)
        entries.append(entry)
        attested = attest(entry.digest, platform, (), [_SAID])
        *documents, body = attested.documents
        manifest = attested.manifest
        if signed:
            documents.append(_ENVELOPE)
            layer = describe("application/vnd.dsse.envelope.v1+json", _ENVELOPE)
            body = render_manifest(describe(mediatypes.OCI_CONFIG, documents[1]), [layer], mediatypes.OCI_MANIFEST)
            manifest = msgspec.structs.replace(manifest, digest=digest_of(body), size=len(body))
        registry.blobs["a/b"] |= {digest_of(document): document for document in documents}
        registry.put_document("a/b", manifest.digest, mediatypes.OCI_MANIFEST, body)
        attestations.append(manifest)
    return registry.put_document(
        "a/b", "1", mediatypes.OCI_INDEX, render_index([*entries, *attestations], mediatypes.OCI_INDEX)
    )


async def pull(stage: Stage, *architectures: str) -> None:
    for architecture in architectures:
        await stage.images.pull("r.io/a/b", "1", platform=f"linux/{architecture}")


async def available(stage: Stage, name: str) -> list[bool]:
    details = stage.images.inspect(name)
    await stage.images.show_manifests(details)
    return [each.available for each in details.manifests or ()]


def blobs(stage: Stage) -> set[Digest]:
    return set(stage.storage.blobs.all())


def entries_at(registry: FakeRegistry, repository: str) -> list[Any]:
    return json.loads(registry.manifests[repository, "1"][1])["manifests"]  # type: ignore[no-any-return]


def statements_at(registry: FakeRegistry, repository: str, entry: Any) -> list[bytes]:
    manifest = json.loads(registry.manifests[repository, entry["digest"]][1])
    return [registry.blobs[repository][layer["digest"]] for layer in manifest["layers"]]


def test_they_come_and_go_with_their_platform(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            index = put_attested(stage.registry)
            await pull(stage, "amd64")
            assert await available(stage, "r.io/a/b:1") == [True, False, True, False]
            few = blobs(stage)
            await pull(stage, "arm64")
            assert await available(stage, "r.io/a/b:1") == [True, True, True, True]
            assert len(stage.images.platforms_of("r.io/a/b:1")) == 2
            assert stage.images.leftovers() == []
        async with staged(tmp_path, stage.registry) as stage:
            assert await available(stage, "r.io/a/b:1") == [True, True, True, True]
            assert await stage.images.collect_garbage() == 0
            await stage.images.tag("r.io/a/b:1", "r.io/copy", "1")
            await stage.images.push("r.io/copy", "1")
            assert digest_of(stage.registry.manifests["copy", "1"][1]) == index
            for entry in entries_at(stage.registry, "copy")[2:]:
                assert len(statements_at(stage.registry, "copy", entry)) == 1
            await stage.images.remove("r.io/a/b:1", platforms=["linux/arm64"], force=True)
            assert blobs(stage) == few
            await stage.images.remove("r.io/a/b:1")
            await stage.images.remove("r.io/copy:1")
            assert blobs(stage) == set()

    play(work)


def test_one_that_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_attested(stage.registry)
            await pull(stage, "amd64")
            for entry in entries_at(stage.registry, "a/b")[2:]:
                del stage.registry.manifests["a/b", entry["digest"]]
            await pull(stage, "amd64")
            assert await available(stage, "r.io/a/b:1") == [True, False, True, False]

    play(work)


@pytest.mark.parametrize("flaw", ["missing", "large"])
def test_an_image_comes_without_one_that_cannot_be_had(
    tmp_path: Path, flaw: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_attested(stage.registry)
            if flaw == "missing":
                for entry in entries_at(stage.registry, "a/b")[2:]:
                    del stage.registry.manifests["a/b", entry["digest"]]
            else:
                monkeypatch.setattr(pulling, "MAX_ATTESTED", 100)
            with caplog.at_level(logging.WARNING):
                await pull(stage, "amd64")
            assert "is not stored" in caplog.text
            assert await available(stage, "r.io/a/b:1") == [True, False, False, False]
            assert stage.images.leftovers() == []

    play(work)


@pytest.mark.parametrize("where", ["manifest", "document"])
@pytest.mark.parametrize("flaw", ["refused", "unanswered"])
def test_an_image_comes_whatever_the_registry_does_with_an_attestation(
    tmp_path: Path, where: str, flaw: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_attested(stage.registry)
            entry = Digest(entries_at(stage.registry, "a/b")[2]["digest"])
            manifest = json.loads(stage.registry.manifests["a/b", entry][1])
            bad = entry if where == "manifest" else manifest["layers"][0]["digest"]

            async def misbehave() -> None:
                if flaw == "refused":
                    raise Failed("toomanyrequests: 429 Too Many Requests")
                await asyncio.Event().wait()

            stage.registry.on_document = lambda digest: misbehave() if digest == bad else None
            monkeypatch.setattr(pulling, "ATTESTED_S", 0.1)
            with caplog.at_level(logging.WARNING):
                await pull(stage, "amd64")
            assert "not stored" in caplog.text
            assert await available(stage, "r.io/a/b:1") == [True, False, False, False]
            assert stage.images.leftovers() == []
            stage.registry.on_document = None
            await pull(stage, "amd64")
            assert await available(stage, "r.io/a/b:1") == [True, False, True, False]

    play(work)


def test_what_is_built_is_restated_for_the_manifests_that_are_pushed(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_attested(stage.registry)
            await pull(stage, *_ARCHITECTURES)
            configs = list(map(config, _ARCHITECTURES))
            await stage.images.create_platforms(configs, ["r.io/made:1"], [[_SAID], []])
            await stage.images.remove("r.io/a/b:1")
            details = stage.images.inspect("r.io/made:1")
            await stage.images.show_manifests(details)
            local = [each.id for each in details.manifests or ()]
            await stage.images.push("r.io/made", "1")
            amd, arm, said = entries_at(stage.registry, "made")
            assert not {amd["digest"], arm["digest"], said["digest"]} & set(local)
            assert said["annotations"]["vnd.docker.reference.digest"] == amd["digest"]
            (statement,) = statements_at(stage.registry, "made", said)
            assert _SAID.document in statement
            subject = json.loads(statement)["subject"]
            assert subject == [
                {"name": "pkg:docker/r.io/made@1?platform=linux%2Famd64", "digest": {"sha256": amd["digest"][7:]}}
            ]
            assert await available(stage, "r.io/made:1") == [True, True, True]
            assert stage.images.leftovers() == []
            pushed = dict(stage.registry.manifests)
            await stage.images.push("r.io/made", "1")
            assert stage.registry.manifests == pushed

    play(work)


@pytest.mark.parametrize("signed", [False, True])
def test_an_archive_has_other_manifests(tmp_path: Path, signed: bool) -> None:
    """What is signed of a manifest is not said of another one."""

    async def work() -> None:
        async with staged(tmp_path / "a") as stage:
            put_attested(stage.registry, signed=signed)
            await pull(stage, "amd64")
            tar = b"".join([chunk async for chunk in stage.images.save(["r.io/a/b:1"])])
        async with staged(tmp_path / "b") as stage:
            await stage.images.load(stream(tar))
            assert await available(stage, "r.io/a/b:1") == ([True] if signed else [True, True])
            assert (_SAID.document in tar) is not signed
            assert b"".join([chunk async for chunk in stage.images.save(["r.io/a/b:1"])]) == tar

    play(work)


def test_a_damaged_one_is_fetched_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_attested(stage.registry)
            await pull(stage, *_ARCHITECTURES)
            before, entry = blobs(stage), Descriptor(**_first_attestation(stage.registry))
            stage.storage.blobs.path(entry.digest).write_bytes(b"{}")
            assert ("blob", entry.digest) in [(each.kind, each.id) for each in await stage.images.check()]
            mended = await stage.images.check(repair=True)
            assert all(each.mended for each in mended), mended
            assert (await stage.images.check(), blobs(stage)) == ([], before)

    play(work)


def _first_attestation(registry: FakeRegistry) -> dict[str, Any]:
    entry = entries_at(registry, "a/b")[2]
    return {"media_type": entry["mediaType"], "digest": Digest(entry["digest"]), "size": entry["size"]}


def test_of_an_archive_those_of_the_platforms_that_are_loaded_stay(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path / "a") as stage:
            put_attested(stage.registry)
            await pull(stage, *_ARCHITECTURES)
            tar = b"".join([chunk async for chunk in stage.images.save(["r.io/a/b:1"])])
        async with staged(tmp_path / "b") as stage:
            await stage.images.load(stream(tar), platforms=["linux/arm64"])
            assert await available(stage, "r.io/a/b:1") == [False, True, False, True]
            assert stage.images.leftovers() == []
            await stage.images.load(stream(tar))
            assert await available(stage, "r.io/a/b:1") == [True, True, True, True]

    play(work)


def test_a_pull_that_was_killed_before_its_names_were_set_leaves_garbage_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            put_attested(stage.registry)
            await pull(stage, "amd64")
            names = stage.storage.db.table("image_names", NameRow)
            for name in await names.all():
                await names.delete(name)
        async with staged(tmp_path, stage.registry) as stage:
            assert await stage.images.collect_garbage() > 0
            [row] = stage.images.list()
            assert len(blobs(stage)) == 2  # configuration and manifest of an image without a name
            await stage.images.remove(row.id)
            assert blobs(stage) == set()

    play(work)
