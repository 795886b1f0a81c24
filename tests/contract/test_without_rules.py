"""`--iptables=false`, `--ip6tables=false` and `--bridge=none`: no rule is made, and what works without."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from havre.linux.namespaces import in_netns
from support.engines import Dockerd, Engine, Havred, run, serving
from support.netns import neighbour, opened_inside
from support.waiting import until

RULELESS = ("--iptables=false", "--ip6tables=false")
PAGE = "echo page > /index.html; exec httpd -f -p 80 -h /"


@pytest.fixture(params=[Havred, Dockerd], ids=["havre", "dockerd"])
def kind(request: pytest.FixtureRequest, havred: Engine) -> type[Engine]:
    """An engine that the test starts with options of its own; `havred` narrows the leak check."""
    return request.param  # type: ignore[no-any-return]


def rules(engine: Engine) -> str:
    return run(*engine.inside, "nft", "list", "ruleset")


def got(inside: Sequence[str], url: str) -> bool:
    fetch = [*inside, "curl", "-sg", "-m", "5", url]
    return subprocess.run(fetch, capture_output=True, text=True, check=False).stdout == "page\n"


def test_published_ports_are_relayed_and_nothing_else_is_done(kind: type[Engine], archive: Path) -> None:
    with serving(kind(RULELESS), archive) as engine, neighbour(engine, "up0", ("198.18.0.{}/24",)) as outside:
        engine.out("network", "create", "other")
        engine.out("run", "-d", "--name", "web", "-p", "18502:80", "busybox", "sh", "-c", PAGE)
        until(lambda: got(engine.inside, "http://127.0.0.1:18502/"), "the page")
        assert got(engine.inside, "http://[::1]:18502/")
        assert got(["nsenter", f"--net=/run/netns/{outside}"], "http://198.18.0.1:18502/")
        assert engine.out("port", "web", "80/tcp").splitlines() == ["0.0.0.0:18502", "[::]:18502"]
        address = engine.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web")
        # Nothing keeps networks apart.
        assert engine.out("run", "--rm", "--network", "other", "busybox", "wget", "-qO-", address) == "page"
        engine.out("run", "-d", "--name", "named", "--network", "other", "busybox", "sleep", "1000")
        assert "bytes from" in engine.out("run", "--rm", "--network", "other", "busybox", "ping", "-c1", "named")
        local = run(*engine.inside, "sysctl", "-a", "--pattern", "route_localnet")
        assert {line.rpartition(" = ")[2] for line in local.splitlines()} == {"0"}
        check_datagrams(engine)
        assert rules(engine) == ""
        engine.docker("rm", "-f", "web", "named", "echo", check=0)
        engine.out("network", "rm", "other")


def check_datagrams(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "echo", "-p", "127.0.0.1:5302:53/udp", "busybox", "sleep", "1000")
    inside = Path("/proc", engine.out("inspect", "--format", "{{.State.Pid}}", "echo"), "ns/net")
    server = in_netns(inside, lambda: socket.socket(type=socket.SOCK_DGRAM))
    client = opened_inside(engine.netns, lambda: socket.socket(type=socket.SOCK_DGRAM))
    with server, client:
        server.bind(("0.0.0.0", 53))
        for each in (server, client):
            each.settimeout(10)
        client.connect(("127.0.0.1", 5302))
        client.send(b"hello")
        asked, peer = server.recvfrom(100)
        server.sendto(asked.upper(), peer)
        assert client.recv(100) == b"HELLO"


def test_rules_of_an_earlier_daemon_go_and_come(havred: Engine, archive: Path) -> None:
    with serving(Havred(), archive) as engine:
        engine.out("run", "-d", "--name", "web", "-p", "18503:80", "busybox", "sh", "-c", PAGE)
        until(lambda: got(engine.inside, "http://127.0.0.1:18503/"), "the page")
        with_rules = rules(engine)
        for options, expected in ((list(RULELESS), ""), ([], with_rules)):
            engine.stop(signal.SIGKILL)
            engine.extra = options
            engine.start()
            assert got(engine.inside, "http://127.0.0.1:18503/")
            assert rules(engine) == expected
        engine.docker("rm", "-f", "web", check=0)


def test_one_ip_version_alone(havred: Engine, archive: Path) -> None:
    with serving(Havred(["--ip6tables=false", "--ipv6", "--fixed-cidr-v6=fd00:98::/64"]), archive) as engine:
        engine.out("run", "-d", "--name", "web", "-p", "18504:80", "busybox", "sh", "-c", PAGE)
        until(lambda: got(engine.inside, "http://127.0.0.1:18504/"), "the page")
        assert got(engine.inside, "http://[::1]:18504/")
        assert "18504" in rules(engine)
        assert "table ip6" not in rules(engine)
        engine.docker("rm", "-f", "web", check=0)


def test_there_are_rules_only_for_networks(havred: Engine, archive: Path) -> None:
    with serving(Havred(["--bridge=none"]), archive) as engine:
        engine.docker("run", "--rm", "busybox", "true", check=0)
        assert rules(engine) == ""
        engine.out("network", "create", "one")
        assert "dnat" in rules(engine)
        engine.out("network", "rm", "one")
        assert rules(engine) == ""


def test_icc_needs_rules(kind: type[Engine]) -> None:
    engine = kind(["--iptables=false", "--icc=false"])
    try:
        with pytest.raises(AssertionError) as caught:
            engine.open()
        assert "You specified --iptables=false with --icc=false" in str(caught.value)
    finally:
        engine.stop()
        engine.close()
