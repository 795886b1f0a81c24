"""Flags of docker's command line 29 that its 26 does not have, by what they do on both engines."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from support.engines import Engine


def test_timeout_is_another_name_of_time(engine: Engine) -> None:
    for flags in (["--timeout", "0"], ["--time=0"], ["-t", "0"]):
        # PID 1 ignores SIGTERM: with the default of 10 s the command would take longer than it may.
        name = engine.out("run", "-d", "busybox", "sleep", "1000")
        stopped = engine.havre("stop", *flags, name, check=0, timeout_s=9)
        assert stopped.stdout.strip() == name
        engine.havre("restart", *flags, name, check=0, timeout_s=9)
        engine.docker("rm", "-f", name, check=0)
    both = engine.havre("stop", "--time", "1", "--timeout", "1", "nope", check=1)
    assert both.stderr.strip() == "conflicting options: cannot specify both --timeout and --time"


def test_commit_without_pause(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "busy", "busybox", "sleep", "1000")

    def pauses(*flags: str) -> int:
        since = engine.out("info", "--format", "{{.SystemTime}}")
        image = engine.havre("commit", *flags, "busy", check=0).stdout.strip()
        told = engine.out(
            *("events", "--since", since, "--until", engine.out("info", "--format", "{{.SystemTime}}")),
            *("--filter", "event=pause", "--format", "{{.Action}}"),
        )
        engine.docker("rmi", image, check=0)
        return len(told.split())

    assert pauses() == 1
    assert pauses("--no-pause") == 0
    assert pauses("--pause=false") == 0
    both = engine.havre("commit", "--no-pause", "--pause", "busy", check=1)
    assert both.stderr.strip() == "conflicting options: --no-pause and --pause cannot be used together"
    engine.docker("rm", "-f", "busy", check=0)


def test_gateway_priority_of_a_connection(engine: Engine) -> None:
    for name in ("first", "second"):
        engine.out("network", "create", name)
    engine.out("run", "-d", "--name", "between", "--network", "first", "busybox", "sleep", "1000")
    connected = engine.havre("network", "connect", "--gw-priority", "7", "second", "between")
    if engine.name == "dockerd":
        assert connected.returncode == 1
        assert '"--gw-priority" requires API version 1.48' in connected.stderr
    else:
        gateway = engine.out("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "second")
        assert f"default via {gateway} " in engine.out("exec", "between", "ip", "route")
    engine.docker("rm", "-f", "between", check=0)
    engine.docker("network", "rm", "first", "second", check=0)


def test_networks_have_ipv4(engine: Engine) -> None:
    engine.havre("network", "create", "--ipv4", "four", check=0)
    assert "." in engine.out("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "four")
    engine.docker("network", "rm", "four", check=0)
    assert "without IPv4" in engine.havre("network", "create", "--ipv4=false", "four", check=1).stderr


@pytest.mark.parametrize("verb", ["create", "run"])
def test_the_socket_and_the_credentials_come_along(engine: Engine, verb: str, tmp_path: Path) -> None:
    login = b64encode(b"ada:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example": {"auth": login}}}))
    given = ["--config", str(tmp_path), verb, "--use-api-socket"]
    script = "cat $DOCKER_CONFIG/config.json; test -S /var/run/docker.sock && echo socket"
    if verb == "run":
        shown = engine.havre(*given, "--rm", "busybox", "sh", "-c", script, check=0)
    else:
        name = engine.havre(*given, "busybox", "sh", "-c", script, check=0).stdout.strip()
        shown = engine.docker("start", "-a", name, check=0)
        engine.docker("rm", name, check=0)
    text, _, rest = shown.stdout.rpartition("socket")
    assert rest == "\n"
    assert json.loads(text) == {"auths": {"registry.example": {"auth": login}}}


def test_a_configuration_of_ones_own_stays(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example": {"auth": "YTpi"}}}))
    script = "echo $DOCKER_CONFIG; ls /run/secrets 2>&1; test -S /var/run/docker.sock && echo socket"
    flags = ["--rm", "--use-api-socket", "-e", "DOCKER_CONFIG=/mine"]
    shown = engine.havre("--config", str(tmp_path), "run", *flags, "busybox", "sh", "-c", script, check=0)
    assert shown.stdout.startswith("/mine\n")
    assert shown.stdout.endswith("socket\n")
    assert "No such file" in shown.stdout
