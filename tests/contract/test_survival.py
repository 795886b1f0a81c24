"""Containers outlive the daemon, whatever ends it, and their kernel objects never outlive them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine, Havred, serving
from support.raw import ask
from support.together import create
from support.waiting import until


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon of the test's own, to be killed at will."""
    with serving(Havred(), archive) as engine:
        yield engine


def reborn(engine: Engine, how: int = signal.SIGKILL) -> None:
    engine.stop(how)
    engine.start()


def state(engine: Engine, name: str) -> str:
    return engine.out("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_running_container_runs_on(havred: Engine, how: int) -> None:
    script = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done"
    havred.out("run", "-d", "--name", "clock", "-p", "18300:80", "busybox", "sh", "-c", script)
    pid = havred.out("inspect", "--format", "{{.State.Pid}}", "clock")
    reborn(havred, how)
    assert havred.out("inspect", "--format", "{{.State.Pid}}", "clock") == pid
    assert havred.out("ps", "--format", "{{.Names}} {{.Ports}}").startswith("clock 0.0.0.0:18300->80/tcp")
    before = havred.out("logs", "clock").count("tick")
    until(lambda: havred.out("logs", "clock").count("tick") > before, "more output")
    numbers = [int(n) for n in re.findall(r"tick (\d+)", havred.out("logs", "clock"))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert havred.out("exec", "clock", "echo", "in") == "in"
    havred.docker("stop", "-t", "0", "clock", check=0)
    assert state(havred, "clock") == "exited 137"
    havred.out("rm", "clock")


def test_published_port_works_on(havred: Engine) -> None:
    server = ("busybox", "sh", "-c", "echo page > /index.html; exec httpd -f -p 80 -h /")
    havred.out("run", "-d", "--name", "web", "-p", "18301:80", *server)
    havred.stop(signal.SIGKILL)
    fetch = [*havred.inside, "curl", "-s", "-m", "5", "http://127.0.0.1:18301/"]

    def page() -> bool:
        return subprocess.run(fetch, capture_output=True, check=False).stdout == b"page\n"

    until(page, "the page while no daemon runs")
    havred.start()
    until(page, "the page afterwards")
    done = havred.docker("run", "--rm", "-p", "18301:80", "busybox", "true", check=125)
    assert "port is already allocated" in done.stderr
    havred.docker("rm", "-f", "web", check=0)
    havred.docker("run", "--rm", "-p", "18301:80", "busybox", "true", check=0)


def test_a_port_changes_hands_after_a_restart_as_before(havred: Engine) -> None:
    def row(name: str) -> tuple[Any, Any]:
        shown = ask(havred.socket, "GET", f"/containers/{name}/json").json
        return shown["NetworkSettings"]["Ports"], shown["HostConfig"]["PortBindings"]

    def take(*givers: str) -> None:
        body = {"PortBindings": bindings, "Givers": givers}
        assert ask(havred.socket, "POST", "/containers/new/ports", body).status == 204

    sleep = ("busybox", "sleep", "1000")
    havred.out("run", "-d", "--name", "old", "-p", "0.0.0.0:18310:80", "-p", "81", "-p", "18311:82", *sleep)
    havred.out("run", "-d", "--name", "away", "-p", "18312:80", *sleep)
    havred.out("network", "disconnect", "bridge", "away")
    havred.out("run", "-d", "--name", "new", "--expose", "83", "-P", *sleep)
    ports, bindings = row("old")
    own, others = row("new")[0], row("away")
    reborn(havred)
    assert (row("old"), row("new")[0]) == ((ports, bindings), own)
    listening = subprocess.run([*havred.inside, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    assert "0.0.0.0:18310 " in listening
    assert "[::]:18310 " not in listening  # nobody asked for it
    take("old", "away")
    assert row("new")[0] == ports | own
    assert row("old") == (dict.fromkeys(ports), {})
    assert row("away") == others  # it had nothing to give
    reborn(havred)
    take("old")
    assert row("new")[0] == ports | own
    havred.out("rm", "-f", "old", "away", "new")


def test_exit_while_the_daemon_was_away(havred: Engine) -> None:
    havred.out(
        "run", "-d", "--name", "brief", "busybox", "sh", "-c", "while ! test -e /go; do sleep 0.05; done; exit 7"
    )
    pid = int(havred.out("inspect", "--format", "{{.State.Pid}}", "brief"))
    havred.stop(signal.SIGKILL)
    Path(f"/proc/{pid}/root/go").touch()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the container's end")
    ended = time.time()
    # Were the end taken for the time of the daemon's start, this second would show.
    until(lambda: time.time() > ended + 1.2, "a second to pass")
    havred.start()
    assert state(havred, "brief") == "exited 7"
    finished = havred.out("inspect", "--format", "{{json .State.FinishedAt}}", "brief")

    at = datetime.fromisoformat(json.loads(finished)[:26] + "+00:00").timestamp()
    assert abs(at - ended) < 0.9
    havred.out("rm", "brief")


@pytest.mark.parametrize("point", ["sandbox.retracted", "sandbox.closed", "snapshot.unmounted"])
def test_true_end_through_a_kill(havred: Engine, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """The daemon is killed while it takes a container down: exit code and end are known all the same."""
    havred.stop()
    monkeypatch.setenv("HAVRE_FAILPOINTS", f"{point}=kill")
    havred.start()
    monkeypatch.delenv("HAVRE_FAILPOINTS")
    id = create(havred, "seven", Cmd=["sh", "-c", "exit 7"])
    havred.docker("start", "seven")  # the daemon may die before it answers
    assert havred.ended() == -signal.SIGKILL
    havred.start()
    assert state(havred, id) == "exited 7"
    havred.out("rm", "seven")


def test_restart_policy_after_a_kill(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c", "echo up; sleep 1000")
    havred.out("run", "-d", "--name", "stopped", "--restart", "unless-stopped", "busybox", "sleep", "1000")
    havred.docker("stop", "-t", "0", "stopped", check=0)
    pid = int(havred.out("inspect", "--format", "{{.State.Pid}}", "always"))
    havred.stop(signal.SIGKILL)
    subprocess.run(["kill", "-9", str(pid)], check=True)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the container's end")
    havred.start()
    until(lambda: state(havred, "always").startswith("running"), "the restart")
    assert state(havred, "stopped").startswith("exited")
    until(lambda: havred.out("logs", "always").split() == ["up", "up"], "both outputs")
    havred.docker("rm", "-f", "always", "stopped", check=0)


def test_rm_container_that_ended_unseen_is_removed(havred: Engine) -> None:
    havred.out("run", "-d", "--rm", "--name", "fleeting", "busybox", "sleep", "1000")
    pid = int(havred.out("inspect", "--format", "{{.State.Pid}}", "fleeting"))
    havred.stop(signal.SIGKILL)
    subprocess.run(["kill", "-9", str(pid)], check=True)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the container's end")
    havred.start()
    until(lambda: havred.out("ps", "-aq") == "", "its removal")


def test_what_a_killed_daemon_had_not_come_to_remove_goes(havred: Engine) -> None:
    """After the exit of a `--rm` container its rows go first, its files in the background."""
    kept = havred.out("create", "busybox")
    files = havred.root / "data/containers"
    left = [files / ("ab" * 32), havred.root / "data/snapshots" / ("ab" * 32), havred.root / "run/containers/x.1.gone"]
    havred.stop(signal.SIGKILL)
    for directory in left:
        (directory / "upper").mkdir(parents=True)
        (directory / "upper/file").write_text("left")
    havred.start()
    assert not [directory for directory in left if directory.exists()]
    assert [path.name for path in files.iterdir()] == [kept]
    assert havred.out("ps", "-aq", "--no-trunc") == kept
    havred.out("rm", kept)


def test_holder_killed(havred: Engine) -> None:
    """conmon's end is noticed: the container is stopped or removed as any other."""
    havred.out("run", "-d", "--name", "orphan", "busybox", "sleep", "1000")
    identifier = havred.out("inspect", "--format", "{{.Id}}", "orphan")
    found = subprocess.run(["pgrep", "-f", f"conmon.*{identifier}"], capture_output=True, text=True, check=True)
    for pid in found.stdout.split():
        subprocess.run(["kill", "-9", pid], check=True)
    havred.docker("rm", "-f", "orphan", check=0)
    assert havred.out("ps", "-aq") == ""


def test_flushed_rules_come_back(havred: Engine) -> None:
    """CVE-2025-54388: a firewall reload must not open or close anything for good."""
    server = ("busybox", "sh", "-c", "echo page > /index.html; exec httpd -f -p 80 -h /")
    havred.out("run", "-d", "--name", "web", "-p", "127.0.0.1:18302:80", *server)
    subprocess.run([*havred.inside, "nft", "flush", "ruleset"], check=True)
    fetch = [*havred.inside, "curl", "-s", "-m", "2", "http://127.0.0.1:18302/"]
    until(lambda: subprocess.run(fetch, capture_output=True, check=False).stdout == b"page\n", "the rules' return", 20)
    havred.docker("rm", "-f", "web", check=0)


def test_two_daemons_side_by_side(havred: Engine) -> None:
    with serving(Havred(["--bip", "10.77.0.1/24"])) as second:
        assert second.out("ps", "-aq") == ""
        options = ("-H", f"unix://{second.root}/other", "--exec-root", f"{second.root}/other-run")
        options += ("--data-root", str(havred.root / "data"))
        command = [*second.inside, *second.program, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode != 0
        assert "data" in done.stderr
