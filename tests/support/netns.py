"""Other network namespaces: sockets in them, and machines beside an engine's host that they stand for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from havre.linux.namespaces import in_netns
from support.engines import Engine, run


def opened_inside(netns: str | None, make: Callable[[], socket.socket]) -> socket.socket:
    """What `make` opens in the named namespace; the test itself stays where it is."""
    return make() if netns is None else in_netns(Path("/run/netns", netns), make)


@contextmanager
def neighbour(engine: Engine, wire: str, networks: Sequence[str]) -> Iterator[str]:
    """A network namespace that stands for another machine, on a wire of this name at the engine's host.

    `networks` are patterns of addresses ("198.18.0.{}/24"); the host has .1 of each, the machine .2 at its eth0.
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
