"""Gateway modes of bridge networks (`gateway_mode_ipv4`, Docker 27 and 28), seen from another machine with a route.

dockerd 26 keeps the options and does nothing; the expectations are those of Docker's documentation.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.engines import Engine, run
from support.netns import neighbour
from support.raw import ask
from support.waiting import until

GATEWAY_MODE = "com.docker.network.bridge.gateway_mode_ipv"
TWO_PORTS = "echo page > /index.html; for port in 81 80; do httpd -p $PLACE$port -h /; done; exec sleep 1000"


@pytest.fixture
def outside(havred: Engine) -> Iterator[str]:
    """A network namespace that stands for another machine, with routes to containers by way of the engine's host."""
    with neighbour(havred, "up0", ("198.18.0.{}/24", "2001:db8:18::{}/64")) as name:
        run("ip", "-n", name, "route", "add", "10.90.0.0/16", "via", "198.18.0.1")
        run("ip", "-n", name, "route", "add", "2001:db8:90::/48", "via", "2001:db8:18::1")
        yield name


@pytest.fixture(autouse=True)
def swept(havred: Engine) -> Iterator[None]:
    """Nothing stays for the leak check to find."""
    kept = havred.objects()
    yield
    havred.tidy(kept)


def network(engine: Engine, name: str, subnet: str, *options: str) -> None:
    engine.out("network", "create", "--subnet", subnet, *options, name)


def serve(engine: Engine, name: str, network: str, *options: str) -> None:
    engine.out("run", "-d", "--name", name, "--network", network, *options, "busybox", "sh", "-c", TWO_PORTS)
    until(lambda: engine.docker("exec", name, "wget", "-qO-", "127.0.0.1:80").returncode == 0, f"{name} to serve")


def reached(netns: str, *places: str) -> set[str]:
    """Those of `places` that have the page."""
    curl = ("nsenter", f"--net=/run/netns/{netns}", "curl", "-sg", "-m", "1")
    asked = {each: subprocess.Popen([*curl, f"http://{each}/"], stdout=subprocess.PIPE, text=True) for each in places}
    return {each for each, process in asked.items() if process.communicate()[0] == "page\n"}


def ports_of(engine: Engine, name: str) -> dict[str, list[dict[str, str]]]:
    shown: dict[str, list[dict[str, str]]] = json.loads(
        engine.out("inspect", "--format", "{{json .NetworkSettings.Ports}}", name)
    )
    return shown


def test_routed(havred: Engine, outside: str) -> None:
    network(havred, "routed", "10.90.1.0/24", "-o", f"{GATEWAY_MODE}4=routed")
    network(havred, "other", "10.90.2.0/24")
    serve(havred, "web", "routed", "-p", "18080:80")
    serve(havred, "twin", "routed", "-p", "18080:80")  # no port of the host's that it could be taken
    serve(havred, "guest", "other")
    assert ports_of(havred, "web") == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]}

    places = ("10.90.1.2:80", "10.90.1.3:80", "10.90.1.2:81", "198.18.0.1:18080", "10.90.2.2:80")

    def is_right() -> None:
        assert reached(outside, *places) == {"10.90.1.2:80", "10.90.1.3:80"}
        assert reached(havred.netns, "127.0.0.1:18080", "[::1]:18080") == set()

    is_right()
    # Other networks reach what is published; and nobody sees the host's address in place of the container's.
    assert havred.docker("exec", "guest", "wget", "-qO-", "-T", "1", "10.90.1.2:80").stdout == "page\n"
    assert havred.docker("exec", "guest", "wget", "-qO-", "-T", "1", "10.90.1.2:81").returncode != 0
    run("nsenter", f"--net=/run/netns/{outside}", "busybox", "ping", "-qc1", "-W2", "10.90.1.2")
    run("ip", "-n", outside, "route", "del", "10.90.0.0/16")
    ping = ("ping", "-c1", "-W1", "198.18.0.2")
    assert [havred.docker("exec", name, *ping).returncode for name in ("web", "guest")] == [1, 0]
    run("ip", "-n", outside, "route", "add", "10.90.0.0/16", "via", "198.18.0.1")
    havred.stop(signal.SIGKILL)
    havred.start()
    is_right()
    bindings = {"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}, "Givers": ["web"]}
    for _ in range(2):  # it has that already; and who is reached by a route gives nothing
        assert ask(havred.socket, "POST", "/containers/twin/ports", bindings).status == 204
    assert ports_of(havred, "twin") == ports_of(havred, "web") == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]}
    # Where the published ports go when the container leaves the network.
    havred.out("network", "connect", "other", "web")
    havred.out("network", "disconnect", "routed", "web")
    assert ports_of(havred, "web")["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": "18080"}
    assert reached(outside, "198.18.0.1:18080", "10.90.2.3:80") == {"198.18.0.1:18080"}


def test_routed_by_ipv6_alone(havred: Engine, outside: str) -> None:
    six = ("--ipv6", "--subnet", "2001:db8:90::/64", "-o", f"{GATEWAY_MODE}6=routed")
    network(havred, "dual", "10.90.3.0/24", *six)
    serve(havred, "web", "dual", "-p", "18080:80", "-e", "PLACE=[::]:")
    expected = [{"HostIp": "0.0.0.0", "HostPort": "18080"}, {"HostIp": "::", "HostPort": ""}]
    assert ports_of(havred, "web") == {"80/tcp": expected}
    open = {"[2001:db8:90::2]:80", "198.18.0.1:18080"}
    closed = {"[2001:db8:90::2]:81", "[2001:db8:18::1]:18080", "10.90.3.2:80"}
    assert reached(outside, *open, *closed) == open


def test_unprotected_and_trusted(havred: Engine, outside: str) -> None:
    network(havred, "lax", "10.90.4.0/24", "-o", f"{GATEWAY_MODE}4=nat-unprotected")
    network(havred, "fond", "10.90.5.0/24", "-o", "com.docker.network.bridge.trusted_host_interfaces=up0:up9")
    for name in ("lax", "fond"):
        serve(havred, f"{name}-web", name, "-p", "127.0.0.1::80")
    places = [f"10.90.{network}.2:{port}" for network in (4, 5) for port in (80, 81)]
    assert reached(outside, *places) == {"10.90.4.2:80", "10.90.4.2:81", "10.90.5.2:80"}
    for name, there in (("lax-web", "10.90.5.2"), ("fond-web", "10.90.4.2")):
        assert havred.docker("exec", name, "wget", "-qO-", "-T", "1", f"{there}:80").returncode != 0, name


def test_the_host_is_no_part_of_isolated_networks(havred: Engine) -> None:
    bridge = "com.docker.network.bridge"
    refused = havred.docker("network", "create", "-o", f"{GATEWAY_MODE}4=isolated", "apart", check=1).stderr
    assert "can only be used for an internal network" in refused
    isolated = ("--internal", "-o", f"{GATEWAY_MODE}4=isolated", "-o", f"{bridge}.name=hv-apart")
    network(havred, "apart", "10.90.6.0/24", *isolated)
    network(havred, "inhibited", "10.90.7.0/24", "-o", f"{bridge}.inhibit_ipv4=true", "-o", f"{bridge}.name=hv-inhib")
    for device in ("hv-apart", "hv-inhib"):
        assert run("ip", "-n", havred.netns, "-4", "addr", "show", "dev", device) == ""
    for name in ("one", "two"):
        serve(havred, name, "apart")
    assert havred.out("exec", "one", "wget", "-qO-", "two") == "page"
    assert reached(havred.netns, "10.90.6.2:80") == set()
