"""Containers that open all they can at what the daemon listens on: others still run, and the log stays short."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dns.message
import dns.query
import pytest

from havre.linux.namespaces import in_netns
from support.engines import HAVRE, HAVRED, Engine, Havred, serving
from support.waiting import until

LIMIT = 1024  # of descriptors of the daemon

# Keeps as many TCP connections as it gets to each HOST PORT, and asks by UDP for names, a different one each time. What
# is closed it opens again; it never reads or writes a thing. It prints a line when it has tried 1,000 times.
FLOOD = """
import select, socket, sys
places = [(host, int(port)) for host, port in zip(sys.argv[1::2], sys.argv[2::2])]
socket.setdefaulttimeout(5)
queue, waiting, tries = select.poll(), {}, 0
def ask(number, near=socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)):
    name = b"n%d" % number
    query = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len(name)]) + name + b"\\7example\\0\\0\\1\\0\\1"
    try:
        near.sendto(query, ("127.0.0.11", 53))
    except OSError:
        pass
while True:
    while len(waiting) < 900:
        place = places[tries % len(places)]
        one = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
        one.setblocking(False)
        one.connect_ex(place)
        queue.register(one, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        waiting[one.fileno()] = one
        tries += 1
        ask(tries)
        if tries == 1000:
            print("tried", flush=True)
    for number, _ in queue.poll(20):
        queue.unregister(number)
        waiting.pop(number).close()
    for number in list(waiting)[:20]:
        ask(number)
    if tries >= 900 and len(waiting) >= 900:
        number = next(iter(waiting))
        queue.unregister(number)
        waiting.pop(number).close()
"""


class Poor(Havred):
    """Our daemon, with few descriptors."""

    program = ("prlimit", f"--nofile={LIMIT}:{LIMIT}", str(HAVRED))


@pytest.fixture(scope="module")
def poor(archive: Path) -> Iterator[Engine]:
    with serving(Poor(["-D"]), archive) as engine:
        yield engine


@contextmanager
def flooding(*floods: tuple[str, ...]) -> Iterator[None]:
    """Floods of (namespace's path, host, port ...), which have begun."""
    started: list[subprocess.Popen[str]] = []
    try:
        for netns, *places in floods:
            inside = ["nsenter", f"--net={netns}", sys.executable, "-IS", "-c", FLOOD, *places]
            started.append(subprocess.Popen(inside, stdout=subprocess.PIPE, text=True))
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline() == "tried\n"
        yield
    finally:
        for each in started:
            each.kill()
            each.communicate()


@contextmanager
def bounded(engine: Engine) -> Iterator[None]:
    """The daemon runs containers meanwhile, with descriptors left, and says little of it."""
    before, pid = engine.log.stat().st_size, engine.pid
    yield
    assert len(os.listdir(f"/proc/{pid}/fd")) < LIMIT * 3 // 4
    for _ in range(3):
        engine.docker("run", "--rm", "busybox", "true", check=0, timeout_s=10)
    assert engine.log.stat().st_size - before < 200_000
    assert "Traceback" not in engine.log.read_bytes()[before:].decode()


def netns_of(engine: Engine, name: str) -> str:
    return f"/proc/{engine.out('inspect', '--format', '{{.State.Pid}}', name)}/ns/net"


def test_names(poor: Engine) -> None:
    poor.out("network", "create", "flooded")
    names = ("evil1", "evil2", "evil3", "good")
    for name in names:  # nobody answers at that address
        poor.out("run", "-d", "--name", name, "--network", "flooded", "--dns", "192.0.2.1", "busybox", "sleep", "1000")
    netns = [netns_of(poor, name) for name in names]
    query = dns.message.make_query("good", "A")
    with bounded(poor), flooding(*((each, "127.0.0.11", "53") for each in netns[:3])):
        for ask in (dns.query.udp, dns.query.tcp):
            reply = in_netns(Path(netns[3]), partial(ask, query, "127.0.0.11", timeout=5))
            assert reply.answer, ask
    poor.docker("rm", "-f", *names, check=0)
    poor.out("network", "rm", "flooded")


def test_relays_of_published_ports(poor: Engine) -> None:
    page = ("sh", "-c", "echo page > /index.html; exec httpd -f -p 80 -h /")
    for name, port in (("web1", "18081"), ("web2", "18082")):
        poor.out("run", "-d", "--name", name, "-p", f"{port}:80", "busybox", *page)
    get = ("curl", "-sg", "-m", "10", "http://[::1]:18082/")
    until(lambda: subprocess.run([*poor.inside, *get], check=False).returncode == 0, "a page")
    with bounded(poor), flooding((f"/run/netns/{poor.netns}", "::1", "18081")):
        shown = subprocess.run([*poor.inside, *get], capture_output=True, text=True, check=False)
        assert shown.stdout == "page\n"
    poor.docker("rm", "-f", "web1", "web2", check=0)


def test_the_api_on_a_gateway(archive: Path, tmp_path: Path) -> None:
    words = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x")
    subprocess.run(["openssl", *words, "-keyout", "key", "-out", "cert"], cwd=tmp_path, check=True, capture_output=True)
    tls = ("--tls", "--tlscert", str(tmp_path / "cert"), "--tlskey", str(tmp_path / "key"))
    with serving(Poor([*tls, "-H", "tcp://0.0.0.0:2376"]), archive) as engine:
        names = ("evil1", "evil2", "good")
        for name in names:
            engine.out("run", "-d", "--name", name, "busybox", "sleep", "1000")
        gateway = engine.out("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
        netns = [netns_of(engine, name) for name in names]
        with bounded(engine), flooding(*((each, gateway, "2376") for each in netns[:2])):
            inside = ["nsenter", f"--net={netns[2]}", "curl", "-sk", "-m", "10", f"https://{gateway}:2376/_ping"]
            assert subprocess.run(inside, capture_output=True, text=True, check=False).stdout == "OK"


def test_our_registry(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = (HAVRE, "registry", "serve", "--addr", f":{port}", "--root", str(tmp_path))
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(["prlimit", "--nofile=256:256", *serve], stderr=log)
    try:
        get = ("curl", "-s", "-m", "10", f"http://127.0.0.2:{port}/v2/", "--interface", "127.0.0.2")
        until(lambda: subprocess.run(get, capture_output=True, check=False).returncode == 0, "the registry")
        with flooding(("/proc/self/ns/net", "127.0.0.1", str(port))):
            assert subprocess.run(get, capture_output=True, check=False).stdout == b"{}"
            assert len(os.listdir(f"/proc/{server.pid}/fd")) < 256
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    assert len(said) < 100_000
