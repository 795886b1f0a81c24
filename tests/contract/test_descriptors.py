"""Files that the daemon has open: what a container costs, their limit, and numbers beyond select(2)'s last one."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from support.descriptors import FD_SETSIZE, open_files, silent_clients
from support.engines import Engine, Havred, serving
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
    """Its process and its output; on a network of its user's, the sockets of its name server; a socket for each
    published port and IP version. The rest is opened when it is used, before and after a kill of the daemon.
    """
    havred.docker("network", "create", "front", check=0)
    networks = ("none", "host", "bridge", "front")
    options = {network: ("--network", network) for network in networks} | {"ports": ("-p", "80", "-p", "53/udp")}
    costs = {"none": 2, "host": 2, "bridge": 2, "front": 4, "ports": 6}
    before = open_files(havred.pid)
    for kind in costs:
        for number in range(3):
            name = ("--name", f"{kind}{number}", *options[kind])
            havred.docker("run", "-di", *name, "busybox", "sh", "-c", "read x; echo got $x; sleep 99", check=0)

    def is_cheap() -> bool:
        return open_files(havred.pid) <= before + 3 * sum(costs.values())

    until(is_cheap, "descriptors that are not needed to be closed")
    havred.stop(signal.SIGKILL)
    havred.start()
    until(is_cheap, "descriptors that are not needed to be closed")
    for kind in costs:
        name = f"{kind}0"
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


class Limited(Havred):
    """Our daemon with limits of open files, SOFT:HARD."""

    def __init__(self, nofile: str) -> None:
        super().__init__()
        self.nofile = nofile

    @property
    def inside(self) -> list[str]:
        return [*super().inside, "prlimit", f"--nofile={self.nofile}"]


@pytest.fixture
def limited(request: pytest.FixtureRequest, archive: Path) -> Iterator[Engine]:
    with serving(Limited(request.param), archive) as engine:
        yield engine


@pytest.mark.parametrize("limited", ["256:256"], indirect=True)
def test_a_start_without_room_is_refused_whole(limited: Engine) -> None:
    limited.docker("run", "-d", "--name", "first", "busybox", "sleep", "99", check=0)
    limited.docker("create", "--name", "second", "-p", "80", "busybox", "sleep", "99", check=0)
    netns = set(os.listdir(limited.root / "run/netns"))
    room = 256 - 48 - open_files(limited.pid)
    with silent_clients(limited, room):
        for command in (("start", "second"), ("exec", "first", "true"), ("run", "--name", "third", "busybox", "true")):
            refused = limited.docker(*command)
            assert refused.returncode != 0
            assert re.search(
                r"too many open files: the daemon has \d+ and may have 256", refused.stdout + refused.stderr
            )
        assert limited.out("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "second") == "created 0"
        assert set(os.listdir(limited.root / "run/netns")) == netns
        assert limited.out("ps", "-q", "--no-trunc", "--filter", "name=first")
    limited.docker("start", "second", check=0)
    assert limited.out("exec", "second", "echo", "runs") == "runs"
    limited.stop(signal.SIGKILL)
    limited.nofile = "80:80"
    with pytest.raises(AssertionError, match=r"2 containers run, for which the daemon needs [0-9]+ open files"):
        limited.start()
    limited.nofile = "256:256"
    limited.start()
    assert limited.out("exec", "second", "echo", "runs") == "runs"


@pytest.mark.parametrize("limited", ["256:256"], indirect=True)
def test_more_starts_at_once_than_there_is_room_for_wait_for_each_other(limited: Engine) -> None:
    names = [f"c{number}" for number in range(12)]
    for name in names:
        limited.docker("create", "--name", name, "busybox", "sleep", "99", check=0)
    with ThreadPoolExecutor(len(names)) as pool:
        started = list(pool.map(lambda name: limited.docker("start", name), names))
        assert [each.stdout.strip() for each in started] == names, [each.stderr for each in started]
        said = list(pool.map(lambda name: limited.out("exec", name, "echo", name), names))
    assert said == names


@pytest.mark.parametrize("limited", ["200:1500"], indirect=True)
def test_the_hard_limit_is_the_daemons_and_the_soft_one_the_containers(limited: Engine) -> None:
    """As with dockerd, whose runtime raises its own limit and gives its children the old one."""
    with silent_clients(limited, 400):
        assert limited.out("run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["200", "1500"]
        limited.docker("run", "-d", "--name", "held", "busybox", "sleep", "99", check=0)
        assert limited.out("exec", "held", "sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["200", "1500"]
