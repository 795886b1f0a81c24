"""What the shell is offered: containers in a state that the command is for, and the values of flags."""

from __future__ import annotations

from support.engines import Engine


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
        "commit cp diff export inspect logs port rename restart rm stats update wait": every,
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
