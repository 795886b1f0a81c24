"""Files that the daemon has open: what a container costs, and numbers beyond what select(2) can wait for."""

from __future__ import annotations

import signal
from contextlib import closing

from support.descriptors import FD_SETSIZE, open_files, silent_clients
from support.engines import Engine
from support.waiting import until


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


def test_what_a_container_costs(havred: Engine) -> None:
    """Its process and its output; on a network of its user's, the sockets of its name server. The rest is opened when
    it is used, before and after a kill of the daemon.
    """
    havred.docker("network", "create", "front", check=0)
    costs = {"none": 2, "host": 2, "bridge": 2, "front": 4}
    before = open_files(havred.pid)
    for network in costs:
        for number in range(3):
            name = ("--name", f"{network}{number}", "--network", network)
            havred.docker("run", "-di", *name, "busybox", "sh", "-c", "read x; echo got $x; sleep 99", check=0)

    def is_cheap() -> bool:
        return open_files(havred.pid) <= before + 3 * sum(costs.values())

    until(is_cheap, "descriptors that are not needed to be closed")
    havred.stop(signal.SIGKILL)
    havred.start()
    until(is_cheap, "descriptors that are not needed to be closed")
    for network in costs:
        name = f"{network}0"
        with closing(havred.sdk()) as client:
            stream = client.containers.get(name).attach_socket(params={"stdin": 1, "stream": 1})
            stream._sock.sendall(b"line\n")
            until(lambda name=name: havred.out("logs", name) == "got line", "the line in the log")
            stream._sock.close()
        assert havred.out("exec", name, "echo", "alive") == "alive"
        havred.docker("kill", name, check=0)
        assert havred.out("wait", name) == "137"
    assert "Name:" in havred.out("exec", "front1", "nslookup", "-type=a", "front2")
    havred.docker("rm", "-f", *havred.out("ps", "-aq").split(), check=0)
    havred.docker("network", "rm", "front", check=0)
