"""`-H ssh://`: the daemon of another host, reached by the command lines that are installed there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.engines import HAVRE, Engine

# ssh(1) without a network: it notes its arguments and runs the command line in a shell, as sshd does.
SSH = """#!/bin/sh
printf '%s\\n' "$*" >"${0%/*}/asked"
while [ "$1" != -- ]; do shift; done
shift 2
[ ! -f "${0%/*}/broken" ] || { echo "ssh: Could not resolve hostname nowhere" >&2; exit 255; }
PATH=${0%/*}/remote:/usr/bin:/bin exec sh -c "$*"
"""


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory of programs with an ssh; `remote` below it is what the other host has."""
    (tmp_path / "remote").mkdir()
    _program(tmp_path / "ssh", SSH)
    return tmp_path


def _program(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def _run(engine: Engine, local: Path, host: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**engine.env, "PATH": f"{local}:{os.environ['PATH']}"}
    return subprocess.run([HAVRE, "-H", host, *words], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("installed", ["havre", "docker"])
def test_the_remote_command_line_is_the_one_that_is_installed(havred: Engine, local: Path, installed: str) -> None:
    program = HAVRE if installed == "havre" else "/usr/bin/docker"
    _program(local / "remote" / installed, f'#!/bin/sh\necho "$0" >>{local}/used\nexec {program} "$@"\n')
    host = f"ssh://me@[::1]:2222{havred.socket}"
    done = _run(havred, local, host, "run", "--rm", "-i", "busybox", "echo", "far away")
    assert (done.stdout, done.stderr, done.returncode) == ("far away\n", "", 0)
    assert {Path(line).name for line in (local / "used").read_text().split()} == {installed}
    asked = (local / "asked").read_text()
    assert "-T -l me -p 2222 -- ::1 sh -c " in asked


def test_a_failure_shows_the_command_and_what_it_said(havred: Engine, local: Path) -> None:
    (local / "broken").touch()
    done = _run(havred, local, "ssh://nowhere", "ps")
    assert done.returncode == 1
    assert f"command [{local}/ssh -o ConnectTimeout=30 -T -- nowhere sh -c" in done.stderr
    assert "has exited with exit status 255" in done.stderr
    assert done.stderr.rstrip().endswith("stderr=ssh: Could not resolve hostname nowhere")


def test_a_remote_daemon_that_is_not_there(havred: Engine, local: Path) -> None:
    _program(local / "remote/havre", f'#!/bin/sh\nexec {HAVRE} "$@"\n')
    done = _run(havred, local, f"ssh://box{local}/none.sock", "ps")
    assert done.returncode == 1
    assert "has exited with exit status 1" in done.stderr
    assert f"unix://{local}/none.sock" in done.stderr
