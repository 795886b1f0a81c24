"""Images to and from the field's other tools: skopeo by every transport, podman and buildah by registry and archive."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.imagery import archive, config_of, layer_tar
from support.registry import RealRegistry, real_registry

pytestmark = pytest.mark.peer

BASE, TOP = layer_tar("base", content=bytes(range(256)) * 4096), layer_tar("top")
CONFIG = config_of(BASE, TOP)
ITEM = {"Config": "c.json", "RepoTags": ["partner:1"], "Layers": ["0.tar", "1.tar"]}
ARCHIVE = archive({"0.tar": BASE, "1.tar": TOP, "c.json": CONFIG, "manifest.json": json.dumps([ITEM]).encode()})


class Partners:
    """The tools, in the engine's network namespace, with stores of their own."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine, self.root = engine, root
        self.daemon = f"--{{}}-daemon-host={engine.url}"
        self.store = ["--root", str(root / "c"), "--runroot", str(root / "r"), "--storage-driver", "vfs"]

    def run(self, *command: str) -> str:
        done = subprocess.run([*self.engine.inside, *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
        return done.stdout

    def copy(self, source: str, target: str, *flags: str) -> None:
        self.run("skopeo", "copy", "-q", *flags, source, target)

    def podman(self, *words: str) -> str:
        return self.run("podman", *self.store, *words)

    def buildah(self, *words: str) -> str:
        return self.run("buildah", *self.store, *words)


@pytest.fixture
def partners(havred: Engine, tmp_path: Path) -> Iterator[Partners]:
    havred.docker("load", stdin=ARCHIVE, check=0)
    yield Partners(havred, tmp_path)
    kept = set(havred.out("images", "-q", "busybox").split())
    if ids := set(havred.out("images", "-q").split()) - kept:
        havred.docker("rmi", "-f", *ids, check=0)


@pytest.fixture
def registry(havred: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "registry", inside=havred.inside) as running:
        yield running


def layers(engine: Engine, name: str) -> list[str]:
    found: list[str] = json.loads(engine.out("inspect", "--format", "{{json .RootFS.Layers}}", name))
    return found


def test_skopeo_copies_by_every_transport(partners: Partners, registry: RealRegistry, tmp_path: Path) -> None:
    engine, name = partners.engine, f"{registry.host}/copied"
    ours = layers(engine, "partner:1")
    source = ("docker-daemon:partner:1", partners.daemon.format("src"))
    for target, flag in [
        (f"docker-archive:{tmp_path}/docker.tar:archived:1", ""),
        (f"oci-archive:{tmp_path}/oci.tar:docker.io/library/layout:1", ""),
        (f"docker://{name}:daemon", "--dest-tls-verify=false"),
        ("docker-daemon:again:1", partners.daemon.format("dest")),
    ]:
        partners.copy(source[0], target, source[1], *([flag] if flag else []))
    for file in ("docker.tar", "oci.tar"):
        engine.docker("load", "-i", str(tmp_path / file), check=0)
    engine.docker("pull", "-q", f"{name}:daemon", check=0)
    partners.copy(
        f"docker://{name}:daemon", "docker-daemon:back:1", "--src-tls-verify=false", partners.daemon.format("dest")
    )
    for loaded in ("archived:1", "layout:1", "again:1", "back:1", f"{name}:daemon"):
        assert layers(engine, loaded) == ours, loaded
    assert engine.out("inspect", "--format", "{{.Id}}", "again:1") == engine.out(
        "inspect", "--format", "{{.Id}}", "partner:1"
    )


@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:chunked"])
def test_what_podman_pushes_is_pulled(partners: Partners, registry: RealRegistry, compression: str) -> None:
    engine, name = partners.engine, f"{registry.host}/podman:1"
    saved = partners.root / "saved.tar"
    engine.docker("save", "-o", str(saved), "partner:1", check=0)
    partners.podman("load", "-q", "-i", str(saved))
    flags = ["--tls-verify=false", "-q", "--compression-format", compression, "--force-compression"]
    partners.podman("push", *flags, "partner:1", name)
    engine.docker("pull", "-q", name, check=0)
    assert layers(engine, name) == layers(engine, "partner:1")
    digest = engine.out("inspect", "--format", "{{index .RepoDigests 0}}", name).partition("@")[2]
    again = f"{registry.host}/again:1"
    engine.docker("tag", name, again, check=0)
    assert f"digest: {digest}" in engine.out("push", again)


def test_podman_and_buildah_take_what_we_push(partners: Partners, registry: RealRegistry, tmp_path: Path) -> None:
    engine, name = partners.engine, f"{registry.host}/ours:1"
    engine.docker("tag", "partner:1", name, check=0)
    engine.docker("push", "-q", name, check=0)
    partners.podman("pull", "-q", "--tls-verify=false", name)
    seen = partners.podman("inspect", "--format", "{{json .RootFS.Layers}}", name)
    assert json.loads(seen) == layers(engine, name)
    theirs = f"{registry.host}/buildah:1"
    partners.buildah("push", "-q", "--tls-verify=false", "--format", "oci", name, theirs)
    engine.docker("pull", "-q", theirs, check=0)
    assert layers(engine, theirs) == layers(engine, name)
    for form in ("docker-archive", "oci-archive"):
        file = tmp_path / f"{form}.tar"
        partners.podman("save", "-q", "--format", form, "-o", str(file), name)
        engine.docker("rmi", name, check=0)
        engine.docker("load", "-i", str(file), check=0)
        assert layers(engine, name) == layers(engine, theirs)


@pytest.mark.parametrize("squeeze", ["gzip", "zstd", "xz"])
def test_compressed_archives_of_several_images(partners: Partners, squeeze: str) -> None:
    engine = partners.engine
    engine.docker("tag", "partner:1", "partner:2", check=0)
    saved = subprocess.run(
        ["docker", "save", "partner", "busybox"], env=engine.env, capture_output=True, check=True, timeout=60
    ).stdout
    packed = subprocess.run([squeeze, "-c", "-1"], input=saved, capture_output=True, check=True, timeout=60).stdout
    engine.docker("rmi", "partner:1", "partner:2", check=0)
    loaded = engine.out("load", stdin=packed).splitlines()
    assert set(loaded) == {"Loaded image: partner:1", "Loaded image: partner:2", "Loaded image: busybox:latest"}


def test_archives_go_both_ways_between_dockerd_and_us(
    partners: Partners, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ours, theirs = partners.engine, request.getfixturevalue("_dockerd")
    ids = set()
    for source, target in ((ours, theirs), (theirs, ours)):
        file = tmp_path / f"{source.name}.tar"
        source.docker("save", "-o", str(file), "partner:1", check=0)
        ids.add(source.out("inspect", "--format", "{{.Id}}", "partner:1"))
        target.docker("rmi", "partner:1")
        assert target.out("load", "-i", str(file)) == "Loaded image: partner:1"
    assert layers(theirs, "partner:1") == layers(ours, "partner:1")
    assert len(ids) == 1
    theirs.docker("rmi", "partner:1", check=0)
