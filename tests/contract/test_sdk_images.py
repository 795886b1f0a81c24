"""The image calls of Docker's Python SDK, on havre and on dockerd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import Dockerd, Engine, Havred, serving
from support.imagery import archive, config_of, layer_tar
from support.registry import RealRegistry, real_registry

pytestmark = pytest.mark.peer

TARS = (layer_tar("sdk-base"), layer_tar("sdk-top"))
CONFIG = config_of(*TARS, Labels={"made": "sdk"})
ITEM = {"Config": "c.json", "RepoTags": ["sdk:1"], "Layers": ["0.tar", "1.tar"]}
ARCHIVE = archive({"0.tar": TARS[0], "1.tar": TARS[1], "c.json": CONFIG, "manifest.json": json.dumps([ITEM]).encode()})


@pytest.fixture
def registry(engine: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "registry", inside=engine.inside) as running:
        yield running


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    client = engine.sdk()
    yield client
    for image in client.images.list(filters={"label": "made=sdk"}):
        client.images.remove(image.id, force=True)
    client.close()


def test_load_list_save_and_remove(client: Any) -> None:
    (image,) = client.images.load(ARCHIVE)
    assert (image.tags, image.labels) == (["sdk:1"], {"made": "sdk"})
    assert image.short_id == image.id[:19]
    assert [step["CreatedBy"] for step in image.history()] == ["step 1", "step 0"]
    assert image.tag("sdk", tag="2") is True
    image.reload()
    assert image.tags == ["sdk:1", "sdk:2"]
    assert [one.id for one in client.images.list("sdk")] == [image.id]
    assert client.images.list(filters={"label": "made=other"}) == []
    saved = b"".join(image.save(named="sdk:2"))
    client.images.remove("sdk:1")
    client.images.remove(image.id)
    with pytest.raises(client_errors().ImageNotFound, match="No such image: sdk:2"):
        client.images.get("sdk:2")
    (again,) = client.images.load(saved)
    assert (again.id, again.tags) == (image.id, ["sdk:2"])
    client.images.prune({"dangling": True})  # what other tests left
    assert client.images.prune({"dangling": True})["SpaceReclaimed"] == 0
    pruned = client.images.prune({"dangling": False, "label": "made=sdk"})
    assert {"Deleted": image.id} in [{"Deleted": one.get("Deleted")} for one in pruned["ImagesDeleted"]]


def test_import(client: Any) -> None:
    answer = client.api.import_image_from_data(TARS[0], repository="sdk", tag="imported", changes=["LABEL made=sdk"])
    assert json.loads(answer.splitlines()[-1])["status"].startswith("sha256:")
    image = client.images.get("sdk:imported")
    assert len(image.attrs["RootFS"]["Layers"]) == 1
    assert client.api.inspect_image("sdk:imported")["Config"]["Labels"] == {"made": "sdk"}


def test_push_and_pull(client: Any, registry: RealRegistry) -> None:
    name = f"{registry.host}/sdk"
    client.images.load(ARCHIVE)
    for tag in ("1", "2"):
        client.images.get("sdk:1").tag(name, tag=tag)
        lines = list(client.images.push(name, tag=tag, stream=True, decode=True))
        aux = next(line["aux"] for line in lines if "aux" in line)
        assert (aux["Tag"], aux["Digest"][:7]) == (tag, "sha256:")
    data = client.images.get_registry_data(f"{name}:1")
    assert data.has_platform("linux/amd64")
    client.images.remove(client.images.get("sdk:1").id, force=True)
    assert data.pull().attrs["RepoDigests"] == [f"{name}@{data.id}"]
    assert {one.id for one in client.images.pull(name, all_tags=True)} == {client.images.get(f"{name}:2").id}
    assert set(client.images.get(f"{name}:1").tags) == {f"{name}:1", f"{name}:2"}
    with pytest.raises(client_errors().NotFound, match="manifest unknown"):
        client.images.pull(name, tag="nope")


def client_errors() -> Any:
    """The SDK's exceptions."""
    import docker.errors

    return docker.errors


@pytest.mark.parametrize("kind", [Havred, Dockerd])
def test_all_tags_of_a_mirror(kind: type[Engine], tmp_path: Path) -> None:
    """Of Docker Hub's repositories a mirror also tells which tags there are."""
    with serving(kind()) as engine, real_registry(tmp_path, inside=engine.inside) as mirror:
        engine.docker("load", stdin=ARCHIVE, check=0)
        names = {f"{mirror.host}/library/sdk:{tag}" for tag in "12"}
        for name in names:
            engine.docker("tag", "sdk:1", name, check=0)
            engine.docker("push", name, check=0)
        engine.docker("rmi", "sdk:1", *names, check=0)
        engine.stop()
        engine.extra = ["--registry-mirror", f"http://{mirror.host}"]
        engine.start()
        sdk = engine.sdk()
        assert {name for image in sdk.images.pull("sdk", all_tags=True) for name in image.tags} == {"sdk:1", "sdk:2"}
        sdk.close()
