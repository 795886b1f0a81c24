"""Logs, attach and exec, with and without a terminal."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.engines import Engine
from support.raw import ask, streaming
from support.terminals import Terminal
from support.waiting import until

ECHO = ("busybox", "sh", "-c", 'while read line; do echo "got $line"; done; echo end')


@pytest.fixture
def sleeper(engine: Engine) -> Iterator[str]:
    """The name of a running container."""
    engine.out("run", "-d", "--name", "sleeper", "-e", "INHERITED=1", "busybox", "sleep", "1000")
    yield "sleeper"
    engine.docker("rm", "-f", "sleeper")


class TestLogs:
    @pytest.fixture
    def talker(self, engine: Engine) -> Iterator[str]:
        script = "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; printf unfinished"
        engine.docker("run", "--name", "talker", "busybox", "sh", "-c", script, check=0)
        yield "talker"
        engine.docker("rm", "-f", "talker")

    def test_both_streams(self, engine: Engine, talker: str) -> None:
        done = engine.docker("logs", talker, check=0)
        assert done.stdout == "line 1\nline 2\nline 3\nline 4\nline 5\nunfinished"
        assert done.stderr == "oops\n"

    def test_tail(self, engine: Engine, talker: str) -> None:
        done = engine.docker("logs", "--tail", "2", talker, check=0)
        assert (done.stdout + done.stderr).count("\n") == 1
        assert engine.docker("logs", "--tail", "0", talker, check=0).stdout == ""

    def test_timestamps_since_until(self, engine: Engine, talker: str) -> None:
        lines = engine.docker("logs", "-t", talker, check=0).stdout.splitlines()
        stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
        assert all(re.match(rf"{stamp} (line|unfin)", line) for line in lines)
        assert engine.docker("logs", "--since", "2001-01-01T00:00:00Z", talker, check=0).stdout.count("line") == 5
        assert engine.docker("logs", "--until", "2001-01-01T00:00:00Z", talker, check=0).stdout == ""
        assert engine.docker("logs", "--since", "1h", talker, check=0).stdout.count("line") == 5

    def test_who_asks_at_once_is_told_what_a_short_container_writes(self, havred: Engine) -> None:
        create = ("create", "--name", "brief", "busybox", "sh", "-c", "usleep 30000; echo late; echo later")
        for _ in range(5):
            havred.out(*create)
            ask(havred.socket, "POST", "/containers/brief/start")
            assert ask(havred.socket, "GET", "/containers/brief/logs?stdout=1").body.endswith(b"later\n")
            havred.out("rm", "brief")

    def test_who_asks_at_once_does_not_wait_for_one_that_goes_on(self, havred: Engine) -> None:
        havred.out("run", "-d", "--name", "silent", "busybox", "sleep", "1000")
        assert havred.docker("logs", "silent", check=0, timeout_s=10).stdout == ""
        havred.out("rm", "-f", "silent")

    def test_follow_ends_with_the_container(self, engine: Engine) -> None:
        engine.out(
            "run", "-d", "--name", "counts", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"
        )
        assert engine.out("logs", "-f", "counts") == "1\n2\n3"
        engine.out("rm", "counts")

    def test_long_line_is_whole(self, engine: Engine) -> None:
        engine.docker(
            "run", "--name", "long", "busybox", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo", check=0
        )
        assert engine.docker("logs", "long", check=0).stdout == "x" * 100_000 + "\n"
        engine.out("rm", "long")


class TestAttach:
    def test_output_and_code(self, engine: Engine) -> None:
        engine.out("create", "--name", "late", "busybox", "sh", "-c", "echo out; echo err >&2; exit 6")
        done = engine.docker("start", "-a", "late", check=6)
        assert (done.stdout, done.stderr) == ("out\n", "err\n")
        engine.out("rm", "late")

    def test_stdin(self, engine: Engine) -> None:
        engine.out("create", "-i", "--name", "echo", *ECHO)
        done = engine.docker("start", "-ai", "echo", stdin="a\nb\n", check=0)
        assert done.stdout == "got a\ngot b\nend\n"
        engine.out("rm", "echo")

    def test_to_a_stopped_one_is_refused(self, engine: Engine) -> None:
        engine.docker("run", "--name", "ended", "busybox", "true", check=0)
        assert "You cannot attach to a stopped container" in engine.docker("attach", "ended", check=1).stderr
        engine.out("rm", "ended")

    def test_two_clients_see_the_same(self, engine: Engine) -> None:
        engine.out("run", "-di", "--name", "shared", *ECHO)
        clients = [
            subprocess.Popen(
                ["docker", "attach", "shared"], env=engine.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            for _ in range(2)
        ]
        first, second = clients
        assert first.stdin is not None
        assert first.stdout is not None
        assert second.stdin is not None
        assert second.stdout is not None
        # Each client is heard by the other, once both are attached.
        second.stdin.write(b"one\n")
        assert second.stdout.readline() == b"got one\n"
        first.stdin.write(b"two\n")
        assert second.stdout.readline() == b"got two\n"
        engine.out("rm", "-f", "shared")
        for client in clients:
            client.communicate(timeout=15)


class TestExec:
    def test_output_code_and_environment(self, engine: Engine, sleeper: str) -> None:
        done = engine.docker("exec", sleeper, "sh", "-c", "echo out; echo err >&2; exit 3", check=3)
        assert (done.stdout, done.stderr) == ("out\n", "err\n")
        assert engine.out("exec", "-e", "X=1", sleeper, "sh", "-c", "echo $X$INHERITED") == "11"

    def test_stdin(self, engine: Engine, sleeper: str) -> None:
        assert engine.out("exec", "-i", sleeper, "cat", stdin="typed") == "typed"

    def test_user_and_workdir(self, engine: Engine, sleeper: str) -> None:
        assert (
            engine.out("exec", "-u", "1:2", "-w", "/tmp", sleeper, "sh", "-c", "echo $(id -u):$(id -g) $(pwd)")
            == "1:2 /tmp"
        )
        assert engine.out("exec", "-u", "nobody", sleeper, "id", "-u") == "65534"

    def test_detached(self, engine: Engine, sleeper: str) -> None:
        engine.out("exec", "-d", sleeper, "sh", "-c", "echo done > /made")
        until(lambda: engine.docker("exec", sleeper, "cat", "/made").stdout == "done\n", "the detached command")

    def test_missing_and_forbidden_commands(self, engine: Engine, sleeper: str) -> None:
        done = engine.docker("exec", sleeper, "nothing")
        assert done.returncode in {126, 127}
        assert "executable file not found in $PATH" in done.stdout + done.stderr
        engine.docker("exec", sleeper, "/etc/passwd", check=126)

    def test_in_a_stopped_one(self, engine: Engine) -> None:
        engine.out("create", "--name", "never", "busybox", "true")
        assert "is not running" in engine.docker("exec", "never", "true", check=1).stderr
        engine.out("rm", "never")

    def test_capabilities_are_the_containers(self, engine: Engine, sleeper: str) -> None:
        shown = engine.out("exec", sleeper, "grep", "-E", "Cap(Eff|Inh)|Seccomp:", "/proc/self/status").split()
        assert shown == ["CapInh:", "0000000000000000", "CapEff:", "00000000a80425fb", "Seccomp:", "2"]
        assert engine.out("exec", "-u", "1", sleeper, "grep", "CapEff", "/proc/self/status").endswith(
            "0000000000000000"
        )


class TestTerminal:
    def test_run_it(self, engine: Engine) -> None:
        command = ["docker", "run", "-it", "--rm", "busybox", "sh"]
        with Terminal(command, engine.env, rows=33, columns=101) as terminal:
            terminal.expect("/ #")
            terminal.type("tty; stty size\n")
            assert "/dev/pts/0" in terminal.expect("33 101")
            terminal.type("exit 5\n")
            assert terminal.end()[0] == 5

    def test_resize(self, engine: Engine) -> None:
        with Terminal(["docker", "run", "-it", "--rm", "busybox", "sh"], engine.env) as terminal:
            terminal.expect("/ #")
            terminal.type("until [ \"$(stty size)\" = '44 120' ]; do sleep 0.1; done; echo re''sized\n")

            def resized() -> bool:
                # The client may not have begun to watch its terminal: change the size until it has.
                terminal.resize(43, 120)
                terminal.resize(44, 120)
                return terminal.shows("resized", 0.2)

            until(resized, "the new size inside")
            terminal.type("exit\n")
            terminal.end()

    def test_exec_it(self, engine: Engine, sleeper: str) -> None:
        with Terminal(["docker", "exec", "-it", sleeper, "sh"], engine.env, rows=30, columns=90) as terminal:
            terminal.expect("/ #")
            terminal.type("until [ \"$(stty size)\" = '30 90' ]; do sleep 0.1; done; echo si''zed; exit 4\n")
            terminal.expect("sized")
            assert terminal.end()[0] == 4

    def test_detach_keys(self, engine: Engine) -> None:
        engine.out("run", "-dit", "--name", "shell", "busybox", "sh")
        with Terminal(["docker", "attach", "shell"], engine.env) as terminal:
            terminal.type("echo he''re\n")
            terminal.expect("here")
            terminal.type("\x10\x11")
            terminal.end()
        assert engine.out("inspect", "--format", "{{.State.Status}}", "shell") == "running"
        with Terminal(["docker", "attach", "--detach-keys", "ctrl-x", "shell"], engine.env) as terminal:
            terminal.type("echo ag''ain\n")
            terminal.expect("again")
            terminal.type("\x18")
            terminal.end()
        engine.out("rm", "-f", "shell")

    def test_interrupt_reaches_the_program(self, engine: Engine) -> None:
        script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done"
        with Terminal(["docker", "run", "-it", "--rm", "busybox", "sh", "-c", script], engine.env) as terminal:
            terminal.expect("ready")
            terminal.type("\x03")
            terminal.expect("caught")
            assert terminal.end()[0] == 3


def test_detach_keys_seen_by_the_daemon_are_told_as_an_event(engine: Engine) -> None:
    """docker's command line looks for the keys itself; a client that does not leaves them to the daemon."""
    begun = engine.out("info", "--format", "{{.SystemTime}}")
    identifier = engine.out("run", "-dit", "--name", "leaving", "busybox", "cat")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(engine.socket))
        target = f"/containers/{identifier}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x"
        client.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n".encode())
        assert b"101 UPGRADED" in client.recv(4096)
        client.sendall(b"\x18")
        while client.recv(4096):
            pass
    window = ("--since", begun, "--until", engine.out("info", "--format", "{{.SystemTime}}"))
    told = engine.out("events", *window, "--filter", "container=leaving", "--format", "{{.Action}}").splitlines()
    assert [action for action in told if action.endswith("tach")] == ["attach", "detach"]
    assert engine.out("inspect", "--format", "{{.State.Status}}", "leaving") == "running"
    engine.docker("rm", "-f", "leaving", check=0)


