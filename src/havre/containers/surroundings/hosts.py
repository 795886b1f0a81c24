"""Edits hosts files of running containers in place: bind mounts keep the inode, so replaced files would not be seen."""

from __future__ import annotations

from pathlib import Path

from havre.aio import in_thread
from havre.dataplane.hostfiles import change_hosts
from havre.wire.values import ContainerId

Lines = list[tuple[str, str]]
"""Addresses and their names."""


def rewrite_hosts(hosts: Path, old: Lines, new: Lines) -> None:
    """Remove the lines `old`, and add `new`. Blocking."""
    hosts.write_text(change_hosts(hosts.read_text(), old, new))


class LinkedHosts:
    """Updates linked containers in the hosts files, each in a directory named by its container's ID below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def relink(self, id: ContainerId, old: Lines, new: Lines) -> None:
        """Update the hosts file of a container after the address of a container that it links to has changed."""
        hosts = self._root / id / "hosts"
        if hosts.exists():
            await in_thread(rewrite_hosts, hosts, old, new)
