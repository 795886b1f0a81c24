"""The program as a user starts it: help, refusals, configuration, and what it imports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from havre.cli.complete import man_page, program_page
from havre.cli.tree import GROUPS, TOP, aliases, commands

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "cli"
START = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); from havre.cli import main; main.main()"

# What listing containers may load, besides the interpreter's own start and havre's modules: C modules, and __future__.
ALLOWED = {"__future__", "_json", "_socket", "binascii", "time"}


def havre(
    *words: str, directory: Path, host: str = "unix:///no/such", code: str = START
) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(directory), "PATH": os.environ["PATH"], "DOCKER_HOST": host, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *words],
        env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["", "run", "ps", "container", "network create", "context create", "cp", "volume rm"])
def test_help_is_as_recorded(name: str, tmp_path: Path) -> None:
    done = havre(*name.split(), "--help", directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    golden = GOLDEN / f"{name.replace(' ', '-') or 'havre'}.txt"
    assert done.stdout == golden.read_text(), f"help of {name!r} changed; write it to {golden} if that is meant"


def test_every_noun_can_be_listed_inspected_removed_and_pruned() -> None:
    for group in set(GROUPS) - {
        "builder",
        "buildx",
        "system",
        "context",
        "manifest",
        "registry",
        "compose",
        "checkpoint",
    }:
        names = {name for command in commands(group) for name in command.names}
        assert {"ls", "inspect", "rm", "prune"} <= names


def test_every_command_can_be_loaded_and_documented() -> None:
    for group in (*GROUPS, "top"):
        for command in commands(group):
            assert callable(command.function())
            assert len({flag.long for flag in command.flags}) == len(command.flags)
            shorts = [flag.short for flag in command.flags if flag.short]
            assert len(set(shorts)) == len(shorts)
            for path in aliases(group, command):
                assert ".SH NAME" in man_page(path, command)
            assert not command.top or command.top in TOP


def test_the_programs_page_names_every_command() -> None:
    page = program_page().replace("\\-", "-")
    for group in (*GROUPS, "top"):
        for command in commands(group):
            path = command.names[0] if group == "top" else f"{group} {command.names[0]}"
            assert (f".B havre {path}\n" in page) is not command.hidden


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nonsense"], 1, "havre: 'nonsense' is not a havre command.\nSee 'havre --help'\n"),
        (["imges"], 1, "havre: 'imges' is not a havre command (did you mean images?).\nSee 'havre --help'\n"),
        (["run", "--nam", "x"], 125, "unknown flag: --nam (did you mean --name?)\nSee 'havre run --help'.\n"),
        (["ps", "--foo"], 125, "unknown flag: --foo\nSee 'havre ps --help'.\n"),
        (["ps"], 1, "Cannot connect to the daemon at unix:///no/such. Is it running?\n"),
        (["run", "x"], 125, "havre: Cannot connect to the daemon at unix:///no/such. Is it running?\nSee 'havre run"),
        (["swarm", "init"], 1, "havre: 'swarm' is not a havre command: havre has no swarm yet; `havre compose` runs"),
        (["scan", "x"], 1, "havre: 'scan' is not a havre command: havre does not scan for vulnerabilities yet"),
        (["plugin", "ls"], 1, "havre: 'plugin' is not a havre command: plugins are found by their files in"),
        (["-H", "a", "-H", "b", "ps"], 1, "specify only one -H\n"),
        (["-c", "zz", "ps"], 1, 'Failed to initialize: unable to resolve docker endpoint: context "zz": '),
        (["run", "--memory", "zz", "x"], 125, "invalid argument \"zz\" for \"-m, --memory\" flag: invalid size: 'zz'"),
        (["run", "-p", "99999:1", "x"], 125, "havre: Invalid hostPort: 99999.\nSee 'havre run --help'.\n"),
        (["run", "-it", "x"], 1, "the input device is not a TTY\n"),
        (["rm"], 1, '"havre rm" requires at least 1 argument.\nSee \'havre rm --help\'.\n'),
        (["container", "nonsense"], 1, "\nUsage:  havre container COMMAND"),
    ],
)  # fmt: skip
def test_refusals(words: list[str], code: int, text: str, tmp_path: Path) -> None:
    done = havre(*words, directory=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(text)
    assert done.stdout == ""


def test_a_groups_unknown_command_is_named_below_its_help(tmp_path: Path) -> None:
    done = havre("network", "crate", directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("\nhavre: 'network crate' is not a havre command (did you mean create?).\n")


class Daemon:
    """Answers one connection's requests in turn."""

    def __init__(self, path: Path, answers: list[tuple[str, object]]) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.requests: list[str] = []
        self.thread = threading.Thread(target=self.serve, args=(answers,))
        self.thread.start()

    def serve(self, answers: list[tuple[str, object]]) -> None:
        connection, _ = self.listener.accept()
        with connection, self.listener:
            for headers, value in answers:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                self.requests.append(data.split(b"\r\n")[0].decode())
                body = b"" if value is None else json.dumps(value).encode()
                connection.sendall(f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)


