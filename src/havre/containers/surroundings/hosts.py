"""The hosts files of running containers, changed in place: what is bind-mounted is the file, not its name."""

from __future__ import annotations

from pathlib import Path

from havre.aio import in_thread
from havre.dataplane.hostfiles import change_hosts
from havre.wire.values import ContainerId

Lines = list[tuple[str, str]]
"""Addresses and their names."""


def rewrite_hosts(hosts: Path, old: Lines, new: Lines) -> None:
    """Take out the lines `old`, and put in `new`. Blocking."""
    hosts.write_text(change_hosts(hosts.read_text(), old, new))


class LinkedHosts:
    """Follows what links mean in the hosts files of the containers, each in a directory of its ID below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def relink(self, id: ContainerId, old: Lines, new: Lines) -> None:
        """A container that another one links to has another address: the other's hosts shall say so."""
        hosts = self._root / id / "hosts"
        if hosts.exists():
            await in_thread(rewrite_hosts, hosts, old, new)
