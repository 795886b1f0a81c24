"""Exporters of a Solve that push: what clients leave to the daemon, by calls of our own and by buildx."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.exceptions import GRPCError

from havre.api.buildkit.http2 import Routes
from support.building import served
from support.buildkit import calling, credentials
from support.engines import Engine, run
from support.registry import PASSWORD, USER, RealRegistry, real_registry

pytestmark = pytest.mark.peer

_DOCKERFILE = "FROM scratch\nCOPY --chmod=644 <<x /file\nof the test\nx\n"


@pytest.fixture
def context(havred: Engine, tmp_path: Path) -> Iterator[str]:
    """The address of a Dockerfile that the daemon can fetch; images made of it go."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "Dockerfile").write_text(_DOCKERFILE)
    before = set(havred.out("images", "-q", "--no-trunc").split())
    with served(havred, tmp_path / "served") as url:
        yield f"{url}/Dockerfile"
    if made := set(havred.out("images", "-q", "--no-trunc").split()) - before:
        havred.docker("rmi", "-f", *made, check=0)


@pytest.fixture
def registry(havred: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:
        yield registry


def solve(
    engine: Engine, context: str, attrs: dict[str, str], routes: Routes | None = None, **options: str
) -> dict[str, str]:
    """What the answer to a Solve tells, whose exporter is that of docker's own image store."""

    async def ask() -> dict[str, str]:
        async with asyncio.timeout(30), calling(engine.socket, routes) as caller:
            return await caller.solve("moby", attrs, {"context": context, **options})

    return asyncio.run(ask())


def skopeo(engine: Engine, *words: str) -> subprocess.CompletedProcess[bytes]:
    """What skopeo says in the engine's network."""
    command, *rest = words
    return subprocess.run([*engine.inside, "skopeo", command, "--tls-verify=false", *rest], capture_output=True)


def raw(engine: Engine, registry: RealRegistry, name: str) -> tuple[str, Any]:
    """The digest and the content of a manifest in the registry."""
    done = skopeo(engine, "inspect", "--raw", f"docker://{registry.host}/{name}")
    assert done.returncode == 0, done.stderr
    return f"sha256:{hashlib.sha256(done.stdout).hexdigest()}", json.loads(done.stdout)


def test_a_push_is_the_daemons(havred: Engine, context: str, registry: RealRegistry) -> None:
    names = f"{registry.host}/a:1,{registry.host}/b/c:2"
    told = solve(havred, context, {"push": "true", "name": names})
    assert told["image.name"] == names
    digest, manifest = raw(havred, registry, "a:1")
    assert raw(havred, registry, "b/c:2")[0] == digest == told["containerimage.digest"]
    assert manifest["config"]["digest"] == told["containerimage.config.digest"]
    for name in (f"{registry.host}/a:1", digest):  # the digest is what buildx prints of a pushed image
        assert havred.out("image", "inspect", "-f", "{{.Id}}", name) == told["containerimage.config.digest"]


def test_what_is_pushed_only(havred: Engine, context: str, registry: RealRegistry) -> None:
    before = havred.out("images", "-aq")
    told = solve(havred, context, {"push": "true", "name": f"{registry.host}/only:1", "store": "false"})
    assert raw(havred, registry, "only:1")[0] == told["containerimage.digest"]
    assert havred.out("images", "-aq") == before


def test_a_push_by_digest_gives_no_tag(havred: Engine, context: str, registry: RealRegistry) -> None:
    told = solve(havred, context, {"push": "true", "name": f"{registry.host}/d", "push-by-digest": "true"})
    assert raw(havred, registry, f"d@{told['containerimage.digest']}")[0] == told["containerimage.digest"]
    assert skopeo(havred, "list-tags", f"docker://{registry.host}/d").returncode != 0


def test_platforms_with_annotations(havred: Engine, context: str, registry: RealRegistry) -> None:
    attrs = {
        "push": "true",
        "name": f"{registry.host}/many:1",
        "annotation.all": "1",
        "annotation-manifest[linux/arm64].arm": "2",
        "annotation-index.index": "3",
        "compression": "zstd",
    }
    told = solve(havred, context, attrs, platform="linux/amd64,linux/arm64")
    digest, index = raw(havred, registry, "many:1")
    assert digest == told["containerimage.digest"]
    assert index["annotations"] == {"index": "3"}
    wanted = {"amd64": {"all": "1"}, "arm64": {"all": "1", "arm": "2"}}
    for entry in index["manifests"]:
        _, manifest = raw(havred, registry, f"many@{entry['digest']}")
        assert manifest["annotations"] == wanted[entry["platform"]["architecture"]]
        assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+zstd"}


def test_credentials_are_the_sessions(havred: Engine, context: str, tmp_path: Path) -> None:
    with real_registry(tmp_path / "private", htpasswd=True, inside=havred.inside) as private:
        attrs = {"push": "true", "name": f"{private.host}/p:1"}
        with pytest.raises(GRPCError, match="no basic auth credentials"):
            solve(havred, context, attrs)
        with pytest.raises(GRPCError, match="401 Unauthorized"):
            solve(havred, context, attrs, credentials({private.host: (USER, "wrong")}))
        solve(havred, context, attrs, credentials({private.host: (USER, PASSWORD)}))


def test_a_registry_without_tls(havred: Engine, context: str, tmp_path: Path) -> None:
    run(*havred.inside, "ip", "addr", "add", "10.98.7.1/32", "dev", "lo")
    try:
        with real_registry(tmp_path / "plain", inside=havred.inside, address="10.98.7.1") as plain:
            attrs = {"push": "true", "name": f"{plain.host}/x:1"}
            with pytest.raises(GRPCError, match=r"SSL|TLS|HTTPS"):
                solve(havred, context, attrs)
            solve(havred, context, {**attrs, "registry.insecure": "true"})
    finally:
        run(*havred.inside, "ip", "addr", "del", "10.98.7.1/32", "dev", "lo")


@pytest.mark.parametrize(
    ("attrs", "told"),
    [
        ({"flavour": "sweet"}, "unknown attribute flavour of the exporter image"),
        ({"push": "maybe"}, "non-bool value specified for push"),
        ({"push": "true"}, "tag is needed when pushing to registry"),
        ({"annotation.a": "b"}, "annotation.a needs push=true"),
        ({"name": "x", "push": "true", "annotation-index.a": "b"}, "index annotations not supported"),
        ({"name": "x", "push": "true", "annotation-layer.a": "b"}, "annotation-layer.a is not"),
        ({"name": "x", "push": "true", "compression": "estargz"}, "unsupported layer compression type: estargz"),
        ({"name-canonical": "true"}, "name-canonical=true is not supported"),
    ],
)
def test_what_an_exporter_does_not_do(havred: Engine, context: str, attrs: dict[str, str], told: str) -> None:
    with pytest.raises(GRPCError, match=told):
        solve(havred, context, attrs)
