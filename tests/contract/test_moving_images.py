"""Images between engines and a registry: many tags, many platforms, manifest lists, searching, and disk accounting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.oci.digest import digest_of
from support.engines import HAVRE, Engine, Havred, serving
from support.imagery import archive, config_of, layer_tar
from support.registry import RealRegistry, real_registry
from support.waiting import until

pytestmark = pytest.mark.peer

BASE = layer_tar("base", content=bytes(range(256)) * 4096)


def one_image(name: str, *tars: bytes, **config: str) -> bytes:
    """An archive of one image with these layers."""
    body = json.loads(config_of(*tars)) | config
    layers = {f"{n}.tar": tar for n, tar in enumerate(tars)}
    item = {"Config": "c.json", "RepoTags": [name], "Layers": list(layers)}
    return archive({**layers, "c.json": json.dumps(body).encode(), "manifest.json": json.dumps([item]).encode()})


@pytest.fixture
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealRegistry]:
    """A registry that only the engine can reach."""
    name = "havred" if "havred" in request.fixturenames else "engine"
    engine: Engine = request.getfixturevalue(name)
    with real_registry(tmp_path / "registry", inside=engine.inside) as running:
        yield running
    names = engine.out("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    # By name: an image that busybox is another name of must stay.
    if ours := [name for name in names if not name.startswith(("busybox:", "<none>"))]:
        engine.docker("rmi", "-f", *ours, check=0)
    engine.docker("image", "prune", "-f", check=0)


def test_all_tags_of_a_repository(engine: Engine, registry: RealRegistry) -> None:
    name = f"{registry.host}/many"
    for tag in ("1", "2"):
        engine.docker("load", stdin=one_image(f"{name}:{tag}", BASE, layer_tar(tag)), check=0)
    pushed = engine.out("push", "-a", name)
    assert [line.split(":")[0] for line in pushed.splitlines() if "digest: sha256:" in line] == ["1", "2"]
    assert "tag can't be used with --all-tags/-a" in engine.docker("push", "-a", f"{name}:1", check=1).stderr
    engine.docker("rmi", f"{name}:1", f"{name}:2", check=0)
    pulled = engine.out("pull", "-a", name).splitlines()
    assert pulled[-1] == name
    assert pulled[-2] == f"Status: Downloaded newer image for {name}"
    assert set(engine.out("images", "--format", "{{.Tag}}", name).split()) == {"1", "2"}
    assert engine.out("pull", "-q", f"{name}:1") == f"{name}:1"
    found = engine.sdk().images.get_registry_data(f"{name}:1")
    assert found.attrs["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert found.id in engine.out("inspect", "--format", "{{.RepoDigests}}", f"{name}:1")


def test_manifest_lists_are_those_of_docker(havred: Engine, registry: RealRegistry) -> None:
    def manifest(*words: str, by: str, check: int = 0) -> str:
        action, *rest = words
        flags = [] if action in ("annotate", "rm") else ["--insecure"]
        command = [*havred.inside, by, "manifest", action, *flags, *rest]
        done = subprocess.run(command, env=havred.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == check, done.stderr
        return done.stdout + done.stderr

    name = f"{registry.host}/list"
    for architecture in ("amd64", "arm64"):
        data = one_image(f"{name}-{architecture}:1", BASE, layer_tar(architecture), architecture=architecture)
        havred.docker("load", stdin=data, check=0)
        havred.docker("push", "-q", f"{name}-{architecture}:1", check=0)
    members = [f"{name}-amd64:1", f"{name}-arm64:1"]
    said = {}
    for by in ("docker", str(HAVRE)):
        said[by] = [
            manifest("create", f"{name}:1", *members, by=by),
            manifest("create", f"{name}:1", *members, by=by, check=1),
            manifest("annotate", f"{name}:1", members[1], "--variant", "v8", by=by),
            manifest("inspect", f"{name}:1", by=by),
            manifest("inspect", f"{name}:1", members[0], by=by),
            manifest("push", "-p", f"{name}:1", by=by),
            manifest("rm", f"{name}:1", by=by, check=1),
            manifest("inspect", members[0], by=by),
            manifest("inspect", f"{name}:nope", by=by, check=1),
        ]
    assert said[str(HAVRE)] == said["docker"]
    manifest("create", f"{name}:1", *members, by="docker")
    assert manifest("inspect", f"{name}:1", by=str(HAVRE)) == manifest("inspect", f"{name}:1", by="docker")
    engine = havred
    engine.docker("rmi", *members, check=0)
    assert engine.out("pull", "-q", f"{name}:1") == f"{name}:1"
    assert engine.out("inspect", "--format", "{{.Architecture}}", f"{name}:1") == "amd64"
    engine.docker("pull", "-q", "--platform", "linux/arm64", f"{name}:1", check=0)
    assert engine.out("inspect", "--format", "{{.Architecture}}", f"{name}:1") == "amd64"
    short = engine.out("inspect", "--format", "{{.Id}}", f"{name}:1")[7:19]
    found = engine.sdk().images.get_registry_data(f"{name}:1")
    assert [one["architecture"] for one in found.attrs["Platforms"]] == ["amd64", "arm64"]
    tree = engine.havre("images", "--tree", name, check=0).stdout.splitlines()
    assert [line.split()[:2] for line in tree[1:]] == [
        [f"{name}:1", short],
        ["├─", "linux/amd64"],
        ["└─", "linux/arm64/v8"],
    ]
    missing = engine.docker("pull", "--platform", "linux/s390x", f"{name}:1", check=1).stderr
    assert "no matching manifest for linux/s390x in the manifest list entries" in missing


def test_a_registry_is_searched(havred: Engine, registry: RealRegistry) -> None:
    for repository in ("one/box", "two"):
        havred.docker("tag", "busybox", f"{registry.host}/{repository}", check=0)
        havred.docker("push", "-q", f"{registry.host}/{repository}", check=0)
    for run in (havred.docker, havred.havre):
        assert run("search", "--format", "{{.Name}}", f"{registry.host}/box", check=0).stdout == "one/box\n"
        assert "outside the range of [1, 100]" in run("search", "--limit", "101", "x", check=1).stderr


def test_disk_accounting_says_what_removal_frees(havred: Engine) -> None:
    def layers_size() -> int:
        return int(havred.sdk().df()["LayersSize"])

    before = layers_size()
    for name in ("one", "two"):
        havred.docker("load", stdin=one_image(f"{name}:1", BASE, layer_tar(name)), check=0)
    rows = {image["RepoTags"][0]: image for image in havred.sdk().df()["Images"]}
    unique = rows["one:1"]["Size"] - rows["one:1"]["SharedSize"]
    assert rows["one:1"]["SharedSize"] == len(BASE)
    assert "one" in havred.out("system", "df", "-v")
    both = layers_size()
    havred.docker("rmi", "one:1", check=0)
    assert both - layers_size() == unique
    pruned = havred.sdk().images.prune({"dangling": False, "until": "1h", "label!": "keep"})
    assert pruned["SpaceReclaimed"] >= both - unique - before
    havred.docker("image", "prune", "-af", "--filter", "label=none", check=0)


def test_a_damaged_store_is_found_and_mended(havred: Engine, registry: RealRegistry) -> None:
    name = f"{registry.host}/sound:1"
    havred.docker("load", stdin=one_image(name, BASE), check=0)
    havred.docker("push", "-q", name, check=0)
    assert havred.havre("system", "check", check=0).stdout == "No defects found.\n"
    layer = digest_of(BASE)
    with (havred.root / "data" / "layers" / layer.removeprefix("sha256:") / "tar").open("r+b") as file:
        file.seek(1 << 19)
        file.write(b"damage")
    found = havred.havre("system", "check", check=1)
    assert f"layer {layer}: the data of layer {layer} is damaged\n" in found.stdout
    assert f": its layer {layer} is damaged\n" in found.stdout
    mended = havred.havre("system", "check", "--repair", check=0).stdout
    assert f"fetched {registry.host}/sound@sha256:" in mended
    assert havred.havre("system", "check", check=0).stdout == "No defects found.\n"


def test_how_large_a_layer_may_be_is_set(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"registry-limits": {"layer-bytes": 1 << 20}}))
    with serving(Havred(["--config-file", str(file)])) as engine:
        refused = engine.docker("load", stdin=one_image("large:1", BASE), check=1)
        assert "unpacks to more than 1048576 bytes" in refused.stderr
        engine.docker("load", stdin=one_image("small:1", layer_tar("small")), check=0)
        assert engine.out("images", "--format", "{{.Repository}}") == "small"
        file.write_text(json.dumps({"registry-limits": {"layer-bytes": 1 << 30}}))
        os.kill(engine.pid, signal.SIGHUP)
        until(lambda: "Reloaded configuration" in engine.log.read_text(), "the reload")
        engine.docker("load", stdin=one_image("large:1", BASE), check=0)
