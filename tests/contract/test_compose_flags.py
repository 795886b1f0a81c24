"""Flags of `havre compose`, one by one; where both print something, docker compose is asked the same."""

from __future__ import annotations

import pytest

from support.composing import Both
from support.waiting import until

_CONFIG = """
name: flags
services:
  web:
    image: nginx:${TAG:-1}
    ports: ["80:80"]
    profiles: [front]
    volumes: ["v:/v", "./x:/x"]
    depends_on: [db]
    environment: {A: "${A:?needed}"}
  db: {build: {context: ./d, args: {X: "${X-y}"}}, networks: [n]}
volumes: {v: , w: {}}
networks: {n: }
configs: {c: {content: "$$x"}}
"""
_PROJECT = """
name: {name}
services:
  base:
    image: busybox
    init: true
    command: sh -c "echo from base; sleep 1000"
    ports: ["127.0.0.1::53/udp"]
  app:
    build:
      dockerfile_inline: |
        FROM busybox
        ARG WHO=nobody
        RUN echo $$WHO > /who; mkdir -p /w/d; ln -s /who /link
    init: true
    command: sh -c "echo one; echo two; sleep 1000"
    depends_on: [base]
    ports: ["127.0.0.1::80"]
    networks: {{default: {{aliases: [known]}}}}
    healthcheck: {{test: "{test}", interval: 1s, retries: 30}}
"""


@pytest.mark.parametrize(
    "flags",
    ["--services", "--volumes", "--profiles", "--hash=*", "--hash=db", "--no-interpolate", "--no-normalize", "--quiet",
     "--no-path-resolution", "--no-consistency", "--format=json", "--format=json --no-interpolate"],
)  # fmt: skip
def test_config_prints_what_docker_composes_does(flags: str, ours: Both) -> None:
    ours.write(_CONFIG)
    ours.engine.env["A"] = "1"
    words = ("--profile", "front", "config", *flags.split())
    assert ours.havre(*words).stdout == ours.docker(*words).stdout


def test_config_names_images_and_variables(ours: Both) -> None:
    ours.write(_CONFIG)
    ours.engine.env["A"] = "1"
    asked = [
        ours.havre("--profile", "front", "config", flag).stdout.splitlines() for flag in ("--images", "--variables")
    ]
    assert sorted(asked[0]) == ["flags-db", "nginx:1"]
    assert [line.split() for line in asked[1][1:]] == [["A", "true"], ["TAG", "false", "1"], ["X", "false", "y"]]


def test_flags_of_a_projects_life(ours: Both) -> None:
    def same(*words: str) -> str:
        """What both tools print."""
        said = ours.havre(*words).stdout
        assert said == ours.docker(*words).stdout
        return said

    ours.write(_PROJECT.format(name=ours.name, test="true"))
    assert "no such image" in ours.havre("up", "-d", "--no-build", "--no-deps", "app", check=1).stderr.lower()
    ours.havre("build", "--build-arg", "WHO=me", "app")
    ours.havre("up", "--no-start")
    assert ours.havre("ps", "-a", "--format", "{{.State}}").stdout.split() == ["created", "created"]
    ours.havre("up", "-d", "--quiet-pull")
    assert same("exec", "-T", "app", "cat", "/who") == "me\n"
    before = ours.containers()
    ours.havre("build", "--no-cache", "--with-dependencies", "app")
    ours.havre("create", "--no-recreate", "app")
    assert ours.containers() == before
    ours.havre("up", "-d", "-t", "0", "--always-recreate-deps", "app")
    assert not set(ours.containers().values()) & set(before.values())
    assert same("ps", "--services", "--status", "running").split() == ["app", "base"]
    assert ours.havre("logs", "--no-log-prefix", "--tail", "1", "app").stdout == "two\n"
    assert same("port", "--protocol", "udp", "base", "53").startswith("127.0.0.1:")
    assert same("exec", "-T", "--workdir", "/w/d", "app", "pwd") == "/w/d\n"
    own, all_of_them = (
        same("exec", "-T", *more, "app", "grep", "CapEff", "/proc/self/status") for more in ((), ("--privileged",))
    )
    assert own != all_of_them
    for flag, kind in ((), "symbolic link"), (("--follow-link",), "regular file"):
        target = ours.folder / f"copied-{len(flag)}"
        ours.havre("cp", *flag, "app:/link", str(target))
        assert ("symbolic link" if target.is_symlink() else "regular file") == kind, flag
    ours.havre("scale", "base=2", "--no-deps")
    assert "base-2" in ours.containers()
    ours.havre("kill", "--signal", "SIGKILL", "app")
    until(lambda: not ours.havre("ps", "-q", "app").stdout, "the end that was asked for")
    assert same("ps", "-q", "app") == ""
    ours.havre("rm", "-f", "--stop", "base")
    assert [*ours.containers()] == ["app-1"]
    assert ours.docker("version", "--short").stdout.startswith(ours.havre("version", "--short").stdout.strip())


