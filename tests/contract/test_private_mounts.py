"""A daemon whose mounts nobody else sees, as systemd's PrivateMounts makes it: the next one finds what runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred, serving
from support.waiting import until


class PrivateHavred(Havred):
    """Each of its daemons begins with the host's mounts, and adds its own where the others do not look."""

    @property
    def inside(self) -> list[str]:
        return [*super().inside, "unshare", "--mount", "--propagation", "slave"]


@pytest.fixture(scope="module")
def private(archive: Path) -> Iterator[Engine]:
    """It runs a web server, one that shares its network, one in the host's, and has been started anew."""
    with serving(PrivateHavred(), archive) as engine:
        engine.out("network", "create", "own")
        serve = "echo hello >/index.html; exec httpd -f -p 80"
        engine.out("run", "-d", "--name", "web", "--network", "own", "-p", "8080:80", "busybox", "sh", "-c", serve)
        engine.out("run", "-d", "--name", "side", "--network", "container:web", "busybox", "sleep", "1000")
        engine.out("run", "-d", "--name", "hosted", "--network", "host", "busybox", "sleep", "1000")
        engine.stop()
        engine.start()
        yield engine


def test_running_containers_keep_their_networks(private: Engine) -> None:
    addresses = private.out("exec", "web", "ip", "-o", "-4", "addr", "show", "eth0")
    fetch = ("busybox", "wget", "-qO-")
    assert private.out("run", "--rm", "--network", "own", *fetch, "http://web/") == "hello"
    assert private.out("run", "--rm", "--network", "host", *fetch, "http://127.0.0.1:8080/") == "hello"
    # Who joins now joins the same network, not the host's.
    joined = private.out(
        "run", "--rm", "--network", "container:web", "busybox", "ip", "-o", "-4", "addr", "show", "eth0"
    )
    assert joined == addresses
    private.out("network", "connect", "bridge", "web")
    assert "eth1" in private.out("exec", "side", "ip", "-o", "-4", "addr")
    private.out("network", "disconnect", "bridge", "web")
    private.out("restart", "-t", "0", "web")
    until(
        lambda: private.docker("run", "--rm", "--network", "own", *fetch, "http://web/").returncode == 0, "the server"
    )


def test_users_and_files_are_found_in_what_runs(private: Engine) -> None:
    assert private.out("exec", "-u", "daemon:root", "web", "id", "-un") == "daemon"
    assert "hello" in private.out("cp", "web:/index.html", "-")
    assert "A /index.html" in private.out("diff", "web")


def test_no_files_of_namespaces_are_left(private: Engine) -> None:
    kept = {path.name for path in (private.root / "run/netns").iterdir()}
    assert kept == {private.out("inspect", "-f", "{{.Id}}", "web")}
    private.stop()
    private.start()
    private.out("rm", "-f", "side", "web", "hosted")
    assert not list((private.root / "run/netns").iterdir())
