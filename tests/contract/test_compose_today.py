"""Flags of compose 5 that docker compose 2.26 does not have."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from support.composing import Both
from support.engines import HAVRE
from support.raw import ask
from support.waiting import until

_WORK = """
name: {name}
services:
  done: {{image: busybox, command: "true"}}
  fails: {{image: busybox, init: true, command: sh -c "sleep 1; exit 3"}}
  stays: {{image: busybox, init: true, stop_grace_period: 0s, command: sleep 1000}}
"""
_BUILT = """
name: {name}
services:
  a.b:
    image: localhost:1/named
    build: &build
      context: ./c
      dockerfile: D
      args: {{A: one, B: }}
      tags: ["x:1"]
      no_cache_filter: second
      provenance: mode=max
      extra_hosts: ["h=1.2.3.4"]
      ulimits: {{nofile: {{soft: 1, hard: 2}}, nproc: 5}}
      secrets: [s]
      labels: {{own: label}}
  user:
    build: {{context: ./c, dockerfile_inline: FROM base, additional_contexts: {{base: "service:a.b"}}, sbom: true}}
secrets: {{s: {{file: ./secret}}}}
"""


def test_only_a_failure_ends_the_others(ours: Both) -> None:
    ours.write(_WORK.format(name=ours.name))
    done = ours.havre("up", "--abort-on-container-failure", check=3)
    assert "Aborting on container failure..." in done.stderr
    states = json.loads(ours.engine.out("inspect", *ours.containers().values()))
    assert not any(row["State"]["Running"] for row in states)
    assert "exited with code 0" in ours.havre("up", "--abort-on-container-failure", "done").stderr
    for others in (("--detach",), ("--wait",), ("--abort-on-container-exit",)):
        told = ours.havre("up", "--abort-on-container-failure", *others, check=1).stderr
        assert "--abort-on-container-failure" in told


def test_a_terminal_is_refused_by_both_spellings(ours: Both) -> None:
    ours.write(_WORK.format(name=ours.name))
    ours.havre("up", "-d", "stays")
    for spelling in ("-T", "--no-tty", "--no-TTY"):
        assert ours.havre("exec", spelling, "stays", "echo", "x").stdout == "x\n"
        assert ours.havre("run", "--rm", "--quiet", spelling, "done", "echo", "y").stdout == "y\n"
    shown = ours.havre("exec", "--help").stdout
    assert "--no-tty" in shown
    assert "--no-TTY" not in shown


def test_variables_of_files_yield_to_those_of_the_command(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services: {{s: {{image: busybox, environment: {{A: service, D: service}}}}}}
""")
    (ours.folder / "first").write_text("A=first\nB=first\nC=first $B\n")
    (ours.folder / "second").write_text("B=second\nE=second\n")
    files = [word for name in ("first", "second") for word in ("--env-from-file", str(ours.folder / name))]
    ran = ours.havre("run", "--rm", *files, "--env", "A=command", "s", "sh", "-c", "echo $A, $B, $C, $D, $E")
    assert ran.stdout == "command, first, first first, service, second\n"
    told = ours.havre("run", "--env-from-file", str(ours.folder / "none"), "s", check=None)
    assert told.returncode
    assert "none cannot be read" in told.stderr


def test_runs_ask_for_images_as_told_and_say_nothing(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services: {{there: {{image: busybox}}, made: {{build: {{dockerfile_inline: FROM busybox}}}}}}
""")
    quiet = ours.havre("run", "--rm", "--pull", "never", "--quiet", "there", "echo", "said")
    assert (quiet.stdout, quiet.stderr) == ("said\n", "")
    assert "no such image" in ours.havre("run", "--pull", "never", "made", check=1).stderr.lower()
    assert "Built" not in ours.havre("run", "--rm", "--quiet-build", "made", "true").stderr
    assert "Built" in ours.havre("up", "--no-start", "--build", "made").stderr
    again = ours.havre("up", "-y", "--no-start", "--build", "--quiet-build", "--force-recreate", "made").stderr
    assert "Built" not in again
    assert "Recreated" in again


def test_start_waits_for_health(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services:
  slow:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sh -c "rm -f /up; sleep 1; touch /up; sleep 1000"
    healthcheck: {{test: test -e /up, interval: 200ms, start_period: 10s}}
  never:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sleep 1000
    healthcheck: {{test: test -e /up, interval: 200ms, start_period: 100s}}
""")
    ours.havre("up", "--no-start")
    ours.havre("start", "--wait", "slow")
    state = ours.engine.out("inspect", "-f", "{{.State.Health.Status}}", ours.containers()["slow-1"])
    assert state == "healthy"
    told = ours.havre("start", "--wait", "--wait-timeout", "1", "never", check=1)
    assert "application not healthy" in told.stderr


def test_events_of_a_time(ours: Both) -> None:
    ours.write(_WORK.format(name=ours.name))
    ours.havre("up", "-d", "done")
    until(lambda: not ours.havre("ps", "-q", "done").stdout, "the end of the container")
    lines = ours.havre("events", "--json", "--since", "1h", "--until", "0s").stdout.splitlines()
    assert {"create", "start", "die"} <= {json.loads(line)["action"] for line in lines}


