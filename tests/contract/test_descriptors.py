"""Files that the daemon has open: numbers beyond what select(2) can wait for."""

from __future__ import annotations

from support.descriptors import FD_SETSIZE, silent_clients
from support.engines import Engine


def test_networks_beside_a_thousand_clients(havred: Engine) -> None:
    """The packet filter's library would end the daemon with a socket of a number beyond 1023."""
    with silent_clients(havred, FD_SETSIZE + 100):
        havred.docker("network", "create", "front", check=0)
        havred.docker("run", "-d", "--name", "web", "--network", "front", "-p", "80", "busybox", "sleep", "99", check=0)
        havred.docker("run", "-d", "--name", "late", "busybox", "sleep", "99", check=0)
        havred.docker("network", "connect", "front", "late", check=0)
        for name in ("web", "late"):
            assert "Name:" in havred.out("exec", name, "nslookup", "-type=a", "web")
        havred.docker("rm", "-f", "web", "late", check=0)
        havred.docker("network", "rm", "front", check=0)
