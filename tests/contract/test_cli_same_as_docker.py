"""`havre` and docker's own command line print the same, byte for byte, when they speak to the same daemon.

What differs by design is left out of the comparison: the program's name, its version, and the wording of help.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Iterator

import pytest

from support.engines import HAVRE, Engine
from support.waiting import until

INSPECT_TEMPLATES = [
    "{{.ID}} {{.Name}}",
    "{{.Id}}",
    "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}",
    "{{json .Config}}",
    "{{json .HostConfig}}",
    "{{json .NetworkSettings}}",
    "{{json .Mounts}}",
    "{{.Config.Entrypoint}} {{.Config.Cmd}} {{.Args}} {{.Path}}",
    "{{.Config.Labels}} {{.Config.Env}} {{.Config.Volumes}}",
    "{{.HostConfig.RestartPolicy}} {{.HostConfig.Binds}} {{.HostConfig.PortBindings}}",
    "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}",
    '{{index .Config.Labels "org.example.my-key"}}',
    '{{join .Args ","}}|{{len .Args}}|{{upper .Name}}|{{split .Name "e"}}',
    '{{if eq .State.Status "running"}}up{{else}}down{{end}}',
    '{{printf "%.5s|%q|%v" .Id .Name .State.Running}}',
    "{{.State.Health}} {{.Config.Healthcheck}} {{.HostConfig.PidsLimit}}",
    "{{.Foo}}",
    "{{.State.Foo}}",
    "{{nope}}",
    "{{if .Id}}",
    "{{lt .Name 1}}",
    "{{index .Args 99}}",
]

PS_TEMPLATES = [
    "{{.ID}} {{.Names}} {{.Image}} {{.Command}} {{.State}}",
    'table {{.Names}}\\t{{.Label "org.example.my-key"}}\\t{{.State}}',
    "{{json .Names}}",
    "{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.Ports}}",
    "table {{upper .Names}}",
    "{{.Foo}}",
    "{{.ID",
]

COMMANDS = [
    ["ps", "--no-trunc"],
    ["ps", "-aq"],
    ["ps", "-a", "-f", "name=same"],
    ["ps", "-a", "-f", "name=same", "--format", "json"],
    ["ps", "-f", "foo=bar"],
    ["ps", "-f", "foo"],
    ["container", "ls", "-a", "--last", "1"],
    ["inspect", "same-web"],
    ["inspect", "--type", "container", "nope"],
    ["inspect", "nope"],
    ["inspect", "same-volume"],
    ["container", "inspect", "same-web", "nope"],
    ["image", "inspect", "busybox"],
    ["image", "inspect", "nope"],
    ["images"],
    ["images", "-q", "--no-trunc"],
    ["images", "--digests"],
    ["images", "--format", "json"],
    ["history", "busybox"],
    ["history", "--no-trunc", "-H=false", "busybox"],
    ["volume", "ls"],
    ["volume", "ls", "-q", "-f", "name=same"],
    ["volume", "inspect", "same-volume"],
    ["volume", "inspect", "nope"],
    ["network", "ls"],
    ["network", "ls", "--format", "json"],
    ["network", "inspect", "none"],
    ["network", "inspect", "nope"],
    ["logs", "same-dead"],
    ["logs", "nope"],
    ["port", "same-web"],
    ["port", "same-web", "80"],
    ["wait", "same-dead"],
    ["diff", "same-dead"],
    ["exec", "same-web", "sh", "-c", "echo out; echo err >&2; exit 3"],
    ["exec", "same-web", "no-such-program"],
    ["exec", "nope", "ls"],
    ["exec", "-t", "-i", "same-web", "sh"],
    ["run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"],
    ["run", "--rm", "--network", "none", "busybox", "no-such-program"],
    ["run", "--rm", "--network", "none", "busybox", "/etc"],
    ["run", "--rm", "--pull", "never", "no-such-image"],
    ["run", "--name", "same-web", "--network", "none", "busybox"],
    ["run", "--memory", "zz", "busybox"],
    ["run", "--restart", "foo", "busybox"],
    ["run", "-p", "99999:1", "busybox"],
    ["run", "--mount", "type=foo", "busybox"],
    ["run", "-it", "busybox"],
    ["run"],
    ["create", "--network", "none", "--name", "same-web", "busybox"],
    ["kill", "same-dead"],
    ["pause", "same-dead"],
    ["attach", "same-dead"],
    ["start", "-a", "same-dead"],
    ["rm", "nope"],
    ["rm", "same-web"],
    ["stop", "nope"],
    ["rename", "only-one"],
    ["rmi", "nope"],
    ["tag", "nope", "x"],
    ["tag", "busybox", "BB"],
    ["save", "nope"],
    ["pull", "BAD"],
    ["volume", "rm", "nope"],
    ["network", "rm", "nope"],
    ["events", "--since", "5", "--until", "4"],
    ["context", "ls"],
    ["context", "show"],
    ["cp", "a", "b"],
    ["ps", "--foo"],
    ["ps", "-X"],
    ["ps", "x"],
    ["stop", "-t", "x", "y"],
]


@pytest.fixture
def populated(engine: Engine) -> Iterator[Engine]:
    """An engine with a running container, a dead one and a volume."""
    for name in ("DOCKER_CONTEXT", "HAVRE_HOST"):
        assert name not in engine.env
    engine.out("volume", "create", "same-volume")
    engine.out(
        "run", "-d", "--name", "same-web", "--network", "none", "-v", "same-volume:/data", "-e", "A=b",
        "--label", "org.example.my-key=value", "busybox", "sleep", "1000",
    )  # fmt: skip
    engine.docker(
        "run", "--name", "same-dead", "--network", "none", "busybox", "sh", "-c", "echo 'a long line'; exit 3"
    )
    yield engine
    engine.docker("rm", "-f", "same-web", "same-dead")
    engine.docker("volume", "rm", "same-volume")


def as_havre(text: str) -> str:
    """Docker's words with our program's name."""
    for before, after in (("docker: ", "havre: "), ("See 'docker ", "See 'havre "), ('"docker ', '"havre '),
                          ("Usage:  docker", "Usage:  havre")):  # fmt: skip
        text = text.replace(before, after)
    return text


def difference(engine: Engine, words: list[str]) -> str:
    """How our output differs from docker's, "" when it does not; hints behind our errors are ours alone.

    Tables tell how many seconds ago things happened; so docker is asked before us and, where that differs, after us.
    """
    expected = by_docker(engine, words)
    ours = engine.havre(*words)
    got = (ours.returncode, ours.stdout, ours.stderr)
    unhinted = (*got[:2], re.sub(r" \([^()]*\)(?=\.?\n)", "", ours.stderr))
    ours_said = {in_order(words, told) for told in (got, unhinted)}
    if ours_said & {in_order(words, told) for told in (expected, by_docker(engine, words))}:
        return ""
    return f"{words}:\n  docker {expected}\n  havre  {got}"


def in_order(words: list[str], told: tuple[int, str, str]) -> tuple[int, str, str]:
    """An answer whose names of one image, which docker tells in the order of a Go map, are sorted."""
    code, out, errors = told
    return (code, "".join(sorted(out.splitlines(keepends=True))), errors) if words[0] == "images" else told


def by_docker(engine: Engine, words: list[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of docker's command, under our program's name."""
    theirs = engine.docker(*words)
    return theirs.returncode, as_havre(theirs.stdout), as_havre(theirs.stderr)


