"""A real nginx and a real redis from Debian's packages on two networks, seen from inside and from two other hosts.

host one 198.18.1.2 ══ 198.18.1.1 ┐                ┌ front 10.98.1.0/24   web (nginx, published on one address), app
                                  ├ the engine's ──┤                             │
host two 198.18.2.2 ══ 198.18.2.1 ┘      host      └ back  10.98.2.0/24   store (redis), app
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from support.engines import Engine, run
from support.images import debian_tree
from support.netns import neighbour
from support.waiting import until

IMAGE = "debian:net"
PROBE = ("busybox", "sleep", "1000")


@pytest.fixture
def hosts(havred: Engine) -> Iterator[tuple[str, str]]:
    """Two other hosts, each on a wire of its own; their default route leads to the engine's host."""
    with (
        neighbour(havred, "wire1", ["198.18.1.{}/24"]) as first,
        neighbour(havred, "wire2", ["198.18.2.{}/24"]) as second,
    ):
        run("ip", "-n", first, "route", "add", "default", "via", "198.18.1.1")
        run("ip", "-n", second, "route", "add", "default", "via", "198.18.2.1")
        yield first, second


@pytest.fixture
def site(havred: Engine, hosts: tuple[str, str]) -> Iterator[Engine]:
    """The containers of the picture."""
    havred.docker("import", str(debian_tree()), IMAGE, check=0, timeout_s=180)
    for name, subnet in (("front", "10.98.1.0/24"), ("back", "10.98.2.0/24")):
        havred.out("network", "create", "--subnet", subnet, name)
    web = ("--name", "web", "--network", "front", "--ip", "10.98.1.10", "-p", "198.18.1.1:18600:80", IMAGE)
    havred.out("run", "-d", *web, "nginx", "-g", "daemon off;")
    store = ("--name", "store", "--network", "back", "--network-alias", "cache", "--ip", "10.98.2.10", IMAGE)
    havred.out("run", "-d", *store, "redis-server", "--protected-mode", "no", "--save", "")
    havred.out("run", "-d", "--name", "app", "--network", "front", *PROBE)
    havred.out("network", "connect", "back", "app")
    yield havred
    havred.docker("rm", "-f", "web", "store", "app")
    havred.docker("network", "rm", "front", "back")
    havred.docker("rmi", "-f", IMAGE)


def ask_redis(engine: Engine, container: str, name: str) -> str:
    """What redis says to a PING by way of a name."""
    return engine.docker("exec", container, "sh", "-c", f"echo PING | nc -w 2 {name} 6379").stdout.strip()


def fetch(netns: str, url: str) -> bool:
    """Whether nginx greets a client in another host's namespace."""
    command = ["nsenter", f"--net=/run/netns/{netns}", "curl", "-s", "-m", "1", url]
    return "Welcome to nginx" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_names_isolation_and_the_world_outside(site: Engine, hosts: tuple[str, str]) -> None:
    page = ("exec", "app", "wget", "-qO-", "-T", "2", "http://web/")
    until(lambda: "Welcome to nginx" in site.docker(*page).stdout, "nginx by its name")
    for name in ("store", "cache", "store.back"):
        until(lambda name=name: ask_redis(site, "app", name) == "+PONG", f"redis as {name}")
    # One network does not reach the other, by name or by address.
    stranger = ("run", "--rm", "--network", "front", "busybox", "sh", "-c")
    inside = (
        "nslookup store >/dev/null 2>&1 && echo named; echo PING | nc -w 1 10.98.2.10 6379; wget -qO- -T 2 http://web/"
    )
    seen = site.docker(*stranger, inside, check=0).stdout
    assert "Welcome to nginx" in seen
    assert "PONG" not in seen
    assert "named" not in seen
    # Published on one address: there it is open to both hosts; neither reaches a container, whatever way it knows.
    one, two = hosts
    for host in hosts:
        until(lambda host=host: fetch(host, "http://198.18.1.1:18600/"), f"the page from {host}")
        assert not fetch(host, "http://198.18.2.1:18600/")
    assert not fetch(one, "http://10.98.1.10/")
    poke = ["nsenter", f"--net=/run/netns/{two}", "busybox", "nc", "-w", "1", "10.98.2.10", "6379"]
    reply = subprocess.run(poke, input="PING\n", capture_output=True, text=True, check=False).stdout
    assert reply == ""