def test_flags_of_one_off_commands(ours: Both) -> None:
    ours.write(_PROJECT.format(name=ours.name, test="true"))
    run = ("run", "--rm", "-T", "--no-deps", "--build")
    ran = ours.havre(*run, "--entrypoint", "pwd", "--workdir", "/w/d", "app")
    assert ran.stdout == "/w/d\n"
    ours.havre(*run, "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "app", "ip", "link", "set", "lo", "down")
    ours.havre(*run, "--cap-drop", "CHOWN", "app", "sh", "-c", "! chown 5 /who")
    assert ours.havre(*run, "--use-aliases", "app", "nslookup", "known").returncode == 0
    assert ours.havre(*run, "app", "sh", "-c", "! nslookup known").returncode == 0
    one = ours.havre("run", "-d", "--no-deps", "--service-ports", "--quiet-pull", "app").stdout.strip()
    assert ours.engine.out("port", one, "80").startswith("127.0.0.1:")


def test_flags_of_output_and_waiting(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services:
  loud: {{image: busybox, command: echo heard}}
  mute: {{image: busybox, command: echo not heard, depends_on: [loud]}}
""")
    done = ours.havre("up", "--no-attach", "mute", "--no-log-prefix", "--timestamps")
    assert done.stdout.startswith("20")
    assert done.stdout.endswith("Z heard\n")
    assert done.stdout.count("\n") == 1
    assert ours.havre("up", "--attach", "mute", "mute").stdout == "mute-1  | not heard\n"
    assert "loud-1  | heard" in ours.havre("up", "--attach-dependencies", "mute").stdout
    ours.write(f"name: {ours.name}\nservices: {{quits: {{image: busybox, command: sh -c 'sleep 1; exit 3'}}}}\n")
    ours.havre("up", "-d", "--remove-orphans")
    assert "exited with status code 3" in ours.havre("wait", "--down-project", "quits", check=3).stdout
    assert not ours.containers()
    ours.write(_PROJECT.format(name=ours.name, test="false"))
    slow = ours.havre("up", "-d", "--build", "--wait", "--wait-timeout", "1", "app", check=1)
    assert "application not healthy" in slow.stderr


def test_flags_of_pulls(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services:
  there: {{image: busybox}}
  made: {{image: "localhost:1/made", build: {{dockerfile_inline: FROM busybox}}, depends_on: [there]}}
  gone: {{image: "localhost:1/gone"}}
""")
    assert "Skipped" in ours.havre("pull", "--policy", "missing", "there").stderr
    assert "Skipped" in ours.havre("pull", "--ignore-buildable", "made").stderr
    told = ours.havre("pull", "--include-deps", "--policy", "missing", "made").stderr
    assert "busybox" in told
    assert "connection refused" in ours.havre("pull", "gone", check=1).stderr
    assert "Warning" in ours.havre("pull", "--ignore-pull-failures", "gone").stderr
    ours.havre("build")
    assert ours.havre("push", "made", check=1).stderr
    assert "Warning" in ours.havre("push", "--ignore-push-failures", "--include-deps", "made").stderr