def test_commands_print_the_same(populated: Engine) -> None:
    differences = [text for words in COMMANDS if (text := difference(populated, words))]
    assert not differences, "\n".join(differences)


def test_templates_print_the_same(populated: Engine) -> None:
    commands = [["inspect", "--format", template, "same-web"] for template in INSPECT_TEMPLATES]
    commands += [["ps", "-a", "-f", "name=same", "--format", template] for template in PS_TEMPLATES]
    differences = [text for words in commands if (text := difference(populated, words))]
    assert not differences, "\n".join(differences)


def test_input_reaches_the_container_and_comes_back(populated: Engine) -> None:
    data = "x" * 300_000 + "\n"
    done = populated.havre("run", "-i", "--rm", "--network", "none", "busybox", "cat", stdin=data, check=0)
    assert done.stdout == data
    assert populated.havre("exec", "-i", "same-web", "cat", stdin=data, check=0).stdout == data


def test_archives_round_trip(populated: Engine, tmp_path: os.PathLike[str]) -> None:
    saved = os.path.join(tmp_path, "saved.tar")
    populated.havre("save", "-o", saved, "busybox", check=0)
    assert "busybox" in populated.havre("load", "-i", saved, check=0).stdout


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, engine: Engine, *words: str) -> None:
        self.output = b""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        self.descriptor = ours
        self.process = subprocess.Popen(
            [str(HAVRE), *words], env=engine.env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def read(self) -> None:
        """Take what there is to read."""
        while select.select([self.descriptor], [], [], 0.05)[0]:
            try:
                data = os.read(self.descriptor, 65536)
            except OSError:  # the other end is closed
                return
            self.output += data

    def expect(self, text: bytes) -> None:
        """Wait until the terminal has shown `text`, and forget it."""

        def shown() -> bool:
            self.read()
            return text in self.output

        until(shown, f"{text!r} on the terminal", 20)
        self.output = self.output.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.descriptor, text)

    def end(self) -> int:
        """The exit code."""
        code = self.process.wait(20)
        os.close(self.descriptor)
        return code


def test_a_terminal_has_our_size_and_the_exit_code_is_the_shell_s(populated: Engine) -> None:
    terminal = Terminal(populated, "exec", "-it", "same-web", "sh")
    terminal.expect(b"#")
    terminal.type(b"stty size; echo done\n")
    terminal.expect(b"33 77")
    terminal.type(b"exit 5\n")
    assert terminal.end() == 5


def test_detach_keys_leave_the_container_running(populated: Engine) -> None:
    terminal = Terminal(populated, "run", "-it", "--name", "same-tty", "--network", "none", "busybox", "sh")
    terminal.expect(b"#")
    terminal.type(b"\x10\x11")
    assert terminal.end() == 0
    assert populated.out("inspect", "-f", "{{.State.Running}}", "same-tty") == "true"
    terminal = Terminal(populated, "attach", "--detach-keys", "ctrl-a,b", "same-tty")
    terminal.expect(b"#")
    terminal.type(b"\x01b")
    terminal.expect(b"read escape sequence")
    assert terminal.end() == 1
    populated.out("rm", "-f", "same-tty")


def test_a_signal_is_passed_on(populated: Engine) -> None:
    process = subprocess.Popen(
        [str(HAVRE), "run", "--rm", "--network", "none", "busybox", "sh", "-c",
         "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done"],
        env=populated.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.stdout.read() == b"caught\n"
    assert process.wait(20) == 9
    process.stdout.close()