def test_parts_of_the_configuration(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services:
  s:
    image: busybox
    env_file: ./vars
    networks: [b, a]
    volumes: [{{type: image, source: busybox, target: /i}}]
networks: {{a: , b: }}
""")
    (ours.folder / "vars").write_text("SECRET=x\n")
    ours.engine.env["SHOWN"] = "y"
    assert ours.havre("config", "--networks").stdout == "a\nb\n"
    shown = ours.havre("config", "--environment").stdout.splitlines()
    assert {"SHOWN=y", f"COMPOSE_PROJECT_NAME={ours.name}"} <= set(shown)
    assert "SECRET: x" in ours.havre("config").stdout
    unread = ours.havre("config", "--no-env-resolution").stdout
    assert "SECRET" not in unread
    assert f"- {ours.folder / 'vars'}" in unread


def test_builds_are_checked_without_building(ours: Both) -> None:
    ours.write(_BUILT.format(name=ours.name))
    (ours.folder / "c").mkdir()
    (ours.folder / "c" / "D").write_text("from busybox\nRUN true\n")
    (ours.folder / "secret").write_text("s")
    told = ours.havre("build", "--check", "a.b", check=1).stdout
    assert "a.b: Check complete" in told
    assert "ConsistentInstructionCasing" in told
    (ours.folder / "c" / "D").write_text("FROM busybox\nRUN true\n")
    assert "no warnings found" in ours.havre("build", "--check", "a.b").stdout
    assert not ours.engine.out("images", "-q", "localhost:1/named")


def test_bake_reads_the_file_that_is_printed(ours: Both) -> None:
    ours.write(_BUILT.format(name=ours.name))
    (ours.folder / "c").mkdir()
    (ours.folder / "secret").write_text("s")
    ours.engine.env["B"] = "two"
    printed = ours.havre("build", "--print", "--build-arg", "B", "--build-arg", "C=3", "--push").stdout
    read = ours.engine.docker("buildx", "bake", "-f", "-", "--print", stdin=printed, check=0).stdout
    made = json.loads(read)["target"]
    assert json.loads(read)["group"]["default"]["targets"] == ["a_b", "user"]
    first, second = made["a_b"], made["user"]
    assert first["context"] == str(ours.folder / "c")
    assert first["dockerfile"] == str(ours.folder / "c" / "D")
    assert first["args"] == {"A": "one", "B": "two", "C": "3"}
    assert first["tags"] == ["x:1", "localhost:1/named"]
    assert first["labels"]["own"] == "label"
    assert first["labels"]["com.docker.compose.service"] == "a.b"
    assert first["output"] == ["type=registry"]
    assert first["no-cache-filter"] == ["second"]
    assert first["attest"] == ["type=provenance,mode=max"]
    assert first["secret"] == [f"id=s,type=file,src={ours.folder / 'secret'}"]
    assert first["ulimits"] == ["nofile=1:2", "nproc=5"]
    assert second["contexts"] == {"base": "target:a_b"}
    assert second["output"] == ["type=docker"]
    assert second["attest"] == ["type=sbom"]


@pytest.mark.parametrize("flags", [(), ("--provenance=mode=min",)])
def test_results_are_attested_as_the_file_or_the_command_says(ours: Both, flags: tuple[str, ...]) -> None:
    ours.write(f"""
name: {ours.name}
services:
  s:
    build:
      dockerfile_inline: "FROM busybox\\nARG V\\nRUN true"
      args: {{V: told}}
      provenance: mode=max
      sbom: true
""")
    ours.havre("build", *flags)
    answer = ask(ours.engine.socket, "GET", f"/v1.55/images/{ours.name}-s/attestations?statement=1")
    attested = {row["PredicateType"]: json.dumps(row) for row in answer.json}
    provenance = next(text for kind, text in attested.items() if kind.startswith("https://slsa.dev/provenance/"))
    assert "https://spdx.dev/Document" in attested
    assert ("told" in provenance) is not bool(flags)


def test_stages_without_cache(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services:
  s:
    build:
      no_cache_filter: [second]
      dockerfile_inline: |
        FROM busybox AS first
        RUN cat /proc/sys/kernel/random/uuid > /one
        FROM first AS second
        RUN cat /proc/sys/kernel/random/uuid > /two
""")

    def built() -> list[str]:
        ours.havre("build")
        return ours.havre("run", "--rm", "s", "cat", "/one", "/two").stdout.splitlines()

    (one, two), (same, other) = built(), built()
    assert one == same
    assert two != other


@pytest.mark.parametrize("prune", [True, False])
def test_images_that_a_rebuild_replaced_are_removed(ours: Both, tmp_path: Path, prune: bool) -> None:
    ours.write(f"""
name: {ours.name}
services:
  s:
    build: {{context: ./c}}
    init: true
    stop_grace_period: 0s
    command: sleep 1000
    develop: {{watch: [{{path: ./c, action: rebuild}}]}}
""")
    (ours.folder / "c").mkdir()
    (ours.folder / "c" / "Dockerfile").write_text("FROM busybox\nRUN echo 1 > /n\n")
    command = [str(HAVRE), "compose", "-f", str(ours.file), "watch", *([] if prune else ["--prune=false"])]
    with subprocess.Popen(command, env=ours.engine.env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "Watch enabled" not in process.stderr.readline():
            assert process.poll() is None
        before = ours.engine.out("images", "-q", "--no-trunc", f"{ours.name}-s")
        (ours.folder / "c" / "Dockerfile").write_text("FROM busybox\nRUN echo 2 > /n\n")
        while "successfully built" not in process.stderr.readline():
            assert process.poll() is None
        kept = ours.engine.out("images", "-q", "--no-trunc", "-f", "dangling=true")
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert (before in kept) is not prune
    if not prune:
        ours.havre("down", "-t", "0")
        ours.engine.docker("rmi", before, check=0)
