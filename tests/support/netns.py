"""Other network namespaces: sockets in them, and neighbours of an engine's host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from havre.linux.namespaces import in_netns
from support.engines import Engine, run


def opened_inside(netns: str | None, make: Callable[[], socket.socket]) -> socket.socket:
    """The socket that `make` opens in the named namespace; the test stays in its own."""
    return make() if netns is None else in_netns(Path("/run/netns", netns), make)


@contextmanager
def neighbour(engine: Engine, wire: str, networks: Sequence[str]) -> Iterator[str]:
    """A network namespace that represents another machine, connected to the engine's host by a veth pair.

    `networks` are patterns of addresses ("198.18.0.{}/24"); the host has .1 of each, the machine .2 on its eth0.
    """
    name = f"{engine.netns}-{wire}"
    run("ip", "netns", "add", name)
    run("ip", "-n", engine.netns, "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
    for netns, device, last in ((engine.netns, wire, 1), (name, "eth0", 2)):
        for network in networks:
            run("ip", "-n", netns, "addr", "add", network.format(last), "dev", device, *["nodad"] * (":" in network))
        run("ip", "-n", netns, "link", "set", device, "up")
    try:
        yield name
    finally:
        run("ip", "-n", engine.netns, "link", "del", wire)
        run("ip", "netns", "del", name)
