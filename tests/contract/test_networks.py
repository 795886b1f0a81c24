"""Networks that users make: names, live changes, several at once; seen from inside the containers."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import Engine, run
from support.netns import neighbour, opened_inside
from support.raw import ask
from support.waiting import until

HOST_IPV4 = "com.docker.network.host_ipv4"
SLEEP = (
    "--dns",
    "127.0.0.2",
    "busybox",
    "sleep",
    "1000",
)  # asked inside, where nobody answers: a name unknown is so at once


def lookup(engine: Engine, container: str, name: str) -> set[str]:
    """The addresses that a program in the container finds for a name."""
    done = engine.docker("exec", container, "nslookup", name)
    answer = done.stdout.partition("Non-authoritative")[2].replace("\t", " ").splitlines()
    return {line.rpartition(" ")[2] for line in answer if line.startswith(("Address:", "Address 1:"))}


def networks(engine: Engine, container: str) -> dict[str, Any]:
    """`NetworkSettings.Networks` of a container."""
    shown = engine.out("inspect", "--format", "{{json .NetworkSettings.Networks}}", container)
    return json.loads(shown)  # type: ignore[no-any-return]


def address(engine: Engine, container: str, network: str) -> str:
    return str(networks(engine, container)[network]["IPAddress"])


@pytest.fixture
def world(engine: Engine) -> Iterator[Engine]:
    """Networks `front` and `back` (10.99.2.0/24), and containers `web`, on front, and `db`, on back."""
    engine.out("network", "create", "front")
    engine.out("network", "create", "--subnet", "10.99.2.0/24", "back")
    engine.out("run", "-d", "--name", "web", "--network", "front", "--network-alias", "site", *SLEEP)
    engine.out("run", "-d", "--name", "db", "--network", "back", "--hostname", "dbhost", *SLEEP)
    yield engine
    engine.docker("rm", "-f", *engine.out("ps", "-aq").split())
    engine.docker("network", "rm", "front", "back", check=0)


class TestNames:
    def test_on_users_networks_internal_ones_and_the_default_bridge(self, world: Engine) -> None:
        other = world.out("run", "-d", "--name", "web2", "--network", "front", "--network-alias", "site", *SLEEP)
        first, second = address(world, "web", "front"), address(world, "web2", "front")
        for name in ("web", "WEB", "web.front"):
            assert lookup(world, "web2", name) == {first}
        assert lookup(world, "web", other[:12]) == {second}
        assert lookup(world, "web", "site") == {first, second}
        assert "name = web2.front" in world.out("exec", "web", "nslookup", second)
        assert lookup(world, "web", "db") == set()
        world.docker("rename", "web2", "web3", check=0)
        assert lookup(world, "web", "web3") == {second}
        assert lookup(world, "web", "web2") == set()
        world.docker("rm", "-f", "web3", check=0)
        assert lookup(world, "web", "site") == {first}

        world.out("network", "create", "--internal", "vault")
        world.out("run", "-d", "--name", "safe", "--network", "vault", *SLEEP)
        assert "SERVFAIL" in world.docker("exec", "safe", "nslookup", "example.org").stdout
        world.docker("rm", "-f", "safe", check=0)
        world.docker("network", "rm", "vault", check=0)

        world.out("run", "-d", "--name", "old", *SLEEP)
        inside = world.out("run", "--rm", "--link", "old:database", "busybox", "cat", "/etc/hosts")
        line = f"{address(world, 'old', 'bridge')}\tdatabase {world.out('ps', '-q', '--filter', 'name=old')} old"
        assert line in inside.splitlines()


class TestLive:
    def test_a_running_container_changes_networks(self, world: Engine) -> None:
        since = str(time.time())
        world.docker("network", "connect", "--alias", "store", "--ip", "10.99.2.77", "back", "web", check=0)
        assert lookup(world, "db", "store") == {"10.99.2.77"}
        assert lookup(world, "web", "dbhost") == {address(world, "db", "back")}
        assert "1 packets received" in world.out("exec", "web", "ping", "-c", "1", "-W", "5", "db")
        assert "10.99.2.77/24" in world.out("exec", "web", "ip", "addr", "show", "eth1")
        assert "10.99.2.77" in world.out("exec", "web", "cat", "/etc/hosts")
        assert networks(world, "web")["back"]["Aliases"] == ["store"]
        again = world.docker("network", "connect", "back", "web", check=1)
        assert "endpoint with name web already exists in network back" in again.stderr
        assert world.out("network", "inspect", "--format", "{{len .Containers}}", "back") == "2"

        gateway = networks(world, "web")["back"]["Gateway"]
        world.docker("network", "disconnect", "front", "web", check=0)
        assert f"default via {gateway} dev eth1" in world.out("exec", "web", "ip", "route")
        assert "front" not in networks(world, "web")
        assert "is not connected to network front" in world.docker("network", "disconnect", "front", "web").stderr
        world.docker("network", "disconnect", "back", "web", check=0)
        assert networks(world, "web") == {}
        assert lookup(world, "db", "store") == set()
        world.docker("network", "connect", "front", "web", check=0)
        assert "default via" in world.out("exec", "web", "ip", "route")

        shown = world.out("events", "--since", since, "--until", str(time.time()), "--filter", "type=network")
        told = [(line.split()[2], "name=" + line.partition("name=")[2].split(",")[0]) for line in shown.splitlines()]
        assert list(dict.fromkeys(told)) == [  # dockerd tells of some twice
            ("connect", "name=back"),
            ("disconnect", "name=front"),
            ("disconnect", "name=back"),
            ("connect", "name=front"),
        ]

    def test_published_ports_follow(self, world: Engine) -> None:
        world.out("network", "create", "edge")
        page = "echo page > /index.html; exec httpd -f -p 80 -h /"
        world.out("run", "-d", "--name", "site", "--network", "edge", "-p", "18200:80", "busybox", "sh", "-c", page)
        host = networks(world, "web")["front"]["Gateway"]

        def fetched() -> bool:
            return world.docker("exec", "web", "wget", "-qO-", "-T", "2", f"http://{host}:18200/").stdout == "page\n"

        until(fetched, "the page on the first network")
        world.docker("network", "connect", "back", "site", check=0)
        world.docker("network", "disconnect", "edge", "site", check=0)
        until(fetched, "the page on the second network")
        world.docker("rm", "-f", "site", check=0)
        world.docker("network", "rm", "edge", check=0)

    def test_a_container_that_does_not_run(self, world: Engine) -> None:
        world.out("create", "--name", "later", "--network", "front", *SLEEP)
        world.docker("network", "connect", "--ip", "10.99.2.50", "--alias", "late", "back", "later", check=0)
        world.docker("start", "later", check=0)
        assert lookup(world, "db", "late") == {"10.99.2.50"}
        world.docker("stop", "-t", "0", "later", check=0)
        world.docker("network", "disconnect", "front", "later", check=0)
        world.docker("start", "later", check=0)
        assert set(networks(world, "later")) == {"back"}

    def test_what_does_not_go_together(self, world: Engine) -> None:
        shared = "container sharing network namespace with another container or host cannot be connected"
        private = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        for mode, message in (("host", shared), ("container:web", shared), ("none", private)):
            world.out("run", "-d", "--name", "odd", "--network", mode, "busybox", "sleep", "1000")
            assert message in world.docker("network", "connect", "front", "odd", check=1).stderr
            world.docker("rm", "-f", "odd", check=0)
        assert "from host network or connected to host" in world.docker("network", "connect", "host", "web").stderr
        for predefined in ("host", "none", "bridge"):
            refused = world.docker("network", "connect", "--alias", "x", predefined, "web", check=1).stderr
            assert "network-scoped alias is supported only for containers in user defined networks" in refused
        assert "network nope not found" in world.docker("network", "connect", "nope", "web", check=1).stderr
        assert "No such container: nope" in world.docker("network", "connect", "front", "nope", check=1).stderr
        assert "endpoint nope not found" in world.docker("network", "disconnect", "-f", "front", "nope").stderr

        more = ("--network", "name=back,ip=10.99.2.60,alias=second")
        world.out("run", "-d", "--name", "both", "--network", "front", *more, *SLEEP)
        assert lookup(world, "db", "second") == {"10.99.2.60"}
        assert lookup(world, "web", "both") == {address(world, "both", "front")}


def waits(inside: list[str], protocol: str) -> bool:
    """Whether bytes or a connection wait in a socket at 127.0.0.11."""
    listed = subprocess.run([*inside, "ss", "-Hanl", f"--{protocol}"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return any(int(row[1]) > 0 for row in rows if row[3].startswith("127.0.0.11:"))


def test_names_after_a_crash_of_the_daemon(havred: Engine) -> None:
    havred.out("network", "create", "lasting")
    for name, runtime in (("one", "crun"), ("two", "runc")):
        # One is connected when it is made, the other while it runs.
        networks = ("--network", "lasting") if name == "two" else ()
        havred.out("run", "-d", "--name", name, *networks, "--runtime", runtime, *SLEEP)
        # What is kept for the next daemon is out of the container's reach.
        assert "socket" not in havred.out("exec", name, "ls", "-l", "/proc/1/fd")
    inside = ["nsenter", f"--net=/proc/{havred.out('inspect', '--format', '{{.State.Pid}}', 'one')}/ns/net"]
    assert "127.0.0.11" not in run(*inside, "ss", "-Hanltu")  # before it has names nothing is to be seen
    havred.stop(signal.SIGKILL)
    havred.start()
    havred.out("network", "connect", "lasting", "one")
    havred.stop(signal.SIGKILL)
    for protocol in ("udp", "tcp"):
        once = f"import dns.query, dns.message; q = dns.message.make_query('two', 'A'); print(dns.query.{protocol}("
        command = [*inside, sys.executable, "-c", once + "q, '127.0.0.11', timeout=30).answer)"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asked:
            until(lambda: waits(inside, protocol), f"a question by {protocol} to wait for the next daemon")  # noqa: B023
            havred.start()
            assert address(havred, "two", "lasting") in (asked.stdout.read() if asked.stdout else "")
        havred.stop(signal.SIGTERM)
    havred.start()
    assert lookup(havred, "one", "two") == {address(havred, "two", "lasting")}
    havred.docker("rm", "-f", "one", "two", check=0)
    havred.docker("network", "rm", "lasting", check=0)


def test_pools_are_listed_as_libnetwork_keeps_them(engine: Engine) -> None:
    subnets = ("--ipv6", "--subnet", "fd00:5::/64", "--subnet", "10.91.0.0/24")
    engine.out("network", "create", *subnets, "both")
    shown = json.loads(engine.out("network", "inspect", "-f", "{{json .IPAM.Config}}", "both"))
    engine.out("network", "rm", "both")
    assert [pool["Subnet"] for pool in shown] == ["10.91.0.0/24", "fd00:5::/64"]


def test_a_network_that_is_gone_is_forgotten(engine: Engine) -> None:
    for name in ("idle", "busy"):
        engine.out("network", "create", "gone")
        engine.out("create", "--name", name, "--network", "gone", "busybox", "sleep", "1000")
        engine.out("network", "rm", "gone")
    assert "network gone not found" in engine.docker("start", "busy", check=1).stderr
    engine.docker("network", "disconnect", "gone", "idle", check=0)
    engine.docker("network", "disconnect", "-f", "gone", "busy", check=0)
    assert engine.out("inspect", "--format", "{{json .NetworkSettings.Networks}}", "idle", "busy") == "{}\n{}"
    engine.out("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    for network, force, ref, status, message in (
        ("gone", True, "busy", 500, "is not connected to the network gone"),
        ("gone", True, "runs", 500, "is not connected to the network gone"),
        ("gone", False, "runs", 404, "network gone not found"),
        ("gone", True, "nobody", 404, "network gone not found"),
        ("gone", False, "nobody", 404, "No such container: nobody"),
        ("none", False, "idle", 500, "is not connected to the network none"),
    ):
        refused = ask(engine.socket, "POST", f"/networks/{network}/disconnect", {"Container": ref, "Force": force})
        assert (refused.status, message in refused.message) == (status, True), (force, ref, refused.message)
    engine.docker("rm", "-f", "idle", "busy", "runs", check=0)


def test_hosts_without_ipv6(engine: Engine) -> None:
    for name, expected in (("all", False), ("lo", False), ("default", True)):
        off = ("--sysctl", f"net.ipv6.conf.{name}.disable_ipv6=1", "--add-host", "six:fd00::5")
        shown = engine.out("run", "--rm", *off, "busybox", "cat", "/etc/hosts")
        assert ("::1\tlocalhost" in shown, "six" in shown, "ip6-allnodes" in shown) == (expected,) * 3, name


def test_packets_of_a_network_have_the_address_that_it_says(engine: Engine) -> None:
    with neighbour(engine, "up0", ("198.18.0.{}/24",)) as outside:
        run("ip", "-n", engine.netns, "addr", "add", "198.18.0.9/24", "dev", "up0")
        engine.out("network", "create", "-o", f"{HOST_IPV4}=198.18.0.9", "seen")
        engine.out("network", "create", "plain")
        with opened_inside(outside, lambda: socket.create_server(("198.18.0.2", 7000))) as server:
            server.settimeout(10)
            for name, address in (("seen", "198.18.0.9"), ("plain", "198.18.0.1")):
                engine.out("run", "-d", "--name", name, "--network", name, "busybox", "nc", "198.18.0.2", "7000")
                client, peer = server.accept()
                client.close()
                assert peer[0] == address
        engine.docker("rm", "-f", "seen", "plain", check=0)
        engine.out("network", "rm", "seen", "plain")
    refused = ask(engine.socket, "POST", "/networks/create", {"Name": "x", "Options": {HOST_IPV4: "nonsense"}})
    assert (refused.status, refused.message) == (400, f"failed to parse {HOST_IPV4} value: nonsense (nil ip)")
