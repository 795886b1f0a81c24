"""Containers from end to end on a daemon of their havred: what survives what, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred, serving
from support.waiting import until


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon that the test may kill."""
    with serving(Havred(), archive) as engine:
        yield engine


@pytest.fixture
def own(havred: Engine) -> Iterator[Engine]:
    """The same, left without containers: the leak check comes after this and before the daemon's end."""
    yield havred
    if ids := havred.out("ps", "-aq").split():
        havred.out("rm", "-f", "-v", *ids)


def state(engine: Engine, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(engine.out("inspect", "-f", "{{json .State}}", name))
    return found


def crash(engine: Engine) -> None:
    engine.stop(signal.SIGKILL)


def test_every_state_survives_a_crash(own: Engine) -> None:
    own.out("create", "--name", "created", "busybox", "true")
    own.out("run", "-d", "--name", "running", "busybox", "sleep", "1000")
    own.out("run", "-d", "--name", "paused", "busybox", "sleep", "1000")
    own.out("pause", "paused")
    own.docker("run", "--name", "exited", "busybox", "sh", "-c", "exit 7", check=7)
    before = {name: state(own, name) for name in ("created", "running", "paused", "exited")}
    crash(own)
    own.start()
    assert {name: state(own, name) for name in before} == before
    own.out("unpause", "paused")
    assert own.out("exec", "running", "echo", "alive") == "alive"


def test_an_end_nobody_saw_is_told_truly(own: Engine) -> None:
    own.out("run", "-d", "--name", "aa", "busybox", "sh", "-c", "read x </dev/null; sleep 1; exit 9")
    own.out("run", "-d", "--rm", "--name", "bb", "busybox", "sleep", "1")
    pid = int(own.out("inspect", "-f", "{{.State.Pid}}", "aa"))
    crash(own)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the container to end")
    own.start()
    found = state(own, "aa")
    assert (found["Status"], found["ExitCode"]) == ("exited", 9)
    until(lambda: own.docker("inspect", "bb").returncode != 0, "the container made with --rm to go")


@pytest.mark.parametrize(
    ("policy", "stopped", "runs"),
    [
        ("always", True, True),
        ("unless-stopped", True, False),
        ("unless-stopped", False, True),
        ("no", False, False),
    ],
)
def test_restart_policies_after_a_crash(own: Engine, policy: str, stopped: bool, runs: bool) -> None:
    own.out("run", "-d", "--restart", policy, "--name", "cc", "busybox", "sleep", "1000")
    pid = int(own.out("inspect", "-f", "{{.State.Pid}}", "cc"))
    if stopped:
        own.out("stop", "-t", "0", "cc")
    crash(own)
    if not stopped:
        signal_process(pid)
    own.start()
    if runs:
        until(lambda: state(own, "cc")["Status"] == "running", "the container to run")
    else:
        assert state(own, "cc")["Status"] == "exited"


def signal_process(pid: int) -> None:
    """End the container's process while nobody watches."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the process to end")


def test_on_failure_stops_after_its_count(own: Engine) -> None:
    own.out("run", "-d", "--restart", "on-failure:2", "--name", "cc", "busybox", "sh", "-c", "exit 5")
    until(lambda: state(own, "cc")["Status"] == "exited", "the last attempt")
    assert own.out("inspect", "-f", "{{.RestartCount}} {{.State.ExitCode}}", "cc") == "2 5"


def test_a_failed_start_leaves_nothing(own: Engine) -> None:
    own.docker("run", "--rm", "--name", "cc", "busybox", "nonesuch", check=127)
    assert own.out("ps", "-aq") == ""
    own.docker("run", "--name", "cc", "--mount", "type=bind,src=/nonesuch,dst=/x", "busybox", "true", check=125)
    assert own.out("ps", "-aq") == ""
    assert own.out("volume", "ls", "-q") == ""


def test_a_second_daemon_is_refused(own: Engine) -> None:
    done = subprocess.run(
        [*own.program, *own.arguments()], capture_output=True, text=True, timeout=20, check=False, env=own.env
    )
    assert done.returncode == 1
    assert "is still running" in done.stderr
    assert own.out("ps", "-aq") == ""
