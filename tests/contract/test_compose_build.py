"""`havre compose build`: which keys of `build` take effect, and what of a context is sent."""

from __future__ import annotations

import json

from support.building import wanted_files, write_context
from support.composing import Both

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
      cache_from: ["type=registry,ref={name}-none:1", "type=local,src=/nowhere"]
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
COPY --from=other x /
RUN --mount=type=secret,id=s --mount=type=secret,id=w cat /run/secrets/s /run/secrets/w | wc -c > /length
FROM start AS left
RUN --mount=type=cache,id=compose-meets,target=/c touch /c/l; until test -e /c/r; do sleep 0.02; done
FROM start AS right
RUN --mount=type=cache,id=compose-meets,target=/c touch /c/r; until test -e /c/l; do sleep 0.02; done
"""


def test_keys_that_every_engine_is_told_of(project: Both) -> None:
    write_context(project.folder / "c", _FELT)
    project.write(_KEYS.format(name=project.name))
    told = project.havre("build").stderr
    assert "Built (without cache_from of other kinds than registry: not supported)" in told
    image = f"{project.name}-made:more"
    felt = project.engine.out("run", "--rm", image, "cat", "/felt").split("\n")
    assert felt == ["hello", "1.2.3.4 myhost", "2001:db8::1 myhost6", "32768", "77", "88", "lo"]
    labels = json.loads(project.engine.out("inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels["own"] == "label"
    assert labels["com.docker.compose.service"] == "made"


def test_secrets_and_further_contexts(ours: Both) -> None:
    context = write_context(ours.folder / "c", _MEETING, {"a": "1", "b": "2"})
    write_context(ours.folder / "other", "", {"x": "from elsewhere"})
    (ours.folder / "secret").write_text(_SECRET)
    (ours.folder / ".env").write_text("VALUE=four\n")
    ours.write(_NATIVE.format(name=ours.name))
    ours.havre("build")  # both at once, or neither would end
    seen = ours.engine.out("run", "--rm", f"{ours.name}-left", "cat", "/x", "/length")
    assert seen == f"from elsewhere{len(_SECRET) + 4}"
    ours.havre("build")  # of two builds at once each ran the steps that they share: now both use those of one
    first = ours.engine.out("inspect", "--format", "{{.Id}}", f"{ours.name}-left")
    (context / "b").write_text("changed")
    assert wanted_files(ours.engine, context, f"context:{context}") == {"context": [2]}
    ours.havre("build")
    assert ours.engine.out("inspect", "--format", "{{.Id}}", f"{ours.name}-left") == first, "not from the cache"
    (ours.folder / "secret").unlink()
    assert "failed to read the secret s" in ours.havre("build", check=1).stderr


def test_what_another_engine_is_not_told_of(project: Both) -> None:
    project.write(f"""
name: {project.name}
services: {{made: {{build: {{dockerfile_inline: "FROM busybox", secrets: [s], additional_contexts: {{o: .}}}}}}}}
secrets: {{s: {{file: ./compose.yaml}}}}
""")
    without = "Built (without additional_contexts, secrets: not supported)"
    assert (without in project.havre("build").stderr) == (project.engine.name == "dockerd")
