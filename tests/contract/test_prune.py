"""`container prune` and its filters; forms of `top`; checkpoints, which want an experimental daemon."""

from __future__ import annotations

import json
from urllib.parse import quote

from support.engines import Engine
from support.raw import ask
from support.waiting import until


def test_prune_takes_what_its_filters_mean(engine: Engine) -> None:
    engine.docker("container", "prune", "-f", check=0)  # what other tests left
    for name, label in (("keep", "keep=1"), ("drop", "drop=1"), ("old", "old=1")):
        engine.out("create", "--name", name, "--label", label, "busybox", "true")
    engine.out("run", "-d", "--name", "runs", "busybox", "sleep", "1000")

    def left() -> set[str]:
        return set(engine.out("ps", "-a", "--format", "{{.Names}}").split())

    engine.docker("container", "prune", "-f", "--filter", "until=1h", check=0)
    engine.docker("container", "prune", "-f", "--filter", "until=2020-01-01T00:00:00Z", check=0)
    assert left() == {"keep", "drop", "old", "runs"}
    shown = engine.docker("container", "prune", "-f", "--filter", "label=drop", check=0).stdout
    assert "Deleted Containers:" in shown

    def pruned() -> bool:
        # Docker's daemon measures ages in whole seconds.
        engine.docker("container", "prune", "-f", "--filter", "label!=keep", "--filter", "until=0s", check=0)
        return left() == {"keep", "runs"}

    until(pruned, "the old one to go")
    for filters in ({"until": ["abc"]}, {"bogus": ["1"]}, {"until": ["1s", "2s"]}):
        assert ask(engine.socket, "POST", f"/containers/prune?filters={quote(json.dumps(filters))}").status == 400
    engine.docker("container", "prune", "-f", check=0)
    engine.docker("rm", "-f", "runs", check=0)


def test_top_takes_options_of_ps(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "shown", "busybox", "sleep", "1000")
    pid = engine.out("inspect", "--format", "{{.State.Pid}}", "shown")

    def top(options: str) -> dict[str, list[object]]:
        value: dict[str, list[object]] = ask(
            engine.socket, "GET", f"/containers/shown/top?ps_args={quote(options)}"
        ).json
        return value

    assert top("-o pid,comm") == {"Titles": ["PID", "COMMAND"], "Processes": [[pid, "sleep"]]}
    assert top("axo user,pid")["Processes"] == [["root", pid]]
    assert top("aux")["Titles"][0] == "USER"
    assert ask(engine.socket, "GET", "/containers/shown/top?ps_args=--nonsense").status == 500
    engine.docker("rm", "-f", "shown", check=0)


def test_checkpoints_want_an_experimental_daemon(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "plain", "busybox", "sleep", "1000")
    for method, path in (("GET", "checkpoints"), ("POST", "checkpoints"), ("DELETE", "checkpoints/c")):
        reply = ask(
            engine.socket, method, f"/containers/plain/{path}", {"CheckpointID": "c"} if method == "POST" else None
        )
        assert reply.status in (404, 501)
    refused = ask(engine.socket, "POST", "/containers/plain/start?checkpoint=c")
    assert (refused.status, refused.message) == (400, "checkpoint is only supported in experimental mode")
    engine.docker("rm", "-f", "plain", check=0)
