"""What the shell is offered: containers in a state that the command is for, and the values of flags."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.engines import HAVRE, Engine


def offered(engine: Engine, *words: str) -> set[str]:
    return set(engine.havre("__complete", "--", *words, check=0).stdout.split())


def test_containers_by_their_states(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    engine.out("run", "-d", "--name", "waits", "busybox", "sleep", "1000")
    engine.out("pause", "waits")
    engine.out("create", "--name", "rests", "busybox")
    every = {"runs", "waits", "rests"}
    states = {
        "attach exec pause top": {"runs"},
        "kill stop": {"runs", "waits"},
        "start": {"rests"},
        "unpause": {"waits"},
        "commit diff export inspect logs port rename restart rm stats update wait": every,
        "create run ls prune": set[str](),
    }
    for commands, expected in states.items():
        for command in commands.split():
            assert offered(engine, "container", command, "") & every == expected, command
    assert offered(engine, "rm", "runs", "") & every == {"waits", "rests"}
    assert offered(engine, "run", "--network", "container:") == {"container:runs"}
    assert offered(engine, "run", "--volumes-from", "r") == {"runs", "rests"}
    engine.out("rm", "-f", *every)


def test_values_of_flags(engine: Engine) -> None:
    assert offered(engine, "run", "--restart", "") == {"always", "no", "on-failure", "unless-stopped"}
    assert offered(engine, "kill", "-s", "SIGT") == {"SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
    assert {"bridge", "host", "none"} <= offered(engine, "run", "--network", "")


def test_volumes_filters_and_services(engine: Engine, tmp_path: Path) -> None:
    engine.out("volume", "create", "vault")
    engine.out("create", "--name", "crate", "busybox")
    assert offered(engine, "run", "-v", "va") == {"vault:"}
    assert offered(engine, "run", "-v", "/") == set()
    assert {"status=", "label!="} & offered(engine, "ps", "--filter", "") == {"status="}
    assert offered(engine, "ps", "-f", "status=r") == {"status=removing", "status=restarting", "status=running"}
    assert offered(engine, "ps", "-f", "volume=va") == {"volume=vault"}
    assert offered(engine, "volume", "ls", "--filter", "name=va") == {"name=vault"}
    assert offered(engine, "network", "ls", "--filter", "type=") == {"type=builtin", "type=custom"}
    assert offered(engine, "cp", "cr") == {"crate:"}
    assert offered(engine, "cp", "crate:/etc/passwd", "./x") == set()
    engine.out("rm", "crate")
    engine.out("volume", "rm", "vault")
    file = tmp_path / "compose.yaml"
    file.write_text("services: {web: {image: busybox}, worker: {image: busybox}, db: {image: busybox}}\n")
    assert offered(engine, "compose", "-f", str(file), "logs", "w") == {"web", "worker"}
    assert offered(engine, "compose", "-f", str(file), "up", "web", "") == {"db", "worker"}
    assert offered(engine, "compose", "-f", str(file), "cp", "d") == {"db:"}
    assert offered(engine, "compose", "-f", str(tmp_path / "none.yaml"), "logs", "") == set()


def test_bash_replaces_what_follows_the_last_break(engine: Engine) -> None:
    engine.out("volume", "create", "vault")
    script = "source <(havre completion bash); COMP_POINT=${#COMP_LINE}; _havre 2>/dev/null; echo ${COMPREPLY[@]}"
    for line, replies in (
        ("havre volume ins", ["inspect"]),
        ("havre run -v va", ["vault:"]),
        ("havre ps --filter status=pa", ["paused"]),
        ("havre ps --filter volume=va", ["vault"]),
    ):
        env = {**engine.env, "PATH": f"{HAVRE.parent}:{os.environ['PATH']}", "COMP_LINE": line}
        done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
        assert done.stdout.split() == replies, line
    engine.out("volume", "rm", "vault")
