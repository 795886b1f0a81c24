"""Details of containers that scripts have come to rely on, one small effect each; dockerd's own tests look for them."""

from __future__ import annotations

import json

import pytest

from support.engines import Engine
from support.raw import ask
from support.waiting import until

RUN = ("run", "--rm")
SLEEP = ("busybox", "sleep", "1000")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-v", "data:/d:rslave"), 'mount config for type "volume": field BindOptions must not be specified'),
        (("--network", "container"), "invalid container format container:<name|id>"),
        (("--name", "me", "--network", "container:me"), "cannot join own network"),
        (("--device", "/etc"), 'custom device "/etc": not a device node'),
    ],
)
def test_refused(engine: Engine, options: tuple[str, ...], words: str) -> None:
    assert words in engine.docker("run", *options, "busybox", "true", check=125).stderr
    engine.docker("rm", "me")


def test_environment(engine: Engine) -> None:
    assert engine.out(*RUN, "-e", "HOME=", "busybox", "sh", "-c", "echo $HOME") == "/root"
    engine.out("run", "-dt", "--name", "terminal", *SLEEP)
    shown = [
        engine.out("exec", *flags, "terminal", "sh", "-c", "echo ${TERM-none}") for flags in ((), ("-e", "TERM=x"))
    ]
    engine.docker("rm", "-f", "terminal", check=0)
    assert shown == ["none", "x"]


def test_a_hostname_with_a_domain(engine: Engine) -> None:
    assert "\ta.b.example a\n" in engine.out(*RUN, "-h", "a.b.example", "busybox", "cat", "/etc/hosts") + "\n"


def test_a_read_only_root_covers_the_files_of_the_engine(engine: Engine) -> None:
    script = "for f in hosts hostname resolv.conf; do echo x >> /etc/$f || echo refused; done"
    assert engine.out(*RUN, "--read-only", "busybox", "sh", "-c", script).split() == ["refused"] * 3
    assert engine.out(*RUN, "busybox", "sh", "-c", script) == ""


def test_nothing_declared_is_null(engine: Engine) -> None:
    engine.out("create", "--name", "plain", "-v", "data:/d", "busybox")
    config = json.loads(engine.out("inspect", "--format", "{{json .Config}}", "plain"))
    assert (config["Volumes"], config.get("ExposedPorts")) == (None, None)


def test_a_kill_is_seen_by_who_asks_next(engine: Engine) -> None:
    for number in range(5):
        engine.out("run", "-d", "--name", f"k{number}", *SLEEP)
        assert ask(engine.socket, "POST", f"/containers/k{number}/kill").status == 204
        assert ask(engine.socket, "GET", f"/containers/k{number}/json").json["State"]["Running"] is False


def test_a_kill_ends_restarts(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "again", "--restart", "always", "busybox", "false")
    until(lambda: engine.out("inspect", "-f", "{{.State.Restarting}}", "again") == "true", "a restart to come")
    assert engine.out("kill", "again") == "again"
    until(lambda: engine.out("inspect", "-f", "{{.State.Status}}", "again") == "exited", "no restart")


def test_an_exec_of_a_container_that_stopped_is_gone(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "short", *SLEEP)
    id = ask(engine.socket, "POST", "/containers/short/exec", {"Cmd": ["true"]}).json["Id"]
    engine.out("kill", "short")
    assert ask(engine.socket, "POST", f"/exec/{id}/start", {"Detach": True}).status == 404
    engine.out("start", "short")
    assert ask(engine.socket, "POST", f"/exec/{id}/start", {"Detach": True}).status == 404
    engine.docker("rm", "-f", "short", check=0)


def test_networks_are_joined_over_others(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "owner", "-h", "owner", *SLEEP)
    engine.out("run", "-d", "--name", "guest", "--network", "container:owner", *SLEEP)
    shown = engine.docker(*RUN, "--network", "container:guest", "busybox", "sh", "-c", "ip -4 -o a; hostname")
    address = engine.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "owner")
    engine.docker("rm", "-f", "owner", "guest", check=0)
    assert f" {address}/" in shown.stdout, shown.stderr


