"""`rm --link`: what one container calls another goes, both containers stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred
from support.waiting import until

SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture
def linked(engine: Engine) -> Iterator[Engine]:
    """`app` calls `db` both `db` and `store`."""
    engine.out("run", "-d", "--name", "db", *SLEEP)
    engine.out("run", "-d", "--name", "app", "--link", "db:store", "--link", "db", *SLEEP)
    yield engine
    engine.docker("rm", "-f", "app", "db")


def called(engine: Engine) -> list[str]:
    """The names in app's hosts of what is neither itself nor the host."""
    address = engine.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "db")
    lines = engine.out("exec", "app", "cat", "/etc/hosts").splitlines()
    return [line.split()[1] for line in lines if line.startswith(f"{address}\t")]


def test_a_link_goes_from_hosts_and_from_the_next_start(linked: Engine) -> None:
    assert sorted(called(linked)) == ["db", "store"]
    assert linked.out("rm", "--link", "app/store") == "app/store"
    assert called(linked) == ["db"]
    assert "store" not in linked.out("inspect", "--format", "{{.HostConfig.Links}}", "app")
    linked.out("restart", "-t", "0", "app")
    assert called(linked) == ["db"]
    linked.out("stop", "-t", "0", "app")
    assert linked.havre("rm", "--link", "-f", "/app/db").stdout == "/app/db\n"
    linked.out("start", "app")
    assert called(linked) == []
    assert linked.out("ps", "--format", "{{.State}}", "--filter", "name=db") == "running"


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("app/odd", "No such container: app/odd"),
        ("odd/db", "No such container: odd/db"),
        ("/odd", "No such container: odd"),
        ("app", "Conflict, cannot remove the default link name of the container"),
        ("ID/db", "No such container: ID/db"),
    ],
)
def test_what_is_no_link_is_refused(linked: Engine, ref: str, words: str) -> None:
    id = linked.out("inspect", "--format", "{{.Id}}", "app")[:12]
    done = linked.docker("rm", "--link", ref.replace("ID", id), check=1)
    assert done.stderr == f"Error response from daemon: {words.replace('ID', id)}\n"
    assert sorted(called(linked)) == ["db", "store"]


def test_what_a_link_opened_is_closed(havred: Engine, archive: Path) -> None:
    daemon = Havred(["--icc=false", "--bip", "10.95.1.1/24"], netns=havred.netns)
    daemon.open()
    try:
        daemon.docker("load", "-i", str(archive), check=0)
        daemon.out("run", "-d", "--name", "db", "--expose", "80", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
        daemon.out("run", "-d", "--name", "app", "--link", "db:store", *SLEEP)
        address = daemon.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "db")
        fetch = ("exec", "app", "wget", "-qO-", "-T", "1", f"http://{address}/hostname")
        until(lambda: daemon.docker(*fetch).stdout != "", "an answer by way of the link")
        daemon.out("rm", "--link", "app/store")
        assert "timed out" in daemon.docker(*fetch, check=1).stderr
    finally:
        daemon.close()
