"""`havre compose build`: which keys of `build` take effect, and what of a context is sent."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

from support.building import served, wanted_files, write_context
from support.composing import Both
from support.engines import HAVRE
from support.terminals import Terminal
from support.waiting import until

_SECRET = "swordfish"
_KEYS = """
name: {name}
services:
  made:
    build:
      context: ./c
      target: felt
      args: {{GREETING: hello}}
      labels: {{own: label}}
      tags: ["{name}-made:more"]
      extra_hosts: ["myhost:1.2.3.4", "myhost6:2001:db8::1"]
      shm_size: 32m
      ulimits: {{nofile: {{soft: 77, hard: 88}}, nproc: 999}}
      network: none
      no_cache: true
      platforms: [linux/amd64]
      cache_from: ["type=registry,ref={name}-none:1", "type=gha"]
"""
_FELT = """
FROM busybox AS felt
ARG GREETING
RUN (echo $GREETING; grep myhost /etc/hosts | tr '\\t' ' '; df -k /dev/shm | awk 'NR==2 {print $2}'; \
    ulimit -Sn; ulimit -Hn; ls /sys/class/net) > /felt
FROM felt
RUN false
"""
_NATIVE = """
name: {name}
services:
  left: &half
    build: &build
      context: ./c
      target: left
      additional_contexts: {{other: ./other, base: "docker-image://busybox"}}
      secrets: [s, {{source: v, target: w}}]
  right: {{<<: *half, build: {{<<: *build, target: right}}}}
secrets: {{s: {{file: ./secret}}, v: {{environment: VALUE}}}}
"""
_MEETING = """
FROM base AS start
COPY a /
RUN date +%s%N > /once
COPY --from=other x /
RUN --mount=type=secret,id=s --mount=type=secret,id=w cat /run/secrets/s /run/secrets/w | wc -c > /length
FROM start AS left
RUN --mount=type=cache,id=NAME,target=/c touch /c/l; until test -e /c/r; do sleep 0.02; done
FROM start AS right
RUN --mount=type=cache,id=NAME,target=/c touch /c/r; until test -e /c/l; do sleep 0.02; done
"""


def test_keys_that_every_engine_is_told_of(project: Both) -> None:
    write_context(project.folder / "c", _FELT)
    project.write(_KEYS.format(name=project.name))
    told = project.havre("build").stderr
    assert told.startswith("warning: service made is built without cache_from type=gha: ")
    image = f"{project.name}-made:more"
    felt = project.engine.out("run", "--rm", image, "cat", "/felt").split("\n")
    assert felt == ["hello", "1.2.3.4 myhost", "2001:db8::1 myhost6", "32768", "77", "88", "lo"]
    labels = json.loads(project.engine.out("inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels["own"] == "label"
    assert labels["com.docker.compose.service"] == "made"


def _meeting(project: Both) -> Path:
    """Write two services whose builds only end together; the context that they share."""
    context = write_context(project.folder / "c", _MEETING.replace("NAME", project.name), {"a": "1", "b": "2"})
    write_context(project.folder / "other", "", {"x": "from elsewhere"})
    (project.folder / "secret").write_text(_SECRET)
    (project.folder / ".env").write_text("VALUE=four\n")
    project.write(_NATIVE.format(name=project.name))
    return context


def test_secrets_and_further_contexts(ours: Both) -> None:
    context = _meeting(ours)
    ours.havre("build")  # both at once, or neither would end
    seen = ours.engine.out("run", "--rm", f"{ours.name}-left", "cat", "/x", "/length")
    assert seen == f"from elsewhere{len(_SECRET) + 4}"
    once = [ours.engine.out("run", "--rm", f"{ours.name}-{name}", "cat", "/once") for name in ("left", "right")]
    assert once[0] == once[1], "the step that they share ran twice"
    first = ours.engine.out("inspect", "--format", "{{.Id}}", f"{ours.name}-left")
    (context / "b").write_text("changed")
    assert wanted_files(ours.engine, context, f"context:{context}") == {"context": [2]}
    ours.havre("build")
    assert ours.engine.out("inspect", "--format", "{{.Id}}", f"{ours.name}-left") == first, "not from the cache"
    (ours.folder / "secret").unlink()
    assert "failed to read the secret s" in ours.havre("build", check=1).stderr


def test_a_context_that_a_build_uses_is_not_sent_again(ours: Both) -> None:
    context = _meeting(ours)
    command = [str(HAVRE), "compose", "-f", str(ours.file), "build", "left"]
    with subprocess.Popen(command, env=ours.engine.env, stderr=subprocess.DEVNULL) as left:
        key = f"context:{context}"
        until(lambda: wanted_files(ours.engine, context, key) == {"context": []}, "the files to have come")
        (context / "b").write_text("changed")
        assert wanted_files(ours.engine, context, key) == {"context": [2]}
        assert left.poll() is None, "it waits for the other"
        ours.havre("build", "right")
        assert left.wait(30) == 0
    usage = json.loads(ours.engine.out("system", "df", "-v", "--format", "{{json .BuildCache}}"))
    assert "source.local" in {record["CacheType"] for record in usage}


def test_what_another_engine_is_not_told_of(project: Both) -> None:
    project.write(f"""
