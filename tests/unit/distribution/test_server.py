"""Our registry by raw requests: uploads, manifests, listings, referrers, deletion, refusals."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from havre.distribution.collect import collect, collect_beside
from havre.distribution.repositories import Repositories
from havre.distribution.turns import Turns
from havre.errors import NotFound
from havre.oci import mediatypes
from havre.oci.digest import SHA512, digest_of
from havre.registry import Registry, RegistryConfig
from support.ownregistry import CONFIG, LAYER, manifest, play, serving


def test_an_upload_in_chunks_is_held_to_its_order_and_digest(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            assert (await ask("GET", "/v2/"))[0] == 200
            status, headers, _ = await ask("POST", "/v2/a/b/blobs/uploads/")
            place = headers["Location"]
            assert status == 202
            status, headers, _ = await ask("PATCH", place, LAYER[:100], Content_Range="0-99")
            assert (status, headers["Range"]) == (202, "0-99")
            assert await ask.code("PATCH", place, LAYER[50:], Content_Range="50-99") == (416, "BLOB_UPLOAD_INVALID")
            assert (await ask("GET", place))[1]["Range"] == "0-99"
            assert (await ask("PATCH", place, LAYER[100:200], Content_Range="100-199"))[0] == 202
            digest = digest_of(LAYER)
            assert (await ask("PUT", f"{place}?digest={digest}", LAYER[200:]))[0] == 201
            assert (await ask("GET", f"/v2/a/b/blobs/{digest}"))[2] == LAYER
            status, headers, part = await ask("GET", f"/v2/a/b/blobs/{digest}", Range="bytes=10-19")
            assert (status, part) == (206, LAYER[10:20])
            assert (await ask("HEAD", f"/v2/a/b/blobs/{digest}"))[1]["Content-Length"] == str(len(LAYER))
            assert await ask.code("GET", f"/v2/other/blobs/{digest}") == (404, "BLOB_UNKNOWN")
            assert (await ask("POST", f"/v2/other/blobs/uploads/?mount={digest}&from=a/b"))[0] == 201
            assert (await ask("DELETE", f"/v2/a/b/blobs/{digest}"))[0] == 202
            assert (await ask("GET", f"/v2/other/blobs/{digest}"))[2] == LAYER

            place = (await ask("POST", "/v2/a/b/blobs/uploads/"))[1]["Location"]
            assert await ask.code("PUT", f"{place}?digest={digest}", b"a lie") == (400, "DIGEST_INVALID")
            assert await ask.code("GET", place) == (404, "BLOB_UPLOAD_UNKNOWN")
            place = (await ask("POST", "/v2/a/b/blobs/uploads/"))[1]["Location"]
            assert (await ask("DELETE", place))[0] == 204
            assert list((tmp_path / "uploads").iterdir()) == []

    play(work)


def test_content_may_be_named_by_sha512(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            await ask.image("a/b", "usual")
            layer = digest_of(b"other layer", SHA512)
            place = (await ask("POST", "/v2/a/b/blobs/uploads/"))[1]["Location"]
            assert await ask.code("PUT", f"{place}?digest={layer}", b"a lie") == (400, "DIGEST_INVALID")
            place = (await ask("POST", "/v2/a/b/blobs/uploads/"))[1]["Location"]
            assert (await ask("PATCH", place, b"other "))[0] == 202
            status, headers, _ = await ask("PUT", f"{place}?digest={layer}", b"layer")
            assert (status, headers["Docker-Content-Digest"]) == (201, layer)
            assert (await ask("POST", f"/v2/c/blobs/uploads/?mount={layer}&from=a/b"))[0] == 201
            assert (await ask("GET", f"/v2/c/blobs/{layer}"))[2] == b"other layer"

            part = {"mediaType": mediatypes.OCI_LAYER, "digest": layer, "size": 11}
            body = manifest(layers=[part])
            name = digest_of(body, SHA512)
            kind = {"Content_Type": mediatypes.OCI_MANIFEST}
            assert await ask.code("PUT", f"/v2/a/b/manifests/{name}", body + b" ", **kind) == (400, "DIGEST_INVALID")
            assert (await ask("PUT", f"/v2/a/b/manifests/{name}", body, **kind))[1]["Docker-Content-Digest"] == name
            assert (await ask("GET", f"/v2/a/b/manifests/{name}"))[2] == body
            about = manifest(subject={"mediaType": mediatypes.OCI_MANIFEST, "digest": name, "size": len(body)})
            assert (await ask("PUT", "/v2/a/b/manifests/about", about, **kind))[1]["OCI-Subject"] == name
            found = json.loads((await ask("GET", f"/v2/a/b/referrers/{name}"))[2])["manifests"]
            assert [one["digest"] for one in found] == [digest_of(about)]

            await collect(Repositories(tmp_path, beside=True), min_age_s=-1)
            assert (await ask("GET", f"/v2/a/b/blobs/{layer}"))[2] == b"other layer"
            assert (await ask("DELETE", f"/v2/a/b/manifests/{name}"))[0] == 202
            await collect(Repositories(tmp_path, beside=True), min_age_s=-1)
            assert await ask.code("GET", f"/v2/a/b/blobs/{layer}") == (404, "BLOB_UNKNOWN")
            for wrong in ("sha512:" + 64 * "0", "sha256:" + 128 * "0", "sha384:" + 96 * "0"):
                assert await ask.code("GET", f"/v2/a/b/blobs/{wrong}") == (400, "DIGEST_INVALID")

    play(work)


def test_a_page_of_another_site_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            for method, path in (
                ("GET", "/v2/"),
                ("POST", "/v2/a/b/blobs/uploads/"),
                ("DELETE", "/v2/a/b/manifests/x"),
            ):
                for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "same-site"}):
                    assert await ask.code(method, path, **headers) == (403, "DENIED")
            assert (await ask("GET", "/v2/", Sec_Fetch_Site="none"))[0] == 200

    play(work)


def test_manifests_tags_and_deletion(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            digests = {tag: await ask.image("a/b", tag, annotations={"n": tag}) for tag in ("v1", "v2", "v3")}
            status, headers, body = await ask("GET", "/v2/a/b/manifests/v2")
            assert (status, digest_of(body)) == (200, digests["v2"])
            assert headers["Content-Type"] == mediatypes.OCI_MANIFEST
            head = (await ask("HEAD", f"/v2/a/b/manifests/{digests['v2']}"))[1]
            assert (head["Content-Length"], head["Docker-Content-Digest"]) == (str(len(body)), digests["v2"])
            first = await ask("GET", "/v2/a/b/tags/list?n=2")
            assert json.loads(first[2]) == {"name": "a/b", "tags": ["v1", "v2"]}
            onward = first[1]["Link"].partition(">")[0].removeprefix("<")
            second = await ask("GET", onward)
            assert json.loads(second[2])["tags"] == ["v3"]
            assert "Link" not in second[1]
            await ask.image("c", "1")
            assert json.loads((await ask("GET", "/v2/_catalog"))[2]) == {"repositories": ["a/b", "c"]}
            assert (await ask("DELETE", "/v2/a/b/manifests/v1"))[0] == 202
            assert (await ask("GET", f"/v2/a/b/manifests/{digests['v1']}"))[0] == 200
            assert (await ask("DELETE", f"/v2/a/b/manifests/{digests['v2']}"))[0] == 202
            assert json.loads((await ask("GET", "/v2/a/b/tags/list"))[2])["tags"] == ["v3"]
            assert await ask.code("GET", "/v2/a/b/manifests/v2") == (404, "MANIFEST_UNKNOWN")

    play(work)


def test_referrers(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            subject = await ask.image("a", "1")
            about = {"mediaType": mediatypes.OCI_MANIFEST, "digest": subject, "size": 1}
            for kind in ("x/signature", "x/sbom"):
                body = manifest(subject=about, artifactType=kind, annotations={"k": kind})
                digest = digest_of(body)
                headers = (await ask("PUT", f"/v2/a/manifests/{digest}", body, Content_Type=mediatypes.OCI_MANIFEST))[1]
                assert headers["OCI-Subject"] == subject
            everything = json.loads((await ask("GET", f"/v2/a/referrers/{subject}"))[2])
            assert {one["artifactType"] for one in everything["manifests"]} == {"x/signature", "x/sbom"}
            _, headers, body = await ask("GET", f"/v2/a/referrers/{subject}?artifactType=x/sbom")
            assert [one["annotations"] for one in json.loads(body)["manifests"]] == [{"k": "x/sbom"}]
            assert (headers["OCI-Filters-Applied"], headers["Content-Type"]) == ("artifactType", mediatypes.OCI_INDEX)
            assert json.loads((await ask("GET", f"/v2/a/referrers/{digest_of(b'')}"))[2])["manifests"] == []
            sbom = json.loads(body)["manifests"][0]["digest"]
            assert (await ask("DELETE", f"/v2/a/manifests/{sbom}"))[0] == 202
            left = json.loads((await ask("GET", f"/v2/a/referrers/{subject}"))[2])["manifests"]
            assert [one["artifactType"] for one in left] == ["x/signature"]
            away = manifest(subject={**about, "digest": "sha256:../../../away"})
            assert await ask.code("PUT", "/v2/a/manifests/2", away) == (400, "MANIFEST_INVALID")

    play(work)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("PUT", "/v2/a/manifests/1", manifest(b"not here"), (404, "MANIFEST_BLOB_UNKNOWN")),
        ("PUT", "/v2/a/manifests/1", b"no json", (400, "MANIFEST_INVALID")),
        ("PUT", "/v2/a/manifests/1", b"[" * 100_000, (400, "MANIFEST_INVALID")),
        ("PUT", "/v2/a/manifests/..%2f", manifest(), (404, "UNSUPPORTED")),
        ("PUT", f"/v2/a/manifests/{digest_of(b'')}", manifest(), (400, "DIGEST_INVALID")),
        ("GET", "/v2/A/manifests/1", None, (400, "NAME_INVALID")),
        ("GET", "/v2/a%2f..%2f..%2fetc/manifests/1", None, (400, "NAME_INVALID")),
        ("GET", "/v2/a/blobs/..", None, (404, "UNSUPPORTED")),
        ("PUT", "/v2/a/manifests/1", manifest(annotations=3), (400, "MANIFEST_INVALID")),
        ("GET", "/v2/a/blobs/sha256:x", None, (400, "DIGEST_INVALID")),
        ("GET", "/v2/a/tags/list", None, (404, "NAME_UNKNOWN")),
        ("GET", "/v2/_catalog?n=x", None, (400, "PAGINATION_NUMBER_INVALID")),
        ("PATCH", "/v2/a/blobs/uploads/nope", b"", (404, "BLOB_UPLOAD_UNKNOWN")),
        ("POST", "/v2/a/manifests/1", b"", (405, "UNSUPPORTED")),
    ],
)
def test_refusals(tmp_path: Path, method: str, path: str, body: bytes | None, expected: tuple[int, str]) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            assert await ask.code(method, path, body) == expected

    play(work)


def test_garbage_is_what_no_manifest_names(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            doomed = await ask.image("a", "1")
            await ask.image("b", "1", annotations={"kept": "yes"})
            stray = await ask.blob("a", b"stray")
            assert (await ask("DELETE", f"/v2/a/manifests/{doomed}"))[0] == 202
        repositories = Repositories(tmp_path)
        before = set(repositories.blobs.all())
        assert await collect(repositories) == len(manifest())  # nothing else is a day old
        assert await collect(repositories, min_age_s=-1) == len(b"stray")
        assert before - set(repositories.blobs.all()) == {doomed, stray}
        async with serving(tmp_path) as ask:
            assert await ask.code("GET", f"/v2/a/blobs/{digest_of(LAYER)}") == (404, "BLOB_UNKNOWN")
            assert (await ask("GET", f"/v2/b/blobs/{digest_of(LAYER)}"))[2] == LAYER

    play(work)


def test_garbage_is_collected_beside_a_push(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            place = (await ask("POST", "/v2/a/blobs/uploads/"))[1]["Location"]
            assert (await ask("PATCH", place, LAYER[:100]))[0] == 202
            for data in (CONFIG, b"asked for", b"stray"):
                digest = await ask.blob("a", data)
                os.utime(tmp_path / "repositories/a/blobs" / digest.partition(":")[2], (1, 1))
            for data in (CONFIG, b"asked for"):
                assert (await ask("HEAD", f"/v2/a/blobs/{digest_of(data)}"))[0] == 200
            assert await collect_beside(tmp_path) == len(b"stray")
            async with Turns(tmp_path).alone():
                ending = asyncio.create_task(ask("PUT", f"{place}?digest={digest_of(LAYER)}", LAYER[100:]))
                done, _ = await asyncio.wait([ending], timeout=0.1)
                assert not done
                assert (await ask("GET", f"/v2/a/blobs/{digest_of(CONFIG)}"))[2] == CONFIG
            assert (await ending)[0] == 201
            status = (await ask("PUT", "/v2/a/manifests/1", manifest(), Content_Type=mediatypes.OCI_MANIFEST))[0]
            assert status == 201
        with pytest.raises(NotFound):
            await collect_beside(tmp_path / "elsewhere")

    play(work)


def test_a_cache_fetches_once_and_serves_without_its_upstream(tmp_path: Path) -> None:
    async def work() -> None:
        registry = Registry(RegistryConfig())
        async with serving(tmp_path / "upstream") as upstream:
            digest = await upstream.image("lib/app", "1")
            options = {"registry": registry, "upstream": upstream.host}
            async with serving(tmp_path / "cache", **options) as ask:
                assert (await ask("GET", "/v2/lib/app/manifests/1"))[1]["Docker-Content-Digest"] == digest
                both = await asyncio.gather(*[ask("GET", f"/v2/lib/app/blobs/{digest_of(LAYER)}") for _ in range(2)])
                assert [body for _, _, body in both] == [LAYER, LAYER]
                newer = await upstream.image("lib/app", "1", annotations={"newer": "yes"})
                assert (await ask("HEAD", "/v2/lib/app/manifests/1"))[1]["Docker-Content-Digest"] == newer
                assert await ask.code("GET", "/v2/lib/app/manifests/2") == (404, "MANIFEST_UNKNOWN")
                assert await ask.code("GET", f"/v2/lib/app/blobs/{digest_of(b'')}") == (404, "BLOB_UNKNOWN")
                assert await ask.code("PUT", "/v2/lib/app/manifests/1", b"{}") == (405, "UNSUPPORTED")
        async with serving(tmp_path / "cache", **options) as ask:  # the upstream is gone
            assert (await ask("GET", "/v2/lib/app/manifests/1"))[1]["Docker-Content-Digest"] == newer
            assert (await ask("GET", f"/v2/lib/app/blobs/{digest_of(LAYER)}"))[2] == LAYER
            assert await ask.code("GET", "/v2/other/manifests/1") == (404, "MANIFEST_UNKNOWN")
        await registry.close()

    play(work)


def test_read_only(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path) as ask:
            await ask.image("a", "1")
        async with serving(tmp_path, read_only=True) as ask:
            assert (await ask("GET", "/v2/a/manifests/1"))[0] == 200
            assert await ask.code("DELETE", "/v2/a/manifests/1") == (405, "UNSUPPORTED")

    play(work)
