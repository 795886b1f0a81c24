"""The host goes down (SIGPWR tells the daemon so): containers end in order, and those that are wanted come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine, Havred, serving
from support.waiting import until

ON_USR1 = "trap 'echo bye; exit 7' USR1; echo up; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    with serving(Havred(), archive) as engine:
        yield engine


def begin(engine: Engine, name: str, *options: str, script: str = ON_USR1) -> None:
    """A container that is ready for its stop signal."""
    engine.out("run", "-d", "--name", name, "--stop-signal", "USR1", *options, "busybox", "sh", "-c", script)
    until(lambda: "up" in engine.out("logs", name), "its trap")


def look(engine: Engine, name: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(engine.out("inspect", "--format", "{{json .State}}", name))
    return state


def is_running(engine: Engine, name: str) -> bool:
    return bool(look(engine, name)["Status"] == "running")


def test_containers_end_before_the_daemon_and_the_wanted_come_back(havred: Engine) -> None:
    begin(havred, "plain")
    begin(havred, "wanted", "--restart", "always")
    begin(havred, "failing", "--restart", "on-failure:3")
    begin(havred, "unwanted", "--restart", "unless-stopped")
    havred.out("stop", "unwanted")
    begin(havred, "gone", "--rm")
    begin(havred, "deaf", "--stop-timeout", "0", "--stop-signal", "TERM", script=DEAF)
    begin(havred, "sharer", "--network", "container:plain")
    havred.out("pause", "wanted")
    started = look(havred, "wanted")["StartedAt"]

    havred.stop(signal.SIGPWR)
    assert not list((havred.root / "run/containers").iterdir())
    assert "stopping all containers within 30 s" in havred.log.read_text()

    havred.start()
    plain, sharer = look(havred, "plain"), look(havred, "sharer")
    assert [(each["Status"], each["ExitCode"]) for each in (plain, sharer)] == [("exited", 7)] * 2
    assert sharer["FinishedAt"] < plain["FinishedAt"]
    assert look(havred, "deaf")["ExitCode"] == 137
    assert havred.out("logs", "plain").split() == ["up", "bye"]
    assert look(havred, "unwanted")["Status"] == "exited"
    assert havred.docker("inspect", "gone").returncode == 1
    for name in ("wanted", "failing"):
        until(partial(is_running, havred, name), f"{name} to come back")
        assert look(havred, name)["StartedAt"] > look(havred, name)["FinishedAt"] > started
    havred.out("rm", "-f", *havred.out("ps", "-aq").split())


def test_clients_see_the_ends_and_nothing_starts_any_more(havred: Engine, tmp_path: Path) -> None:
    """A container ends only when another start has been refused; who runs it in the foreground gets its exit code."""
    waits = "until [ -e /d/over ]; do sleep 0.05; done"
    script = f"trap 'echo ending; {waits}; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    options = ("--name", "slow", "--stop-timeout", "30", "-v", f"{tmp_path}:/d")
    havred.out("create", "--name", "late", "busybox", "true")
    with subprocess.Popen(
        ["docker", "run", *options, "busybox", "sh", "-c", script],
        env=havred.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout
        assert running.stdout.readline() == "up\n"
        os.kill(havred.pid, signal.SIGPWR)
        assert running.stdout.readline() == "ending\n"
        assert "the host is shutting down" in havred.docker("start", "late", check=1).stderr
        (tmp_path / "over").touch()
        assert running.wait(30) == 5
    havred.stop()
    havred.start()
    assert look(havred, "late")["Status"] == "created"
    havred.out("rm", "late", "slow")
