"""Networks by their options, lists and filters, on both engines: seen from inside, from the host and from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.engines import Engine, run
from support.netns import neighbour
from support.waiting import until

SLEEP = ("busybox", "sleep", "1000")
BRIDGE = "com.docker.network.bridge"
_ECHO = """
import socket, sys
near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.settimeout(0.5)
near.sendto(b"ask", (sys.argv[1], int(sys.argv[2])))
print(near.recv(99).decode())
"""
_SERVER = """
import socket
near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.bind(("", 53))
while True:
    near.sendto(*near.recvfrom(99))
"""


@pytest.fixture
def swept(engine: Engine) -> Iterator[Engine]:
    """Nothing stays for the leak check to find."""
    kept = engine.objects()
    yield engine
    engine.tidy(kept)


@pytest.fixture
def outside(engine: Engine) -> Iterator[str]:
    """A network namespace that stands for another machine: 198.18.0.2, the engine's host being 198.18.0.1."""
    with neighbour(engine, "up0", ["198.18.0.{}/24"]) as name:
        yield name


def python(netns: str, program: str, *arguments: str) -> str:
    """What a program prints that runs in a network namespace."""
    command = ["nsenter", f"--net={netns}", sys.executable, "-I", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def inside(engine: Engine, container: str) -> str:
    return f"/proc/{engine.out('inspect', '--format', '{{.State.Pid}}', container)}/ns/net"


FILTERS: Sequence[tuple[tuple[str, ...], set[str]]] = (
    ((), {"bridge", "host", "none", "red", "reddish", "used"}),
    (("name=red",), {"red", "reddish"}),
    (("name=^red$",), {"red"}),
    (("driver=bridge",), {"bridge", "red", "reddish", "used"}),
    (("driver=null", "driver=host"), {"host", "none"}),
    (("type=builtin",), {"bridge", "host", "none"}),
    (("type=custom", "label=team"), {"red", "reddish"}),
    (("label=team=x",), {"red"}),
    (("label=team=x", "label=more"), set()),
    (("scope=local", "name=us"), {"used"}),
    (("scope=swarm",), set()),
)


def test_filters(swept: Engine) -> None:
    for name, label in (("red", "team=x"), ("reddish", "team=y"), ("used", "other")):
        swept.out("network", "create", "--label", label, name)
    for filters, expected in FILTERS:
        options = [option for text in filters for option in ("--filter", text)]
        assert set(swept.out("network", "ls", *options, "--format", "{{.Name}}").split()) == expected, filters


def test_networks_that_dangle(havred: Engine) -> None:
    """dockerd 26 takes all for such: it looks at containers that its list does not have."""
    kept = havred.objects()
    for name in ("used", "idle"):
        havred.out("network", "create", name)
    havred.out("run", "-d", "--network", "used", *SLEEP)
    for dangling, expected in (("true", {"idle"}), ("false", {"bridge", "host", "none", "used"})):
        listed = havred.out("network", "ls", "--filter", f"dangling={dangling}", "--format", "{{.Name}}")
        assert set(listed.split()) == expected
    havred.tidy(kept)


def test_prune_and_what_may_not_go(swept: Engine) -> None:
    for name, label in (("keep", "stay"), ("go", "team"), ("busy", "team")):
        swept.out("network", "create", "--label", label, name)
    swept.out("run", "-d", "--name", "one", "--network", "busy", *SLEEP)
    swept.out("create", "--name", "two", "--network", "keep", *SLEEP)
    assert swept.out("network", "prune", "-f", "--filter", "label=team") == "Deleted Networks:\ngo"
    assert swept.out("network", "prune", "-f", "--filter", "until=1h") == ""
    assert "has active endpoints" in swept.docker("network", "rm", "busy", check=1).stderr
    for name in ("bridge", "host", "none"):
        assert "is a pre-defined network" in swept.docker("network", "rm", name, check=1).stderr
    assert swept.out("network", "prune", "-f") == "Deleted Networks:\nkeep"  # no running container is on it
    assert "keep not found" in swept.docker("start", "two", check=1).stderr
    swept.out("rm", "-f", "one")
    swept.out("network", "rm", "busy")
    assert swept.out("network", "ls", "--filter", "type=custom", "-q") == ""


def test_options_of_a_bridge(swept: Engine, outside: str) -> None:
    options = {
        f"{BRIDGE}.name": "hv-own",
        "com.docker.network.driver.mtu": "1400",
        f"{BRIDGE}.enable_icc": "false",
        f"{BRIDGE}.enable_ip_masquerade": "false",
        f"{BRIDGE}.host_binding_ipv4": "127.0.0.1",
    }
    given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    addresses = ("--subnet", "10.92.0.0/24", "--gateway", "10.92.0.9", "--label", "team=x", "--attachable")
    swept.out("network", "create", *given, *addresses, "own")
    (shown,) = json.loads(swept.out("network", "inspect", "own"))
    assert (shown["Options"], shown["Labels"], shown["Attachable"]) == (options, {"team": "x"}, True)
    serve = ("busybox", "sh", "-c", "echo page > /index.html; exec httpd -f -p 80 -h /")
    swept.out("run", "-d", "--name", "web", "--network", "own", "--ip", "10.92.0.50", "-p", "18480:80", *serve)
    swept.out("run", "-d", "--name", "peer", "--network", "own", *SLEEP)
    assert "10.92.0.9/24" in run("ip", "-n", swept.netns, "addr", "show", "dev", "hv-own")
    assert "mtu 1400" in swept.out("exec", "web", "ip", "addr", "show", "dev", "eth0")
    assert "default via 10.92.0.9" in swept.out("exec", "web", "ip", "route")
    page = [*swept.inside, "curl", "-s", "-m", "1"]
    until(lambda: subprocess.run([*page, "127.0.0.1:18480"], capture_output=True, check=False).stdout, "the page")
    assert subprocess.run([*page, "198.18.0.1:18480"], capture_output=True, check=False).stdout == b""
    assert swept.docker("exec", "peer", "wget", "-qO-", "-T", "1", "10.92.0.50").returncode != 0
    ping = ("exec", "peer", "ping", "-c1", "-W1", "198.18.0.2")
    assert swept.docker(*ping).returncode == 1  # nobody there knows the way to 10.92.0.0/24
    run("ip", "-n", outside, "route", "add", "10.92.0.0/24", "via", "198.18.0.1")
    assert swept.docker(*ping).returncode == 0
    swept.docker("network", "rm", "own", check=1)


def test_udp_ports(swept: Engine, outside: str) -> None:
    # From the host by 127.0.0.1, from outside, and from a container on another network.
    swept.out("network", "create", "other")
    swept.out("run", "-d", "--name", "echo", "-p", "18453:53/udp", *SLEEP)
    swept.out("run", "-d", "--name", "guest", "--network", "other", *SLEEP)
    server = ["nsenter", f"--net={inside(swept, 'echo')}", sys.executable, "-I", "-c", _SERVER]
    with subprocess.Popen(server) as serving:
        try:
            for netns, where in (
                (f"/run/netns/{outside}", "198.18.0.1"),
                (f"/run/netns/{swept.netns}", "127.0.0.1"),
                (inside(swept, "guest"), "198.18.0.1"),
            ):
                until(lambda n=netns, w=where: python(n, _ECHO, w, "18453") == "ask", f"an answer from {where} by UDP")  # type: ignore[misc]
        finally:
            serving.kill()


def test_addresses_have_names(swept: Engine) -> None:
    swept.out("network", "create", "--subnet", "10.93.0.0/24", "named")
    for name, last in (("web", 20), ("db", 30)):
        swept.out("run", "-d", "--name", name, "--network", "named", "--ip", f"10.93.0.{last}", *SLEEP)
    ask = (
        "import dns.query, dns.message, dns.reversename; "
        "q = dns.message.make_query(dns.reversename.from_address('10.93.0.30'), 'PTR'); "
        "print(*(str(rr) for rrset in getattr(dns.query, way)(q, '127.0.0.11', timeout=5).answer for rr in rrset))"
    )
    for way in ("udp", "tcp"):
        assert python(inside(swept, "web"), f"way = '{way}'; {ask}") == "db.named."


def test_five_thousand_questions_are_answered(havred: Engine, tmp_path: Path) -> None:
    kept = havred.objects()
    havred.out("network", "create", "asked")
    for name in ("asker", "db"):
        havred.out("run", "-d", "--name", name, "--network", "asked", *SLEEP)
    program = tmp_path / "ask.py"
    program.write_text(
        "import socket, struct, time\n"
        "near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "near.settimeout(5)\n"
        "near.connect(('127.0.0.11', 53))\n"
        "rest = struct.pack('>5H', 256, 1, 0, 0, 0) + b'\\2db\\0\\0\\1\\0\\1'\n"
        "seen = set()\n"
        "for number in range(5000 + 64):\n"
        "    if number < 5000: near.send(struct.pack('>H', number) + rest)\n"
        "    if number >= 64:\n"
        "        answer = near.recv(512)\n"
        "        assert answer[3] & 15 == 0 and answer[7] == 1, answer\n"
        "        seen.add(answer[:2])\n"
        "print(len(seen))\n"
    )
    command = ["nsenter", f"--net={inside(havred, 'asker')}", sys.executable, "-I", "-S", str(program)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "5000\n"
    havred.tidy(kept)