CONTAINER = {
    "Id": "0123456789abcdef", "Names": ["/web"], "Image": "busybox", "ImageID": "sha256:1", "Command": "sh",
    "Created": 1,
    "Ports": [], "Labels": {}, "State": "running", "Status": "Up", "Mounts": [], "NetworkSettings": {"Networks": {}},
}  # fmt: skip


def test_ps_imports_next_to_nothing_and_asks_but_once(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "s", [("", [CONTAINER])])
    code = (
        "import sys; before = set(sys.modules); import posix\n"
        f"sys.path.insert(0, {str(ROOT / 'src')!r}); from havre.cli import main\n"
        "leave = posix._exit\n"
        "def show(code):\n"
        "    print(*(set(sys.modules) - before), file=sys.stderr, flush=True)\n"
        "    leave(code)\n"
        "posix._exit = show\n"
        "main.main()"
    )
    done = havre("ps", directory=tmp_path, host=f"unix://{tmp_path}/s", code=code)
    daemon.thread.join()
    assert done.returncode == 0
    assert '0123456789ab   busybox   "sh"' in done.stdout
    foreign = {name for name in done.stderr.split() if name.partition(".")[0] != "havre"}
    assert foreign <= ALLOWED
    assert daemon.requests == ["GET /v1.45/containers/json HTTP/1.1"]


def test_the_config_file_s_format_is_used(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"psFormat": "table {{.Names}}"}')
    daemon = Daemon(tmp_path / "s", [("", [CONTAINER])])
    done = havre("ps", directory=tmp_path, host=f"unix://{tmp_path}/s")
    daemon.thread.join()
    assert done.stdout == "NAMES\nweb\n"


def test_contexts_are_kept_in_docker_s_files(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = havre(*words, directory=tmp_path, host="")
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("context", "create", "far", "--description", "over there", "--docker", "host=tcp://1.2.3.4:5")
    (meta,) = (tmp_path / ".docker" / "contexts" / "meta").glob("*/meta.json")
    assert json.loads(meta.read_text()) == {
        "Name": "far",
        "Metadata": {"Description": "over there"},
        "Endpoints": {"docker": {"Host": "tcp://1.2.3.4:5", "SkipTLSVerify": False}},
    }
    run("context", "use", "far")
    assert json.loads((tmp_path / ".docker" / "config.json").read_text()) == {"currentContext": "far"}
    assert run("context", "show") == "far\n"
    assert run("context", "ls", "--format", "{{.Name}} {{.Current}}") == "default false\nfar true\n"
    run("context", "export", "far", str(tmp_path / "far.tar"))
    run("context", "use", "default")
    run("context", "rm", "far")
    run("context", "import", "near", str(tmp_path / "far.tar"))
    assert run("context", "inspect", "near", "--format", "{{.Endpoints.docker.Host}}") == "tcp://1.2.3.4:5\n"


def test_the_daemon_gets_its_words_untouched(tmp_path: Path) -> None:
    program = tmp_path / "havred"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    code = START.replace("main.main()", f"sys.argv[0] = {str(tmp_path / 'havre')!r}; main.main()")
    done = havre("daemon", "-H", "unix:///x", "--help", directory=tmp_path, code=code)
    assert (done.returncode, done.stdout) == (0, "-H unix:///x --help\n")


def test_completion_offers_commands_flags_and_names(tmp_path: Path) -> None:
    def complete(*words: str, host: str = "") -> list[str]:
        done = havre("__complete", "--", *words, directory=tmp_path, host=host)
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    assert complete("conta") == ["container"]
    assert complete("container", "ren") == ["rename"]
    assert complete("run", "--publ") == ["--publish", "--publish-all"]
    daemon = Daemon(tmp_path / "s", [("", [CONTAINER])])
    assert complete("stop", "w", host=f"unix://{tmp_path}/s") == ["web"]
    daemon.thread.join()
