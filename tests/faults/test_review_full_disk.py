"""A full disk: what needs room fails with a sentence, what ends or goes does so, and all works again with room."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred
from support.imagery import archive as image_archive
from support.imagery import config_of, layer_tar
from support.registry import real_registry
from support.waiting import until


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon whose data root is a file system of 16 MB."""
    engine = Havred()
    data = engine.root / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "havre-test", str(data)], check=True)
    engine.open()
    engine.docker("load", "-i", str(archive), check=0)
    yield engine
    if ids := engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-f", *ids)
    engine.stop()
    subprocess.run(["umount", str(data)], check=True)
    engine.close()


def fill(engine: Engine) -> Path:
    ballast = engine.root / "data" / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(1 << 8))
        except OSError:
            return ballast


def test_full_disk(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "ends", "busybox", "sleep", "1000")
    havred.out("run", "-d", "--name", "goes", "--restart", "always", "busybox", "sleep", "1000")
    ballast = fill(havred)
    for words in (("create", "busybox"), ("run", "--rm", "busybox", "true"), ("volume", "create", "vol")):
        done = havred.docker(*words)
        assert done.returncode != 0
        assert "full" in done.stderr or "no space left" in done.stderr.lower(), done.stderr
    havred.docker("stop", "-t", "0", "ends", check=0)
    havred.docker("kill", "goes", check=0)
    until(
        lambda: havred.out("ps", "-a", "--format", "{{.State}}").split() == ["exited", "exited"],
        "both ends, known although they cannot be written down",
    )
    ballast.unlink()
    havred.out("rm", "ends", "goes")
    assert havred.out("run", "--rm", "busybox", "echo", "room") == "room"
    assert havred.out("ps", "-aq") == ""
    assert "Traceback" not in havred.log.read_text()


def test_pull_on_a_full_disk_succeeds_once_there_is_room(havred: Engine, tmp_path: Path) -> None:
    layer = layer_tar("random", content=os.urandom(4 << 20))
    item = {"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["0.tar"]}
    (tmp_path / "x.tar").write_bytes(
        image_archive({"0.tar": layer, "c.json": config_of(layer), "manifest.json": json.dumps([item]).encode()})
    )
    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:
        copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{tmp_path}/x.tar"]
        subprocess.run([*havred.inside, *copy, f"docker://{registry.host}/x:1"], check=True)
        name, layers = f"{registry.host}/x:1", havred.root / "data" / "layers"
        before = sorted(layers.iterdir())
        ballast = fill(havred)
        refused = havred.docker("pull", name, check=1)
        assert "no space left on device" in refused.stderr
        assert sorted(layers.iterdir()) == before
        ballast.unlink()
        havred.docker("pull", name, check=0)
        assert havred.out("image", "inspect", "-f", "{{len .RootFS.Layers}}", name) == "1"
    assert "Traceback" not in havred.log.read_text()
