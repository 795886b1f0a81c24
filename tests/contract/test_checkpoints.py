"""Checkpoints by criu: a container stops in the middle of its work and goes on there, on any network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred, serving
from support.raw import ask
from support.waiting import until

COUNT = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"


@pytest.fixture(scope="module")
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon with experimental features."""
    with serving(Havred(["--experimental"]), archive) as engine:
        yield engine


def count(engine: Engine, name: str) -> int:
    lines = engine.out("logs", name).split()
    return int(lines[-1]) if lines else 0


@pytest.mark.parametrize(
    "flags", [("--network", "none"), ("-p", "18460:80"), ("-t",), ("--runtime", "runc")], ids=lambda flags: flags[0]
)
def test_goes_on_where_it_was(havred: Engine, flags: tuple[str, ...]) -> None:
    havred.out("run", "-d", "--name", "counting", "--restart", "always", *flags, "busybox", "sh", "-c", COUNT)
    until(lambda: count(havred, "counting") > 2, "the first numbers")
    assert havred.out("checkpoint", "create", "counting", "first") == "first"
    state = havred.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "counting")
    assert state == "exited 137 0"
    left = count(havred, "counting")
    assert havred.out("checkpoint", "ls", "counting").split() == ["CHECKPOINT", "NAME", "first"]
    havred.out("start", "--checkpoint", "first", "counting")
    until(lambda: count(havred, "counting") > left + 2, "more numbers")
    numbers = [int(line) for line in havred.out("logs", "counting").split()]
    assert numbers == list(range(1, len(numbers) + 1)), "none is missing, none comes twice"
    assert havred.out("exec", "counting", "echo", "well") == "well"
    havred.out("rm", "-f", "counting")


def test_left_running_in_a_directory_of_the_users(havred: Engine, tmp_path: Path) -> None:
    place = ("--checkpoint-dir", str(tmp_path / "kept"))
    havred.out("run", "-d", "--name", "counting", "busybox", "sh", "-c", COUNT)
    until(lambda: count(havred, "counting") > 0, "the first number")
    havred.havre("checkpoint", "create", "--leave-running", *place, "counting", "early", check=0)
    early = count(havred, "counting")
    assert havred.havre("checkpoint", "ls", *place, "counting").stdout.split()[-1] == "early"
    assert havred.out("checkpoint", "ls", "counting").split() == ["CHECKPOINT", "NAME"]
    until(lambda: count(havred, "counting") > early + 20, "that it went on")
    havred.out("stop", "-t", "0", "counting")
    before = len(havred.out("logs", "counting").split())
    havred.havre("start", *place, "--checkpoint", "early", "counting", check=0)
    numbers = until(lambda: havred.out("logs", "counting").split()[before:], "numbers after the restore")
    assert int(numbers[0]) <= early + 1, "it is back where it was"
    havred.havre("checkpoint", "rm", *place, "counting", "early", check=0)
    assert list((tmp_path / "kept").iterdir()) == []
    havred.out("rm", "-f", "counting")


def test_what_is_refused(havred: Engine, tmp_path: Path) -> None:
    """In dockerd's words, but for the last two, which dockerd would do."""
    identifier = havred.out("create", "--name", "idle", "busybox", "true")
    (tmp_path / "precious").mkdir()
    for words, problem in (
        (("checkpoint", "create", "idle", "one"), f"container {identifier} is not running"),
        (("start", "--checkpoint", "none", "idle"), "checkpoint none does not exist for container /idle"),
        (("checkpoint", "rm", "idle", "none"), "checkpoint none does not exist for container idle"),
        (("checkpoint", "rm", "--checkpoint-dir", str(tmp_path), "idle", "precious"), "does not exist"),
        (("checkpoint", "ls", "--checkpoint-dir", "kept", "idle"), "must be an absolute path"),
    ):
        done = havred.docker(*words, check=1)
        assert problem in done.stderr, done.stderr
    assert (tmp_path / "precious").exists()
    havred.out("rm", "idle")
    havred.out("run", "-d", "--name", "busy", "busybox", "sh", "-c", COUNT)
    for name, status, problem in (
        ("x", 400, 'invalid checkpoint ID "x", only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed'),
        ("../up", 400, 'invalid checkpoint ID "../up", only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed'),
        ("twice", 201, ""),
        (
            "twice",
            500,
            "cannot checkpoint container busy: checkpoint with name twice already exists for container busy",
        ),
    ):
        reply = ask(havred.socket, "POST", "/containers/busy/checkpoints", {"CheckpointID": name})
        assert (reply.status, reply.message if problem else "") == (status, problem)
    havred.out("rm", "-f", "busy")


def test_a_checkpoint_that_fails_leaves_the_container_running(havred: Engine) -> None:
    """criu dumps no connection that stands."""
    script = "nc -l -p 99 -e cat & sleep 0.2; (while true; do sleep 1; done) | nc 127.0.0.1 99"
    havred.out("run", "-d", "--name", "talking", "busybox", "sh", "-c", script)
    until(lambda: "ESTABLISHED" in havred.out("exec", "talking", "netstat", "-t"), "the connection")
    done = havred.docker("checkpoint", "create", "talking", "first", check=1)
    assert "Cannot checkpoint container talking: criu: " in done.stderr
    assert "tcp" in done.stderr.lower()
    assert havred.out("inspect", "-f", "{{.State.Status}}", "talking") == "running"
    assert havred.out("exec", "talking", "echo", "well") == "well"
    assert havred.out("checkpoint", "ls", "talking").split() == ["CHECKPOINT", "NAME"]
    havred.out("rm", "-f", "talking")