def test_ports_that_are_asked_for_come_before_free_ones(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "first", "-p", "80", *SLEEP)
    port = int(engine.out("inspect", "-f", '{{(index .NetworkSettings.Ports "80/tcp" 0).HostPort}}', "first"))
    done = engine.docker("run", "-d", "--name", "second", "-p", "80", "-p", f"{port + 1}:8080", *SLEEP)
    engine.docker("rm", "-f", "first", "second")
    assert done.returncode == 0, done.stderr


def test_volumes_of_others_are_not_filled(engine: Engine) -> None:
    engine.out("create", "--name", "owner", "-v", "/etc/empty", "busybox")
    engine.docker(
        "build", "-q", "-t", "full", "-", stdin="FROM busybox\nRUN mkdir /etc/empty && echo x > /etc/empty/x\n"
    )
    assert engine.out(*RUN, "--volumes-from", "owner", "full", "ls", "/etc/empty") == ""


def test_a_blank_image_is_refused(engine: Engine) -> None:
    assert "image name cannot be blank" in engine.docker("rmi", " ", check=1).stderr


def test_a_working_directory_is_shown_clean(engine: Engine) -> None:
    engine.out("create", "--name", "there", "-w", "/tmp//x/", "busybox")
    assert engine.out("inspect", "-f", "{{.Config.WorkingDir}}", "there") == "/tmp/x"


@pytest.mark.parametrize(
    ("version", "limit", "left"), [("1.45", 0, 0), ("1.45", -2, 0), ("1.45", 16, 16), ("1.24", 16, 32)]
)
def test_limits_on_processes_are_lifted(engine: Engine, version: str, limit: int, left: int) -> None:
    engine.out("run", "-d", "--name", "few", "--pids-limit", "32", *SLEEP)
    assert ask(engine.socket, "POST", f"/v{version}/containers/few/update", {"PidsLimit": limit}).status == 200
    shown = engine.out("inspect", "-f", "{{.HostConfig.PidsLimit}}", "few")
    kernel = engine.out("exec", "few", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max")
    engine.docker("rm", "-f", "few", check=0)
    assert (shown, kernel) == (str(left), str(left or "max"))


def test_a_stop_ends_restarts(engine: Engine) -> None:
    for number in range(5):
        engine.out("run", "-d", "--name", f"r{number}", "--restart", "always", "busybox", "false")
        engine.out("stop", f"r{number}")
        assert engine.out("inspect", "-f", "{{.State.Running}} {{.State.Restarting}}", f"r{number}") == "false false"


def test_a_stop_right_after_the_start_is_heard(havred: Engine) -> None:
    script = "sleep 0.3; trap 'echo told; exit 7' TERM; while :; do sleep 0.05; done"
    havred.out("run", "-d", "--name", "late", "busybox", "sh", "-c", script)
    havred.out("stop", "late")
    assert havred.out("logs", "late") == "told"
    assert havred.out("inspect", "-f", "{{.State.ExitCode}}", "late") == "7"


def test_an_exec_keeps_the_groups_that_were_added(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "grouped", "-u", "5:6", "--group-add", "50", "--group-add", "60", *SLEEP)
    for options, groups in (
        ([], "6 50 60"),
        (["-u", "1"], "1 50 60"),
        (["-u", "1:7"], "7 50 60"),
        (["-u", "root"], "0 50 60"),
    ):
        assert engine.out("exec", *options, "grouped", "id", "-G") == groups
    engine.out("rm", "-f", "grouped")


def test_an_exec_is_in_its_containers_cgroups(engine: Engine) -> None:
    """In each tree; on hybrid hosts the v2 tree, too, which crun is not shown when it creates."""
    engine.out("run", "-d", "--name", "grouped", "--cgroupns", "host", *SLEEP)
    first = engine.out("exec", "grouped", "cat", "/proc/1/cgroup").splitlines()
    assert first == engine.out("exec", "grouped", "cat", "/proc/self/cgroup").splitlines()
    id = engine.out("inspect", "-f", "{{.Id}}", "grouped")
    assert [line for line in first if line.startswith("0::") and not line.endswith(f"/{id}")] == []
    engine.out("rm", "-f", "grouped")