@pytest.mark.parametrize(
    "end",
    [
        "POST /containers/brief/attach?stream=1&stdout=1&stderr=1",
        "POST /containers/brief/attach?stream=1",
        "GET /containers/brief/logs?follow=1&stdout=1",
        "POST /containers/brief/wait",
    ],
)
def test_who_has_seen_the_end_finds_a_container_that_has_ended(havred: Engine, end: str) -> None:
    """Its state tells the exit code, and no network counts it any more. dockerd promises as much of `wait` alone."""
    create = ("create", "--name", "brief", "--network", "briefly", "busybox", "sh", "-c", "while :; do sleep 1; done")
    with ThreadPoolExecutor() as threads:
        for _ in range(4):
            havred.out("network", "create", "briefly")
            havred.out(*create)
            ask(havred.socket, "POST", "/containers/brief/start")
            with streaming(havred.socket, *end.split()) as stream:
                killing = threads.submit(ask, havred.socket, "POST", "/containers/brief/kill")
                stream.read()
                state = ask(havred.socket, "GET", "/containers/brief/json").json["State"]
                assert ask(havred.socket, "DELETE", "/networks/briefly").status == 204
            assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 137)
            assert killing.result().status == 204
            havred.out("rm", "brief")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_client_attached_to_a_start_that_fails_is_let_go(havred: Engine, runtime: str) -> None:
    havred.docker("run", "--rm", "--runtime", runtime, "busybox", "/nothing", check=127)
