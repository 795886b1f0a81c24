"""Networks without IPv4 (`EnableIPv4: false`, API 1.48), from outside: addresses, names, ports, routes, restarts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine, Havred, serving
from support.raw import ask
from support.waiting import until

ONLY_SIX = {"EnableIPv4": False, "EnableIPv6": True}


def create(engine: Engine, name: str, **asked: Any) -> None:
    reply = ask(engine.socket, "POST", "/v1.48/networks/create", {"Name": name, **asked})
    assert reply.status == 201, reply.body


@pytest.fixture
def six(havred: Engine) -> Iterator[str]:
    """The name of a network with IPv6 alone."""
    create(havred, "six", **ONLY_SIX)
    yield "six"
    havred.docker("network", "rm", "six", check=0)


@pytest.fixture
def web(havred: Engine, six: str) -> Iterator[str]:
    """The name of a container on it that answers by HTTP, and publishes its port."""
    serve = "echo hello > /index.html; exec httpd -f -p 80"
    havred.out("run", "-d", "--name", "web", "--network", six, "-p", "8466:80", "busybox", "sh", "-c", serve)
    yield "web"
    havred.docker("rm", "-f", "web", check=0)


def inside(engine: Engine, container: str, *command: str) -> str:
    return engine.out("exec", container, *command)


def test_it_is_shown(havred: Engine, six: str, web: str) -> None:
    network = ask(havred.socket, "GET", f"/networks/{six}").json
    assert (network["EnableIPv4"], network["EnableIPv6"]) == (False, True)
    (pool,) = network["IPAM"]["Config"]
    assert pool["Subnet"].startswith("fd")
    (member,) = network["Containers"].values()
    assert member["IPv4Address"] == ""
    assert member["IPv6Address"].endswith("/64")
    settings = json.loads(havred.out("inspect", "-f", "{{json .NetworkSettings.Networks.six}}", web))
    assert (settings["IPAddress"], settings["IPPrefixLen"], settings["Gateway"]) == ("", 0, "")
    assert settings["GlobalIPv6Address"] == member["IPv6Address"].removesuffix("/64")
    assert (settings["GlobalIPv6PrefixLen"], settings["IPv6Gateway"]) == (64, pool["Gateway"])
    assert settings["MacAddress"].startswith("02:42:")


def test_older_clients_know_of_ipv4_alone(havred: Engine, six: str) -> None:
    assert "EnableIPv4" not in ask(havred.socket, "GET", f"/v1.47/networks/{six}").json
    assert all("EnableIPv4" not in row for row in ask(havred.socket, "GET", "/v1.47/networks").json)
    reply = ask(havred.socket, "POST", "/v1.47/networks/create", {"Name": "older", **ONLY_SIX})
    shown = ask(havred.socket, "GET", f"/networks/{reply.json['Id']}").json
    assert shown["EnableIPv4"] is True
    assert len(shown["IPAM"]["Config"]) == 2
    havred.out("network", "rm", "older")


def test_containers_have_no_ipv4_and_reach_each_other_by_name(havred: Engine, six: str, web: str) -> None:
    shown = havred.out("run", "--rm", "--network", six, "busybox", "ip", "-4", "-o", "address", "show", "eth0")
    assert shown == ""
    script = (
        "set -e; nslookup -type=aaaa web; nslookup -type=a web || true; ping -6 -c 1 -W 5 web; wget -q -O - http://web"
    )
    said = havred.out("run", "--rm", "--network", six, "busybox", "sh", "-c", script)
    address = havred.out("inspect", "-f", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}", web)
    assert f"Address: {address}" in said
    assert "1 packets received" in said
    assert said.endswith("hello")
    assert said.count("Address: ") == 1
    reverse = havred.out("run", "--rm", "--network", six, "busybox", "nslookup", address)
    assert "web.six" in reverse
    assert f"{address}\t" in inside(havred, web, "cat", "/etc/hosts")


def test_a_published_port_serves_clients_of_both_ip_versions(havred: Engine, web: str) -> None:
    for host in ("127.0.0.1", "[::1]"):
        fetch = [*havred.inside, "busybox", "wget", "-q", "-T", "5", "-O", "-", f"http://{host}:8466/"]
        assert subprocess.run(fetch, check=True, capture_output=True, text=True).stdout == "hello\n"


def test_each_ip_version_has_its_way_out(havred: Engine, six: str) -> None:
    create(havred, "four")
    havred.out("run", "-d", "--name", "both", "--network", six, "busybox", "sleep", "1000")
    assert "default" not in inside(havred, "both", "ip", "-4", "route")
    havred.out("network", "connect", "four", "both")
    ways = {version: inside(havred, "both", "ip", f"-{version}", "route", "show", "default") for version in (4, 6)}
    assert "dev eth1" in ways[4]
    assert "dev eth0" in ways[6]
    havred.out("network", "disconnect", six, "both")
    assert inside(havred, "both", "ip", "-6", "route", "show", "default") == ""
    assert "dev eth1" in inside(havred, "both", "ip", "-4", "route", "show", "default")
    havred.out("rm", "-f", "both")
    havred.out("network", "rm", "four")


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"EnableIPv4": False}, 400, "IPv4 or IPv6 must be enabled"),
        ({"EnableIPv4": False, "EnableIPv6": False}, 400, "IPv4 or IPv6 must be enabled"),
        (
            {**ONLY_SIX, "Driver": "overlay", "Attachable": True},
            400,
            "IPv4 cannot be disabled in a Swarm scoped network",
        ),
        ({"Options": {"com.docker.network.enable_ipv4": "perhaps"}}, 400, "enable_ipv4"),
    ],
)
def test_networks_that_cannot_be(havred: Engine, asked: dict[str, Any], status: int, words: str) -> None:
    reply = ask(havred.socket, "POST", "/networks/create", {"Name": "no", **asked})
    assert reply.status == status
    assert words in reply.message


def test_an_ipv4_address_is_refused(havred: Engine, six: str) -> None:
    done = havred.docker("run", "--rm", "--network", six, "--ip", "172.30.0.5", "busybox", "true", check=125)
    assert "no configured subnet or ip-range contain the IP address 172.30.0.5" in done.stderr


def test_the_daemons_default_options_may_say_so(tmp_path: Path, archive: Path) -> None:
    options = {"com.docker.network.enable_ipv4": "false", "com.docker.network.enable_ipv6": "true"}
    (tmp_path / "daemon.json").write_text(json.dumps({"default-network-opts": {"bridge": options}}))
    with serving(Havred(["--config-file", str(tmp_path / "daemon.json")]), archive) as engine:
        create(engine, "usual")
        create(engine, "asked", EnableIPv4=True, EnableIPv6=False)
        shown = {name: ask(engine.socket, "GET", f"/networks/{name}").json for name in ("usual", "asked")}
        versions = {name: (each["EnableIPv4"], each["EnableIPv6"]) for name, each in shown.items()}
        assert versions == {"usual": (False, True), "asked": (True, False)}
        assert shown["asked"]["Options"] == {}


def test_it_survives_a_restart_of_the_daemon(archive: Path) -> None:
    with serving(Havred(), archive) as engine:
        create(engine, "six", **ONLY_SIX)
        engine.out("run", "-d", "--name", "web", "--network", "six", "-p", "8467:80", "busybox", "httpd", "-f")
        before = json.loads(engine.out("inspect", "-f", "{{json .NetworkSettings.Networks.six}}", "web"))
        engine.stop()
        engine.start()
        after = json.loads(engine.out("inspect", "-f", "{{json .NetworkSettings.Networks.six}}", "web"))
        assert after == before
        taken = "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}"
        engine.out("run", "-d", "--name", "other", "--network", "six", "busybox", "sleep", "1000")
        assert engine.out("inspect", "-f", taken, "other") != before["GlobalIPv6Address"]
        until(lambda: engine.docker("exec", "other", "ping", "-6", "-c", "1", "-W", "2", "web").returncode == 0, "ping")
        fetch = [*engine.inside, "busybox", "wget", "-q", "-T", "5", "-O", "-", "http://127.0.0.1:8467/"]
        assert b"404 Not Found" in subprocess.run(fetch, check=False, capture_output=True).stderr
