"""Create, start, stop, kill, pause, rename, restart, wait, remove: states, texts and codes as docker has them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.waiting import until

SLEEP = ("busybox", "sleep", "1000")
#: ends at once on SIGTERM, as PID 1 does only with a handler, and says when it has one
OBEDIENT = ("busybox", "sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done")


@pytest.fixture
def sleeper(engine: Engine) -> Iterator[str]:
    """The ID of a running container."""
    identifier = engine.out("run", "-d", "--name", "sleeper", *SLEEP)
    yield identifier
    engine.docker("rm", "-f", identifier)


def listens(engine: Engine, name: str) -> None:
    """Wait until the container that runs `OBEDIENT` heeds signals."""
    until(lambda: "ready" in engine.out("logs", name), "the trap")


def state(engine: Engine, name: str) -> str:
    return engine.out("inspect", "--format", "{{.State.Status}}", name)


class TestStates:
    def test_created_started_stopped_removed(self, engine: Engine) -> None:
        identifier = engine.out("create", "--name", "one", *OBEDIENT)
        assert state(engine, "one") == "created"
        assert engine.out("start", "one") == "one"
        assert state(engine, identifier) == "running"
        listens(engine, "one")
        assert engine.out("stop", "one") == "one"
        assert engine.out("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "one") == "exited 42"
        assert engine.out("rm", "one") == "one"
        done = engine.docker("inspect", "one", check=1)
        assert "No such object: one" in done.stderr

    def test_start_and_stop_that_change_nothing_succeed(self, engine: Engine, sleeper: str) -> None:
        engine.docker("start", sleeper, check=0)
        engine.docker("kill", sleeper, check=0)
        until(lambda: state(engine, sleeper) == "exited", "the exit")
        engine.docker("stop", sleeper, check=0)

    def test_stop_kills_after_its_time(self, engine: Engine, sleeper: str) -> None:
        begun = time.monotonic()
        engine.docker("stop", "-t", "1", sleeper, check=0)
        assert 0.9 < time.monotonic() - begun < 6
        assert engine.out("inspect", "--format", "{{.State.ExitCode}}", sleeper) == "137"

    def test_kill_by_name_number_and_prefix(self, engine: Engine) -> None:
        for signal in ("TERM", "SIGTERM", "15"):
            engine.out("run", "-d", "--name", "victim", *OBEDIENT)
            listens(engine, "victim")
            engine.docker("kill", "-s", signal, "victim", check=0)
            assert engine.out("wait", "victim") == "42"
            engine.out("rm", "victim")

    def test_kill_with_a_bad_signal_is_refused(self, engine: Engine, sleeper: str) -> None:
        done = engine.docker("kill", "-s", "SIGNONSENSE", sleeper, check=1)
        assert "nvalid signal: SIGNONSENSE" in done.stderr

    def test_kill_of_a_stopped_one_is_a_conflict(self, engine: Engine) -> None:
        engine.docker("run", "--name", "ended", "busybox", "true", check=0)
        done = engine.docker("kill", "ended", check=1)
        assert "is not running" in done.stderr
        engine.out("rm", "ended")

    @pytest.mark.parametrize(("signal", "after"), [("KILL", "exited"), ("WINCH", "running")])
    def test_kill_thaws_a_paused_container(self, engine: Engine, sleeper: str, signal: str, after: str) -> None:
        engine.docker("pause", sleeper, check=0)
        engine.docker("kill", "--signal", signal, sleeper, check=0)
        until(lambda: state(engine, sleeper) == after, f"the state {after}")

    def test_pause_and_unpause(self, engine: Engine, sleeper: str) -> None:
        engine.docker("pause", sleeper, check=0)
        assert state(engine, sleeper) == "paused"
        assert "(Paused)" in engine.out("ps", "--format", "{{.Status}}", "--filter", "name=sleeper")
        assert "is already paused" in engine.docker("pause", sleeper, check=1).stderr
        done = engine.docker("exec", sleeper, "true", check=1)
        assert "is paused" in done.stderr
        engine.docker("unpause", sleeper, check=0)
        assert state(engine, sleeper) == "running"
        assert "is not paused" in engine.docker("unpause", sleeper, check=1).stderr

    def test_restart_gives_a_new_process(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "again", *OBEDIENT)
        listens(engine, "again")
        first = engine.out("inspect", "--format", "{{.State.Pid}} {{.State.StartedAt}}", "again")
        engine.docker("restart", "again", check=0)
        assert engine.out("inspect", "--format", "{{.State.Pid}} {{.State.StartedAt}}", "again") != first
        assert state(engine, "again") == "running"
        engine.out("rm", "-f", "again")

    def test_files_survive_a_restart(self, engine: Engine) -> None:
        engine.docker("run", "--name", "kept", "busybox", "sh", "-c", "cat /x 2>/dev/null; echo again > /x", check=0)
        assert engine.out("start", "-a", "kept") == "again"
        engine.out("rm", "kept")

    def test_rename(self, engine: Engine, sleeper: str) -> None:
        engine.docker("rename", "sleeper", "renamed", check=0)
        assert engine.out("inspect", "--format", "{{.Name}}", sleeper) == "/renamed"
        engine.docker("inspect", "--type", "container", "sleeper", check=1)
        assert "already in use" not in engine.docker("rename", "renamed", "sleeper", check=0).stderr

    def test_wait_prints_the_code(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "waited", "busybox", "sh", "-c", "sleep 0.3; exit 9")
        assert engine.out("wait", "waited") == "9"
        assert engine.out("wait", "waited") == "9"
        engine.out("rm", "waited")


class TestRemoval:
    def test_running_one_needs_force(self, engine: Engine, sleeper: str) -> None:
        done = engine.docker("rm", sleeper, check=1)
        assert "cannot remove" in done.stderr.lower()
        assert "running" in done.stderr
        engine.docker("rm", "-f", sleeper, check=0)
        assert engine.out("ps", "-aq", "--filter", f"id={sleeper}") == ""

    def test_unknown_one(self, engine: Engine) -> None:
        done = engine.docker("rm", "nobody-here", check=1)
        assert "No such container: nobody-here" in done.stderr
        engine.docker("rm", "-f", "nobody-here")

    def test_v_takes_anonymous_volumes_along(self, engine: Engine) -> None:
        before = set(engine.out("volume", "ls", "-q").split())
        engine.docker("run", "--name", "holder", "-v", "/data", "busybox", "true", check=0)
        assert len(set(engine.out("volume", "ls", "-q").split()) - before) == 1
        engine.out("rm", "-v", "holder")
        assert set(engine.out("volume", "ls", "-q").split()) == before


class TestNames:
    def test_name_in_use(self, engine: Engine, sleeper: str) -> None:
        done = engine.docker("create", "--name", "sleeper", *SLEEP, check=1)
        assert f'Conflict. The container name "/sleeper" is already in use by container "{sleeper}".' in done.stderr
        assert "You have to remove (or rename) that container to be able to reuse that name." in done.stderr

    @pytest.mark.parametrize("bad", ["a", "-leading", "has space", "a/b", "é"])
    def test_bad_name(self, engine: Engine, bad: str) -> None:
        done = engine.docker("create", f"--name={bad}", *SLEEP, check=1)
        assert "Invalid container name" in done.stderr
        assert "[a-zA-Z0-9][a-zA-Z0-9_.-]" in done.stderr

    def test_made_up_name(self, engine: Engine) -> None:
        identifier = engine.out("create", *SLEEP)
        assert re.fullmatch("/[a-z]+_[a-z]+", engine.out("inspect", "--format", "{{.Name}}", identifier))
        engine.out("rm", identifier)

    def test_found_by_prefix(self, engine: Engine, sleeper: str) -> None:
        assert engine.out("inspect", "--format", "{{.Id}}", sleeper[:8]) == sleeper
        assert engine.out("inspect", "--format", "{{.Id}}", "sleeper") == sleeper

    def test_ambiguous_prefix_is_refused(self, engine: Engine) -> None:
        made = [engine.out("create", *SLEEP) for _ in range(17)]
        firsts = [identifier[0] for identifier in made]
        shared = next(first for first in firsts if firsts.count(first) > 1)
        done = engine.docker("stop", shared, check=1)
        assert re.search("multiple IDs found|[Mm]ultiple", done.stderr)
        engine.docker("rm", *made, check=0)


class TestRestartPolicy:
    def test_on_failure_stops_at_its_bound(self, engine: Engine) -> None:
        engine.out(
            "run", "-d", "--name", "fails", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo try; exit 1"
        )
        until(
            lambda: engine.out("inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "fails") == "exited 2",
            "the end",
        )
        assert engine.out("logs", "fails").split() == ["try"] * 3
        engine.out("rm", "fails")

    def test_always_starts_again_until_stopped(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c", "sleep 0.1")
        until(lambda: int(engine.out("inspect", "--format", "{{.RestartCount}}", "always")) >= 2, "two restarts")
        engine.docker("stop", "always", check=0)
        assert state(engine, "always") == "exited"
        engine.out("rm", "always")

    @pytest.mark.parametrize("bad", ["sometimes", "on-failure:x", "always:3", "on-failure:-1"])
    def test_bad_policy_is_refused(self, engine: Engine, bad: str) -> None:
        engine.docker(
            "create", "--restart", bad, *SLEEP, check=1 if bad in {"sometimes", "always:3", "on-failure:-1"} else None
        )
        assert engine.out("ps", "-aq") == ""

    def test_rm_with_restart_is_refused(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "--restart", "always", "busybox", "true", check=125)
        assert "onflicting options" in done.stderr


class TestTopAndPort:
    def test_top(self, engine: Engine, sleeper: str) -> None:
        lines = engine.out("top", sleeper).splitlines()
        assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        assert lines[1].endswith("sleep 1000")
        assert engine.out("top", sleeper, "-o", "pid,comm").splitlines()[0].split() == ["PID", "COMMAND"]

    def test_top_of_a_stopped_one(self, engine: Engine) -> None:
        engine.out("create", "--name", "never", *SLEEP)
        assert "is not running" in engine.docker("top", "never", check=1).stderr
        engine.out("rm", "never")

    def test_port(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "ported", "-p", "127.0.0.1:18080:80", "-p", "18081:81/udp", *SLEEP)
        assert engine.out("port", "ported", "80") == "127.0.0.1:18080"
        lines = set(engine.out("port", "ported").splitlines())
        assert {"80/tcp -> 127.0.0.1:18080", "81/udp -> 0.0.0.0:18081"} <= lines
        assert "No public port '99" in engine.docker("port", "ported", "99", check=1).stderr
        engine.out("rm", "-f", "ported")


class TestInspect:
    def test_what_was_asked_for_comes_back(self, engine: Engine) -> None:
        engine.out(
            *("create", "--name", "shown", "-e", "A=1", "-l", "k=v", "-w", "/w", "--hostname", "h", "--memory", "64m"),
            *("--restart", "on-failure:3", "--cap-add", "NET_ADMIN", "-p", "18082:80", "--stop-signal", "INT", *SLEEP),
        )
        (shown,) = json.loads(engine.out("inspect", "shown"))
        config, host = shown["Config"], shown["HostConfig"]
        assert config["Env"][0] == "A=1"
        assert config["Labels"] == {"k": "v"}
        assert (config["WorkingDir"], config["Hostname"], config["StopSignal"]) == ("/w", "h", "INT")
        assert (config["Cmd"], config["Image"]) == (["sleep", "1000"], "busybox")
        assert (shown["Path"], shown["Args"]) == ("sleep", ["1000"])
        assert host["Memory"] == 64 << 20
        assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
        assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "18082"}]}
        assert host["CapAdd"] in (["NET_ADMIN"], ["CAP_NET_ADMIN"])
        assert shown["State"]["Status"] == "created"
        assert shown["Image"].startswith("sha256:")
        assert shown["State"]["StartedAt"] == "0001-01-01T00:00:00Z"
        engine.out("rm", "shown")

    def test_size(self, engine: Engine) -> None:
        engine.docker("run", "--name", "sized", "busybox", "dd", "if=/dev/zero", "of=/f", "bs=1000", "count=5", check=0)
        (shown,) = json.loads(engine.out("inspect", "--size", "sized"))
        assert shown["SizeRw"] >= 5000
        assert shown["SizeRootFs"] > shown["SizeRw"]
        engine.out("rm", "sized")


class TestPs:
    def test_columns(self, engine: Engine, sleeper: str) -> None:
        header, row = engine.out("ps").splitlines()
        assert header.split("  ")[0] == "CONTAINER ID"
        assert row.startswith(sleeper[:12])
        assert '"sleep 1000"' in row
        assert re.search(r"Up (Less than a second|\d+ seconds?)", row)
        assert row.endswith("sleeper")

    def test_filters_and_forms(self, engine: Engine, sleeper: str) -> None:
        engine.docker("run", "--name", "ended", "-l", "tier=db", "busybox", "sh", "-c", "exit 4", check=4)
        assert engine.out("ps", "-q", "--no-trunc") == sleeper
        names = ("--format", "{{.Names}}")
        assert set(engine.out("ps", "-a", *names).split()) == {"sleeper", "ended"}
        assert engine.out("ps", "-l", *names) == "ended"
        assert engine.out("ps", "-n", "1", *names) == "ended"
        for key, value, found in [
            ("status", "running", "sleeper"),
            ("status", "exited", "ended"),
            ("exited", "4", "ended"),
            ("label", "tier", "ended"),
            ("label", "tier=db", "ended"),
            ("name", "leep", "sleeper"),
            ("id", sleeper[:10], "sleeper"),
            ("before", "ended", "sleeper"),
            ("since", "sleeper", "ended"),
        ]:
            assert engine.out("ps", "-a", "--filter", f"{key}={value}", *names) == found, key
        assert set(engine.out("ps", "-a", "--filter", "ancestor=busybox", *names).split()) == {"sleeper", "ended"}
        assert re.fullmatch(
            r"Exited \(4\) .*ago", engine.out("ps", "-a", "--filter", "name=ended", "--format", "{{.Status}}")
        )
        as_json = json.loads(engine.out("ps", "--format", "json"))
        assert (as_json["Names"], as_json["State"], as_json["Image"]) == ("sleeper", "running", "busybox")
        engine.out("rm", "ended")

    def test_images_made_from_an_ancestor(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_text("FROM committed\nENV ONE=1\nRUN touch /made\n")
        engine.out("run", "--name", "first", "busybox", "touch", "/changed")
        engine.out("commit", "first", "committed")
        build = {**engine.env, "DOCKER_BUILDKIT": "0"}
        subprocess.run(["docker", "build", "-qt", "built", tmp_path], env=build, check=True, capture_output=True)
        engine.out("create", "--name", "second", "committed")
        engine.out("create", "--name", "third", "built")
        names = ("--format", "{{.Names}}")
        for image, found in (
            ("busybox", {"first", "second", "third"}),
            ("committed", {"second", "third"}),
            ("built", {"third"}),
            ("nowhere", set()),
        ):
            assert set(engine.out("ps", "-a", "--filter", f"ancestor={image}", *names).split()) == found, image
        engine.out("rm", "first", "second", "third")
        engine.out("rmi", "built", "committed")

    def test_a_template_is_checked_without_rows(self, engine: Engine) -> None:
        for client in (engine.docker, engine.havre):
            for form in ("{{.Foo}}", "table {{.Names}} {{.Foo}}"):
                failed = client("ps", "-a", "--filter", "name=nobody", "--format", form, check=1).stderr
                assert "at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext" in failed
            assert client("ps", "--filter", "name=nobody", "--format", '{{.Label "x"}}{{json .}}', check=0).stdout == ""

    @pytest.mark.parametrize("listing", ["images", "volume ls", "network ls"])
    def test_so_is_that_of_every_listing(self, havred: Engine, listing: str) -> None:
        nothing = (*listing.split(), "--filter", "label=nobody", "--format")
        assert "can't evaluate field Foo" in havred.havre(*nothing, "{{.Foo}}", check=1).stderr
        assert havred.havre(*nothing, "{{.Driver}}{{json .}}" if "ls" in listing else "{{.ID}}", check=0).stdout == ""

    def test_bad_filter(self, engine: Engine) -> None:
        assert "invalid filter 'nonsense'" in engine.docker("ps", "--filter", "nonsense=1", check=1).stderr
        engine.docker("ps", "--filter", "status=flying", check=1)

    def test_size_column(self, engine: Engine, sleeper: str) -> None:
        assert "virtual" in engine.out("ps", "-s")
