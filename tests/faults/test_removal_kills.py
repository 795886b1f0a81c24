"""The daemon killed at each step of a container's removal, and around the commit of its row when it is made."""

from __future__ import annotations

import os
import signal

import pytest

from havre.failpoints import POINTS
from support.engines import Engine


def killed_at(engine: Engine, monkeypatch: pytest.MonkeyPatch, point: str, *command: str) -> None:
    """Have the daemon die at `point` of what docker's `command` makes it do, and start the next one."""
    engine.stop()
    monkeypatch.setenv("HAVRE_FAILPOINTS", f"{point}=kill")
    engine.start()
    monkeypatch.delenv("HAVRE_FAILPOINTS")
    assert engine.docker(*command).returncode != 0, point
    assert engine.ended() == -signal.SIGKILL, point
    engine.start()


def test_killed_at_each_step_of_a_removal(havred: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for point in [name for name in POINTS if name.startswith("removal.")]:
        id = havred.out("run", "-d", "--name", "box", "-v", "/anonymous", "-p", "18500:80", "busybox", "sleep", "1000")
        killed_at(havred, monkeypatch, point, "rm", "-f", "-v", "box")
        # It is removed to the end: at the start if that knows of it, else by whoever asks once more.
        havred.docker("rm", "-f", "-v", "box")
        assert havred.out("ps", "-aq") == "", point
        for directory in ("run/containers", "run/netns", "run/snapshots", "data/snapshots", "data/containers"):
            assert os.listdir(havred.root / directory) == [], f"{directory} after {point}"
        assert not list((havred.root / "run" / "oci" / "crun").glob(f"{id}*")), point
        havred.docker("volume", "prune", "-f", check=0)  # an anonymous volume may be left, as with dockerd


@pytest.mark.parametrize("point", ["database.begin", "database.commit", "database.committed"])
def test_killed_around_the_commit_of_a_new_container(
    havred: Engine, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    killed_at(havred, monkeypatch, f"{point}", "create", "--name", "box", "busybox", "true")
    listed = havred.out("ps", "-a", "--format", "{{.Names}}")
    assert listed in ("", "box")
    assert len(os.listdir(havred.root / "data" / "snapshots")) == len(listed.split())
    if listed:
        assert havred.docker("start", "-a", "box").returncode == 0
        havred.docker("rm", "box", check=0)
    havred.docker("run", "--rm", "--name", "box", "busybox", "true", check=0)