name: {project.name}
services: {{made: {{build: {{dockerfile_inline: "FROM busybox", secrets: [s], additional_contexts: {{o: .}}}}}}}}
secrets: {{s: {{file: ./compose.yaml}}}}
""")
    without = "warning: service made is built without additional_contexts, secrets: "
    assert project.havre("build").stderr.startswith(without) == (project.engine.name == "dockerd")


_ADDRESS = """
name: {name}
services:
  base: {{build: {{dockerfile_inline: "FROM busybox\\nRUN echo of the base > /b"}}}}
  app:
    build:
      context: {url}
      additional_contexts: {{base: "service:base", other: ./other}}
      secrets: [s]
      ssh: ["mine={agent}"]
      cache_to: ["type=local,dest={cache},mode=max"]
      entitlements: [network.host]
secrets: {{s: {{file: ./secret}}}}
"""
_FETCHED = """
FROM base
COPY --from=other x /
COPY here /
RUN --mount=type=secret,id=s cat /run/secrets/s > /s
RUN --mount=type=ssh,id=mine test -S $SSH_AUTH_SOCK
RUN --network=host test -e /sys/class/net/lo
"""


def test_an_address_with_what_goes_along(ours: Both, tmp_path: Path) -> None:
    fetched = write_context(tmp_path / "fetched", _FETCHED, {"here": "fetched "})
    shutil.make_archive(str(tmp_path / "served" / "context"), "tar", fetched)
    write_context(ours.folder / "other", "", {"x": "from elsewhere "})
    (ours.folder / "secret").write_text(_SECRET)
    agent = ours.folder / "agent"
    socket.socket(socket.AF_UNIX).bind(str(agent))
    with served(ours.engine, tmp_path / "served") as url:
        ours.write(_ADDRESS.format(name=ours.name, url=f"{url}/context.tar", cache=ours.folder / "cache", agent=agent))
        done = ours.havre("build", "app")
    assert "warning" not in done.stderr
    assert ours.engine.out("run", "--rm", f"{ours.name}-app", "cat", "/x", "/here", "/b", "/s") == (
        f"from elsewhere fetched of the base\n{_SECRET}"
    )
    assert (ours.folder / "cache" / "index.json").exists()


def test_a_terminal_shows_the_steps(project: Both) -> None:
    project.write(f"""
name: {project.name}
services: {{a: {{build: {{dockerfile_inline: "FROM busybox\\nRUN echo so far; sleep 0.5"}}}}}}
""")
    with Terminal([str(HAVRE), "compose", "-f", str(project.file), "build"], project.engine.env) as terminal:
        terminal.expect("Service a  Building")
        terminal.expect("so far")
        code, told = terminal.end()
    assert code == 0
    assert "Service a  Built" in told


def test_several_platforms(ours: Both) -> None:
    write_context(ours.folder / "c", "FROM scratch\nCOPY x /\n", {"x": "1"})
    platforms = ("linux/amd64", "linux/arm64")
    ours.write(f"name: {ours.name}\nservices: {{a: {{build: {{context: c, platforms: [{', '.join(platforms)}]}}}}}}\n")
    ours.havre("build")
    for platform in platforms:
        found = ours.engine.havre("image", "inspect", "--platform", platform, f"{ours.name}-a", check=0)
        assert json.loads(found.stdout)[0]["Architecture"] == platform.removeprefix("linux/")
