"""Removals that fail: who waits for one is told, the container is dead, and a further attempt succeeds."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine
from support.raw import ask
from support.waiting import until


@contextmanager
def immutable(file: Path) -> Iterator[None]:
    """Nobody can change or remove it."""
    subprocess.run(["chattr", "+i", str(file)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)


@pytest.fixture
def waiting(engine: Engine) -> Iterator[Future[Any]]:
    """Somebody who has begun to wait for the removal of the running container `stays`."""
    engine.out("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    with ThreadPoolExecutor() as threads:
        yield threads.submit(ask, engine.socket, "POST", "/containers/stays/wait?condition=removed")
    engine.docker("rm", "-f", "stays")


def test_waiters_are_told(engine: Engine, waiting: Future[Any]) -> None:
    file = Path(engine.out("inspect", "-f", "{{.HostsPath}}", "stays"))
    with immutable(file):
        engine.docker("rm", "-f", "stays", check=1)
        told = waiting.result(20).json
        assert told["StatusCode"] == 137
        id = engine.out("inspect", "-f", "{{.Id}}", "stays")
        assert told["Error"]["Message"].startswith(f"unable to remove filesystem for {id}: ")
        assert told["Error"]["Message"].endswith("operation not permitted")
        # Who comes later is told at once.
        assert ask(engine.socket, "POST", "/containers/stays/wait?condition=removed").json == told
        state = ask(engine.socket, "GET", "/containers/stays/json").json["State"]
        assert (state["Status"], state["Dead"], state["Error"]) == ("dead", True, told["Error"]["Message"])
        assert "marked for removal" in engine.docker("start", "stays", check=1).stderr
    engine.out("rm", "stays")
    assert engine.docker("inspect", "stays", check=1).stdout == "[]\n"


def test_a_dead_container_goes_when_the_next_daemon_comes(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "stays", "--restart", "always", "busybox", "sleep", "1000")
    with immutable(Path(havred.out("inspect", "-f", "{{.HostsPath}}", "stays"))):
        havred.docker("rm", "-f", "stays", check=1)
        havred.stop()
        havred.start()
        assert havred.out("inspect", "-f", "{{.State.Status}}", "stays") == "dead"
        havred.stop()
    havred.start()
    assert havred.docker("inspect", "stays", check=1).stdout == "[]\n"


def test_who_waits_for_the_end_of_run_rm_is_told(havred: Engine) -> None:
    havred.out("run", "-d", "--rm", "--name", "stays", "busybox", "sleep", "1000")
    with ThreadPoolExecutor() as threads:
        told = threads.submit(ask, havred.socket, "POST", "/containers/stays/wait?condition=removed")
        with immutable(havred.root / "data" / "havre.db-wal"):
            havred.docker("kill", "stays")
            assert told.result(20).json["Error"]["Message"]
            until(lambda: havred.out("ps", "-a", "--format", "{{.State}}") == "dead", "it to be dead")
    havred.out("rm", "stays")


def test_a_stop_is_acknowledged_once_it_is_recorded(havred: Engine) -> None:
    id = havred.out("run", "-d", "--name", "stays", "--restart", "unless-stopped", "busybox", "sleep", "1000")
    with immutable(havred.root / "data" / "havre.db-wal"):
        refused = havred.docker("stop", "-t", "0", "stays", check=1)
        assert "havre.db" in refused.stderr
        assert havred.out("ps", "-a", "--format", "{{.State}}") == "exited"
        assert ask(havred.socket, "POST", f"/containers/{id}/stop").status == 500
    assert ask(havred.socket, "POST", f"/containers/{id}/stop").status == 304
    havred.stop(signal.SIGKILL)
    havred.start()
    assert havred.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "stays") == "exited 137"
    havred.out("rm", "stays")


def test_a_refused_rename_changes_nothing(havred: Engine) -> None:
    havred.out("create", "--name", "stays", "busybox")
    with immutable(havred.root / "data" / "havre.db-wal"):
        assert havred.docker("rename", "stays", "other").returncode == 1
        assert havred.out("ps", "-a", "--format", "{{.Names}}") == "stays"
    havred.docker("rename", "stays", "other", check=0)
    havred.out("rm", "other")
