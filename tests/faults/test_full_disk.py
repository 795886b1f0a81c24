"""A full disk: what needs room fails with a sentence, what ends or goes does so, and all works again with room."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support.disks import mount_tmpfs, serving_on
from support.engines import Engine
from support.imagery import archive as image_archive
from support.imagery import config_of, layer_tar
from support.registry import real_registry
from support.waiting import until


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon whose data root is a file system of 16 MB."""
    with serving_on(partial(mount_tmpfs, mebibytes=16), archive) as engine:
        yield engine


def fill(engine: Engine) -> Path:
    """Take every bit of room, also what came free since the last time, as a container does that writes and writes."""
    ballast = engine.root / "data" / "ballast"
    with ballast.open("ab", buffering=0) as file:
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


def warnings_of(engine: Engine) -> list[str]:
    """The warnings of `info`."""
    warnings: list[str] = json.loads(engine.out("info", "-f", "{{json .Warnings}}"))
    return warnings


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_daemon_starts_on_a_full_disk_and_what_fills_it_can_be_removed(havred: Engine, how: int) -> None:
    for words in (
        ("run", "-d", "--name", "ends", "busybox", "sleep", "1000"),
        ("run", "-d", "--name", "goes", "--restart", "always", "busybox", "sleep", "1000"),
        ("create", "--name", "idle", "busybox"), ("volume", "create", "vol"), ("volume", "create", "other"),
        ("network", "create", "net"), ("tag", "busybox", "second:1"),
    ):  # fmt: skip
        havred.out(*words)
    ballast = fill(havred)
    havred.docker("stop", "-t", "0", "ends", check=0)
    fill(havred)
    (warning,) = warnings_of(havred)
    assert f"the file system of {havred.root}/data is full: free some space" in warning
    havred.stop(how)
    fill(havred)
    havred.start()
    shown = havred.out("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}").splitlines()
    assert [line.split()[:2] for line in shown] == [["idle", "created"], ["goes", "running"], ["ends", "exited"]]
    assert "(137)" in shown[-1]  # it was recorded; one that is lost has 255
    for words in (
        ("rm", "idle"), ("rm", "-f", "goes"), ("volume", "rm", "vol"), ("network", "rm", "net"), ("rmi", "second:1"),
        ("container", "prune", "-f"), ("volume", "prune", "-a", "-f"), ("image", "prune", "-a", "-f"),
        ("builder", "prune", "-f"), ("system", "prune", "-f"),
    ):  # fmt: skip
        havred.docker(*words, check=0)
        fill(havred)
    left = [havred.out(*words) for words in (("ps", "-aq"), ("images", "-q"), ("volume", "ls", "-q"))]
    assert left == ["", "", ""]
    ballast.unlink()
    assert warnings_of(havred) == []
    assert "Traceback" not in havred.log.read_text()


def test_a_data_root_without_reserve_is_opened_and_read(havred: Engine) -> None:
    """As an older version has left it after its stop."""
    havred.out("create", "--name", "idle", "busybox")
    havred.stop()
    data = havred.root / "data"
    for name in ("reserve", "havre.db-wal", "havre.db-shm"):
        (data / name).unlink(missing_ok=True)
    ballast = fill(havred)
    havred.start()
    assert havred.out("ps", "-a", "--format", "{{.Names}}") == "idle"
    assert havred.out("images", "-q") != ""
    ballast.unlink()
    havred.docker("rm", "idle", check=0)
    assert "Traceback" not in havred.log.read_text()


def test_a_refused_volume_leaves_no_directory(havred: Engine, tmp_path: Path) -> None:
    havred.out("volume", "create", "there")
    tar = layer_tar("file")
    ballast, volumes = fill(havred), havred.root / "data" / "volumes"
    before = sorted(volumes.iterdir())
    refused = havred.docker("volume", "create", "vol", check=1)
    assert "no space left on device" in refused.stderr
    assert "free some space there" in havred.havre("volume", "create", "vol", check=1).stderr
    assert havred.havre("volume", "clone", "there", "copy").returncode == 1
    assert havred.havre("volume", "rename", "there", "here").returncode == 1
    assert havred.havre("volume", "import", "from", "-", stdin=tar).returncode == 1
    assert sorted(volumes.iterdir()) == before
    assert havred.out("volume", "ls", "-q") == "there"
    ballast.unlink()
    havred.stop()
    havred.start()
    assert havred.out("volume", "ls", "-q") == "there"


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
        ours = havred.havre("pull", name, check=1).stderr
        assert f"the file system of {layers} is full: free some space there" in ours
        assert sorted(layers.iterdir()) == before
        ballast.unlink()
        havred.docker("pull", name, check=0)
        assert havred.out("image", "inspect", "-f", "{{len .RootFS.Layers}}", name) == "1"
    assert "Traceback" not in havred.log.read_text()
