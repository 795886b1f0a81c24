"""`--network container:X`: what is shared, what contradicts it, and who may be missing when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.composing import Both
from support.engines import Engine
from support.raw import ask
from support.waiting import until

RUN = ("run", "--rm", "--network", "container:donor")
SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture(autouse=True)
def tidy(engine: Engine) -> Iterator[None]:
    """No container outlives its test."""
    kept = engine.objects()
    yield
    engine.tidy(kept)


@pytest.fixture
def exposing(engine: Engine) -> Iterator[str]:
    """An image that exposes a port."""
    source = engine.out("create", "busybox")
    engine.out("commit", "-c", "EXPOSE 80", source, "exposing")
    engine.out("rm", source)
    yield "exposing"
    engine.docker("rmi", "-f", "exposing")


@pytest.fixture
def donor(engine: Engine) -> str:
    """A running container with a name, hosts and name servers of its own."""
    options = ("--hostname", "inside", "--domainname", "example", "--add-host", "known:10.1.2.3", "--dns", "9.9.9.9")
    engine.out("run", "-d", "--name", "donor", *options, *SLEEP)
    return "donor"


def test_name_and_files_are_the_others(engine: Engine, donor: str, exposing: str) -> None:
    show = "hostname; echo $HOSTNAME; cat /proc/sys/kernel/domainname /etc/hostname /etc/hosts /etc/resolv.conf"
    theirs = engine.out("exec", donor, "sh", "-c", show)
    assert theirs.startswith("inside\ninside\nexample\ninside\n")
    assert engine.out(*RUN, exposing, "sh", "-c", show) == theirs
    engine.out(*RUN[:1], "-d", *RUN[2:], "--name", "guest", exposing, "sleep", "1000")
    assert engine.out("run", "--rm", "--network", "container:guest", exposing, "sh", "-c", show) == theirs
    shown, other = (ask(engine.socket, "GET", f"/containers/{name}/json").json for name in ("guest", donor))
    for path in ("HostnamePath", "HostsPath", "ResolvConfPath"):
        assert shown[path] == other[path]
    assert shown["HostConfig"]["NetworkMode"] == f"container:{other['Id']}"
    assert (shown["Config"]["Hostname"], shown["Config"]["Domainname"]) == ("inside", "example")
    assert shown["NetworkSettings"]["SandboxKey"] == ""


@pytest.mark.parametrize(
    ("config", "host", "problem"),
    [
        ({"ExposedPorts": {"80/tcp": {}}}, {}, "port exposing and the container type network mode"),
        ({}, {"PortBindings": {"80/tcp": []}}, "port publishing and the container type network mode"),
        ({}, {"PublishAllPorts": True}, "port publishing and the container type network mode"),
        ({"Hostname": "x"}, {}, "hostname and the network mode"),
        ({}, {"Dns": ["1.1.1.1"]}, "dns and the network mode"),
        ({}, {"ExtraHosts": ["a:1.1.1.1"]}, "custom host-to-IP mapping and the network mode"),
        (
            {},
            {"Links": ["x"]},
            "container type network can't be used with links. This would result in undefined behavior",
        ),
    ],
)
def test_what_contradicts_it(engine: Engine, config: Any, host: Any, problem: str) -> None:
    """Found in the request alone, before anybody looks for the image."""
    body = {"Image": "no-such-image", "HostConfig": {"NetworkMode": "container:x", **host}, **config}
    refused = ask(engine.socket, "POST", "/containers/create", body)
    assert (refused.status, refused.message) == (400, f"conflicting options: {problem}")


@pytest.mark.parametrize(
    ("config", "host"),
    [
        ({"MacAddress": "02:42:ac:11:00:09", "Domainname": "x"}, {"PortBindings": {}}),
        ({}, {"DnsSearch": ["x"], "DnsOptions": ["ndots:2"]}),
    ],
)
def test_what_does_not_contradict_it(engine: Engine, donor: str, config: Any, host: Any) -> None:
    mode = {"NetworkMode": f"container:{donor}", **host}
    made = ask(engine.socket, "POST", "/containers/create", {"Image": "busybox", "HostConfig": mode, **config})
    assert made.status == 201
    assert ask(engine.socket, "POST", f"/containers/{made.json['Id']}/start").status == 204


def test_the_other_may_come_later(engine: Engine) -> None:
    id = engine.out("create", "--name", "early", "--network", "container:later", "busybox", "hostname")
    missing = ask(engine.socket, "POST", "/containers/early/start")
    assert (missing.status, missing.message) == (404, "No such container: later")
    state = ask(engine.socket, "GET", "/containers/early/json").json["State"]
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 128, "No such container: later")
    again = ask(engine.socket, "POST", f"/containers/{id}/restart")
    assert (again.status, again.message) == (500, f"Cannot restart container {id}: No such container: later")
    engine.out("create", "--name", "later", "--hostname", "found", *SLEEP)
    stopped = ask(engine.socket, "POST", "/containers/early/start")
    assert (stopped.status, stopped.message) == (409, "cannot join network of a non running container: later")
    engine.out("start", "later")
    assert engine.out("start", "-a", "early") == "found"


def test_nobody_joins_himself(engine: Engine) -> None:
    engine.out("create", "--name", "self", "--network", "container:self", "busybox", "true")
    refused = ask(engine.socket, "POST", "/containers/self/start")
    assert (refused.status, refused.message) == (500, "cannot join own network")


def test_a_composed_service_joins_one_that_exposes_ports(project: Both, exposing: str) -> None:
    project.write("""
services:
  server: {image: exposing, hostname: server, init: true, command: "sleep 1000"}
  sidecar: {image: exposing, network_mode: "service:server", init: true, command: sh -c "hostname; sleep 1000"}
""")
    for tool in ("docker", "havre"):
        project.by(tool, "up", "-d")
        until(lambda: "server" in project.docker("logs", "--no-log-prefix", "sidecar").stdout, "the name to be told")
        project.by(tool, "down", "-t", "0")
