"""The build cache in an image: an engine that has no cache builds wholly cached from what another one pushed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.building import docker_build, write_context
from support.engines import Engine
from support.registry import real_registry

_TEXT = "FROM busybox\nRUN date +%N > /made\nCOPY a /a\nWORKDIR /w\nENV X=1\n"


def _forget(engine: Engine, *images: str) -> None:
    engine.docker("rmi", "-f", *images, check=0)
    engine.docker("builder", "prune", "-af", check=0)


@pytest.mark.peer
def test_by_way_of_a_registry(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", _TEXT, {"a": "x"})
    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:
        image = f"{registry.host}/cached:1"
        build = ("buildx", "build", "--progress=plain", "-t", image, str(context))
        havred.docker(*build, "--push", "--cache-to", "type=inline", check=0)
        id = havred.out("image", "inspect", "-f", "{{.Id}}", image)
        _forget(havred, image)
        told = havred.docker(*build, "--cache-from", f"type=registry,ref={image}", "--cache-to", "type=inline", check=0)
        assert told.stderr.count(" CACHED\n") == 4, told.stderr
        assert havred.out("image", "inspect", "-f", "{{.Id}}", image) == id
        _forget(havred, image)
        havred.docker("pull", "-q", image, check=0)
        classic = docker_build(havred, context, "--cache-from", image).stdout
        assert classic.count("Using cache") == 3
        (context / "a").write_text("y")
        _forget(havred, image)
        missing = f"type=registry,ref={registry.host}/nowhere:1"
        changed = havred.docker(*build, "--cache-from", image, "--cache-from", missing, check=0).stderr
        assert changed.count(" CACHED\n") == 2
        _forget(havred, image)


def test_only_named_images_count(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", _TEXT, {"a": "x"})
    docker_build(havred, context, "-t", "inline:1", "--build-arg", "BUILDKIT_INLINE_CACHE=1")
    havred.docker("builder", "prune", "-af", check=0)
    assert "Using cache" not in docker_build(havred, context).stdout
    havred.docker("builder", "prune", "-af", check=0)
    havred.havre("build", "-t", "again:1", "--cache-from", "inline:1", str(context), check=0)
    first, again = (
        havred.out("image", "inspect", "-f", "{{json .RootFS}}", f"{name}:1") for name in ("inline", "again")
    )
    assert first == again
    havred.docker("rmi", "-f", "inline:1", "again:1", check=0)
    havred.docker("image", "prune", "-f", check=0)
    havred.docker("builder", "prune", "-af", check=0)
