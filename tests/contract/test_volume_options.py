"""Volumes of driver local by their options, and volumes without a name: seen from inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine

RUN = ("run", "--rm")


@pytest.fixture
def swept(engine: Engine) -> Iterator[Engine]:
    """Nothing stays for the leak check to find."""
    kept = engine.objects()
    yield engine
    engine.tidy(kept)


def create(engine: Engine, name: str, **options: str) -> None:
    given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    engine.out("volume", "create", *given, name)


def test_a_tmpfs_lives_while_somebody_has_it(swept: Engine) -> None:
    create(swept, "quick", type="tmpfs", device="tmpfs", o="size=128k,uid=1000,mode=0750")
    swept.out("run", "-d", "--name", "one", "-v", "quick:/v", "busybox", "sleep", "1000")
    assert swept.out("exec", "one", "stat", "-c", "%u %a", "/v") == "1000 750"
    swept.out("exec", "one", "sh", "-c", "echo here > /v/file")
    assert swept.out(*RUN, "-v", "quick:/v", "busybox", "cat", "/v/file") == "here"
    full = swept.docker("exec", "one", "dd", "if=/dev/zero", "of=/v/big", "bs=1k", "count=200")
    assert "No space left on device" in full.stderr
    swept.out("rm", "-f", "one")
    assert swept.out(*RUN, "-v", "quick:/v", "busybox", "ls", "/v") == ""


def test_a_directory_of_the_hosts(swept: Engine, tmp_path: Path) -> None:
    (tmp_path / "from-host").touch()
    create(swept, "bound", type="none", device=str(tmp_path), o="bind")
    assert swept.out(*RUN, "-v", "bound:/v", "busybox", "sh", "-c", "ls /v; touch /v/from-inside") == "from-host"
    assert (tmp_path / "from-inside").exists()
    swept.out("volume", "rm", "bound")
    assert (tmp_path / "from-host").exists()
    create(swept, "lost", type="none", device=str(tmp_path / "nope"), o="bind")
    # docker's command line takes what is said of the file for a program that is missing.
    refused = swept.docker(*RUN, "-v", "lost:/v", "busybox", "true", check=127).stderr
    assert "failed to mount local volume" in refused
    assert "no such file or directory" in refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, 'invalid option: "colour"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"size": "1m"}, "quota"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(engine: Engine, options: dict[str, str], message: str) -> None:
    given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    assert message in engine.docker("volume", "create", *given, "odd", check=1).stderr
    assert "odd" not in engine.out("volume", "ls", "-q").split()


def test_nfs_is_mounted_when_it_is_used(swept: Engine) -> None:
    create(swept, "far", type="nfs", device=":/export", o="addr=127.0.0.1,ro,soft,retrans=1,timeo=1")
    refused = swept.docker(*RUN, "-v", "far:/v", "busybox", "true", check=125).stderr
    assert "failed to mount local volume: mount :/export:" in refused


def test_volumes_without_a_name_go_with_their_container(swept: Engine) -> None:
    before = set(swept.out("volume", "ls", "-q").split())
    swept.out(*RUN, "-v", "/x", "-v", "named:/y", "busybox", "touch", "/x/f")
    assert set(swept.out("volume", "ls", "-q").split()) == before | {"named"}
    for name in ("kept", "gone"):
        swept.out("run", "--name", name, "-v", "/x", "-v", "named:/y", "busybox", "true")
    swept.out("rm", "kept")
    assert len(set(swept.out("volume", "ls", "-q").split()) - before) == 3
    swept.out("rm", "-v", "gone")
    assert len(set(swept.out("volume", "ls", "-q").split()) - before) == 2


def test_cluster_volumes_need_a_swarm(engine: Engine) -> None:
    refused = engine.docker("volume", "create", "--scope", "single", "clustered", check=1).stderr
    assert "This node is not a swarm manager" in refused
    engine.out("volume", "create", "plain")
    for client in (engine.docker, engine.havre):
        refused = client("volume", "update", "--availability", "drain", "plain", check=1).stderr
        assert refused == "Can only update cluster volumes\n"
    engine.out("volume", "rm", "plain")
    assert engine.out("volume", "ls", "-q") == ""


def test_flags_of_cluster_volumes_are_refused_by_name(havred: Engine) -> None:
    refused = havred.havre("volume", "create", "--sharing", "all", "x1", check=1).stderr
    assert refused == "havre: --sharing is for cluster volumes, which need a swarm: havre has none yet\n"
