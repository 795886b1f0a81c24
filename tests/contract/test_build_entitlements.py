"""Rights of RUN beyond its sandbox: the client grants them for one build, the daemon must agree, by every door."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.building import CLIENTS, write_context
from support.composing import Both
from support.engines import Engine, Havred, serving

pytestmark = pytest.mark.peer

_INSECURE = "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status\n"
_HOST = "FROM busybox\nRUN --network=host echo links: $(ls /sys/class/net | grep -v bonding)\n"
_CONSENT = '"builder": {"entitlements": {"security-insecure": true}} in daemon.json'


def build(engine: Engine, client: str, context: Path, *flags: str, check: int = 0) -> str:
    """What a build tells that takes nothing from the cache."""
    words = ("build", "--no-cache", *flags, str(context))
    if client == "havre":
        done = engine.havre(*words, "--progress=plain", check=check)
    elif client == "buildx":
        done = engine.docker(*words, "--progress=plain", check=check)
    else:
        env = {**engine.env, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(["docker", *words], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == check, done.stderr
    return done.stdout + done.stderr


def links(engine: Engine) -> str:
    """The names of the network's links where the engine is."""
    done = subprocess.run([*engine.inside, "ls", "/sys/class/net"], capture_output=True, text=True, check=True)
    shown = subprocess.run([*engine.inside, "ip", "-o", "link"], capture_output=True, text=True, check=True)
    names = {line.split(": ")[1].split("@")[0] for line in shown.stdout.splitlines()}
    return "links: " + " ".join(sorted(names)) if names else done.stdout


@pytest.fixture(autouse=True)
def _unnamed_images_go(_havre: Engine, _dockerd: Engine) -> Iterator[None]:
    yield
    for engine in (_havre, _dockerd):
        engine.docker("image", "prune", "-f", check=0)


@pytest.fixture
def consenting(tmp_path: Path, archive: Path) -> Iterator[Engine]:
    """A daemon that agrees to insecure commands, and not to the host's network."""
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"builder": {"entitlements": {"security-insecure": True, "network-host": False}}}))
    with serving(Havred(["--config-file", str(file)]), archive) as engine:
        yield engine


def test_the_hosts_network_as_dockerd(engine: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", _HOST)
    assert "network.host is not allowed" in build(engine, "buildx", context, check=1)
    assert links(engine) in build(engine, "buildx", context, "--allow", "network.host")
    assert links(engine) in build(engine, "buildx", context, "--network", "host")
    told = build(engine, "buildx", context, "--allow", "security.insecure", check=1)
    assert "granting entitlement security.insecure is not allowed by build daemon configuration" in told


@pytest.mark.parametrize("client", CLIENTS)
def test_nothing_without_being_granted(havred: Engine, tmp_path: Path, client: str) -> None:
    for dockerfile, right, key in (
        (_INSECURE, "security.insecure", "security-insecure"),
        (_HOST, "network.host", "network-host"),
        ("FROM busybox\nONBUILD " + _HOST.splitlines()[1] + "\n", "network.host", "network-host"),
    ):
        context = write_context(tmp_path / f"c{len(dockerfile)}", dockerfile)
        if "ONBUILD" in dockerfile:
            build(havred, client, context, "-t", "trigger:1")
            context = write_context(tmp_path / "above", "FROM trigger:1\n")
        told = build(havred, client, context, check=1)
        assert f"{right} is not allowed: it needs the client's `--allow {right}` and the daemon's consent" in told
        assert f'"{key}": true' in told
        assert "CapEff" not in told.replace("grep CapEff", "")
    havred.docker("rmi", "trigger:1", check=0)


def test_what_the_client_of_havre_grants(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", _HOST)
    assert links(havred) in build(havred, "havre", context, "--allow", "network.host")
    assert links(havred) in build(havred, "havre", context, "--network", "host")
    assert links(havred) in build(havred, "classic", context, "--network", "host")
    for grant, problem in (("security.insecure", _CONSENT), ("everything", "unknown entitlement everything")):
        assert problem in build(havred, "havre", context, "--allow", grant, check=1)


def test_a_daemon_that_agrees(consenting: Engine, tmp_path: Path) -> None:
    context, host = write_context(tmp_path / "c", _INSECURE), write_context(tmp_path / "h", _HOST)
    status = Path("/proc/self/status").read_text()
    every = next(line for line in status.splitlines() if line.startswith("CapBnd:")).split()[1]
    for client in ("buildx", "havre"):
        assert f"CapEff:\t{every}" in build(consenting, client, context, "--allow", "security.insecure")
        assert "security.insecure is not allowed" in build(consenting, client, context, check=1)
        for flag in (("--allow", "network.host"), ("--network", "host")):
            told = build(consenting, client, host, *flag, check=1)
            assert "granting entitlement network.host is not allowed by build daemon configuration" in told
    by_id = consenting.out("network", "inspect", "-f", "{{.Id}}", "host")
    plain = write_context(tmp_path / "p", "FROM busybox\nRUN true\n")
    for name in (by_id, by_id[:12]):
        told = build(consenting, "havre", plain, "--network", name, check=1)
        assert "granting entitlement network.host is not allowed" in told


def test_what_compose_grants(consenting: Engine, tmp_path: Path) -> None:
    write_context(tmp_path, _INSECURE)
    project = Both(consenting, tmp_path)
    for grant, problem in (("entitlements: [security.insecure]", ""), ("privileged: true", ""), ("", "is not allowed")):
        project.write(f"services:\n  a:\n    build:\n      context: .\n      no_cache: true\n      {grant}\n")
        assert problem in project.havre("build", check=1 if problem else 0).stderr
