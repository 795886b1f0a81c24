"""Networks under test, in a network namespace of their own: the host's links and tables stay untouched.

outside 198.51.100.2 ══ hvout 198.51.100.1 [the test's namespace: "the host"] havre0 ══ containers
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from network_world import run

from havre.linux.namespaces import create_netns, delete_netns

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# Answers every client with the address it is seen to come from.
_ECHO = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
server = socket.socket(socket.AF_INET, kind)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("0.0.0.0", int(sys.argv[2])))
if kind == socket.SOCK_STREAM:
    server.listen()
print("ready", flush=True)
while True:
    if kind == socket.SOCK_STREAM:
        client, peer = server.accept()
        client.sendall(peer[0].encode())
        client.close()
    else:
        _, peer = server.recvfrom(100)
        server.sendto(peer[0].encode(), peer)
"""


@pytest.fixture(autouse=True)
def fresh_netns() -> Iterator[None]:
    """Move the test's thread to a new network namespace; it and all in it ends with the test."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert _libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        run("ip link set lo up")
        yield
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(home)


@pytest.fixture
def outside(tmp_path: Path, fresh_netns: None) -> Iterator[Path]:
    """Another host, on a wire of its own: 198.51.100.2, with its default route by the host under test."""
    path = tmp_path / "outside" / "net"
    create_netns(path, lambda: None)
    run(f"ip link add hvout type veth peer name eth0 netns {path}")
    run("ip addr add 198.51.100.1/24 dev hvout", "ip link set hvout up")
    enter = f"nsenter --net={path} "
    run(enter + "ip link set lo up", enter + "ip addr add 198.51.100.2/24 dev eth0", enter + "ip link set eth0 up")
    run(enter + "ip route add default via 198.51.100.1")
    yield path
    delete_netns(path)


@pytest.fixture
def serve() -> Iterator[Callable[[Path | None, str, int], None]]:
    """Start a server of a protocol on a port in a namespace; it answers with the client's address."""
    started: list[subprocess.Popen[str]] = []

    def start(netns: Path | None, protocol: str, port: int) -> None:
        inside = [f"nsenter --net={netns}".split(), []][netns is None]
        command = [*inside, sys.executable, "-c", _ECHO, protocol, str(port)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    yield start
    for server in started:
        server.kill()
        server.communicate()


@pytest.fixture
def run_root(tmp_path: Path) -> Iterator[Path]:
    """A daemon's run directory, in which no namespace may be left."""
    yield tmp_path / "run"
    left = list((tmp_path / "run" / "netns").glob("*"))
    for path in left:
        delete_netns(path)
    assert left == []
