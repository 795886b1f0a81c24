"""The power is cut at the moment of an answer: what was answered is there when the host comes up again.

The data root is ext4 on a loop device. What the file system has not sent to its device by the time of the answer is in
memory alone; so a copy of the file below the device is the disk as a power cut at that moment leaves it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from havre.oci.digest import digest_of, hex_of
from support.disks import make_ext4, mount_disk, serving_on
from support.engines import Engine


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon whose data root is a disk of its own."""

    def mount(data: Path) -> None:
        make_ext4(data.parent / "disk", 64)
        mount_disk(data.parent / "disk", data)

    with serving_on(mount, archive) as engine:
        yield engine


@contextmanager
def left_by_power_cut(engine: Engine) -> Iterator[Path]:
    """The disk as it is now, mounted anew: its journal is replayed."""
    copy, place = engine.root / "copy", engine.root / "after"
    subprocess.run(["cp", "--sparse=always", str(engine.root / "disk"), str(copy)], check=True)
    mount_disk(copy, place)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def rows(data: Path, table: str) -> dict[str, dict[str, object]]:
    with closing(sqlite3.connect(data / "havre.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {key: json.loads(value) for key, value in db.execute(f"SELECT key, value FROM {table}")}


def has_images(data: Path, *names: str) -> None:
    """All of them, whole: names, configurations and layers."""
    named = rows(data, "image_names")
    for name in names:
        id = str(named[f"docker.io/library/{name}"]["image"])
        assert id in rows(data, "images")
        document = (data / "blobs" / "sha256" / id.removeprefix("sha256:")).read_bytes()
        assert digest_of(document) == id
        for layer in json.loads(document)["rootfs"]["diff_ids"]:
            files = data / "layers" / hex_of(layer)
            row = rows(data, "layers")[layer]
            assert (files / "index").stat().st_size > 0
            assert digest_of((files / "tar").read_bytes()) == layer
            assert (files / "tar").stat().st_size == row["size"]


def test_what_was_answered_is_on_disk(havred: Engine) -> None:
    with left_by_power_cut(havred) as data:
        has_images(data, "busybox:latest")
    id = havred.out("create", "--name", "made", "busybox", "true")
    with left_by_power_cut(havred) as data:
        assert rows(data, "containers")[id]["Name"] == "made"
        assert id in rows(data, "snapshots")
    havred.out("volume", "create", "vol")
    with left_by_power_cut(havred) as data:
        assert "vol" in rows(data, "volumes")
        assert (data / "volumes" / "vol" / "_data").is_dir()
    net = havred.out("network", "create", "net")
    with left_by_power_cut(havred) as data:
        assert rows(data, "networks")[net]["Name"] == "net"
    havred.out("tag", "busybox", "other:1")
    with left_by_power_cut(havred) as data:
        has_images(data, "other:1")
    havred.docker("build", "-t", "built:1", "-", stdin="FROM busybox\nRUN echo x > /x\n", check=0)
    with left_by_power_cut(havred) as data:
        has_images(data, "built:1", "busybox:latest")
    havred.out("commit", "made", "committed:1")
    with left_by_power_cut(havred) as data:
        has_images(data, "committed:1")
    havred.out("rename", "made", "renamed")
    with left_by_power_cut(havred) as data:
        assert rows(data, "containers")[id]["Name"] == "renamed"
    havred.out("volume", "rm", "vol")
    havred.out("rmi", "other:1")
    havred.out("rm", "renamed")
    havred.out("network", "rm", "net")
    with left_by_power_cut(havred) as data:
        assert id not in rows(data, "containers")
        assert "vol" not in rows(data, "volumes")
        assert "docker.io/library/other:1" not in rows(data, "image_names")


def test_the_daemon_starts_on_what_a_power_cut_leaves(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "ran", "-v", "vol:/v", "busybox", "sleep", "1000")
    havred.out("stop", "-t", "0", "ran")
    havred.out("create", "--name", "made", "busybox", "echo", "runs")
    with left_by_power_cut(havred):
        pass
    havred.stop()
    data = havred.root / "data"
    subprocess.run(["umount", str(data)], check=True)
    shutil.move(havred.root / "copy", havred.root / "disk")
    mount_disk(havred.root / "disk", data)
    # The names of directories that nobody waits for may be lost, too.
    made = next(key for key, row in rows(data, "containers").items() if row["Name"] == "made")
    for lost in (data / "snapshots" / made, data / "containers" / made):
        shutil.rmtree(lost, ignore_errors=True)
    havred.start()
    assert havred.out("inspect", "-f", "{{.State.ExitCode}}", "ran") == "137"
    assert havred.out("start", "-a", "made") == "runs"
    havred.docker("start", "ran", check=0)
    havred.docker("rm", "-f", "ran", "made", check=0)
