"""Published ports: reachable from the host, from other containers and from outside; free again afterwards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from support.engines import Engine, run
from support.waiting import until

SERVER = ("busybox", "sh", "-c", "echo page > /index.html; exec httpd -f -p 80 -h /")


def fetch(engine: Engine, url: str) -> str:
    """The page at `url`, asked for in the engine's network namespace; empty while nobody answers."""
    done = subprocess.run([*engine.inside, "curl", "-sg", "-m", "5", url], capture_output=True, text=True, check=False)
    return done.stdout.strip()


@pytest.fixture
def outside(engine: Engine) -> Iterator[str]:
    """A network namespace that stands for another machine: 198.18.0.2, the engine's host being 198.18.0.1."""
    name = f"{engine.netns}-o"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", engine.netns, "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", name)
        run("ip", "-n", engine.netns, "addr", "add", "198.18.0.1/24", "dev", "up0")
        run("ip", "-n", engine.netns, "link", "set", "up0", "up")
        run("ip", "-n", name, "addr", "add", "198.18.0.2/24", "dev", "up1")
        run("ip", "-n", name, "link", "set", "up1", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "-n", engine.netns, "link", "del", "up0")
        run("ip", "netns", "del", name)


class TestReachable:
    @pytest.fixture
    def server(self, engine: Engine) -> Iterator[str]:
        yield engine.out("run", "-d", "--name", "server", "-p", "18080:80", *SERVER)
        engine.docker("rm", "-f", "server")

    def test_from_the_host(self, engine: Engine, server: str) -> None:
        until(lambda: fetch(engine, "http://127.0.0.1:18080/") == "page", "the page by 127.0.0.1")
        until(lambda: fetch(engine, "http://[::1]:18080/") == "page", "the page by [::1]")

    def test_from_another_container(self, engine: Engine, server: str) -> None:
        script = (
            "for i in $(seq 50); do wget -q -O- http://172.17.0.1:18080/ 2>/dev/null && exit; sleep 0.1; done; exit 1"
        )
        assert engine.out("run", "--rm", "busybox", "sh", "-c", script) == "page"

    def test_from_outside_and_out(self, engine: Engine, outside: str, server: str) -> None:
        def page() -> str:
            command = ["nsenter", f"--net=/run/netns/{outside}", "curl", "-s", "-m", "2", "http://198.18.0.1:18080/"]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

        until(lambda: page() == "page", "the page from outside")
        # Masqueraded: the other machine has no route back to 172.17.0.0/16.
        assert "0% packet loss" in engine.out("run", "--rm", "busybox", "ping", "-c", "1", "-W", "5", "198.18.0.2")


class TestForms:
    def ports(self, engine: Engine, *options: str) -> dict[str, list[dict[str, str]] | None]:
        engine.out("run", "-d", "--name", "ported", *options, "busybox", "sleep", "1000")
        shown = json.loads(engine.out("inspect", "--format", "{{json .NetworkSettings.Ports}}", "ported"))
        engine.docker("rm", "-f", "ported", check=0)
        return shown  # type: ignore[no-any-return]

    def test_host_address(self, engine: Engine) -> None:
        assert self.ports(engine, "-p", "127.0.0.1:18090:80") == {
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18090"}]
        }

    def test_range(self, engine: Engine) -> None:
        shown = self.ports(engine, "-p", "127.0.0.1:18100-18102:80-82/udp")
        assert shown == {f"{80 + i}/udp": [{"HostIp": "127.0.0.1", "HostPort": str(18100 + i)}] for i in range(3)}

    def test_any_address_is_both_families(self, engine: Engine) -> None:
        shown = self.ports(engine, "-p", "18103:80")
        assert shown["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "18103"}, {"HostIp": "::", "HostPort": "18103"}]

    def test_chosen_by_the_engine(self, engine: Engine) -> None:
        shown = self.ports(engine, "-p", "80")
        assert shown["80/tcp"]
        assert 32768 <= int(shown["80/tcp"][0]["HostPort"]) <= 60999

    def test_publish_all(self, engine: Engine) -> None:
        shown = self.ports(engine, "-P", "--expose", "81", "--expose", "82/udp")
        assert set(shown) == {"81/tcp", "82/udp"}
        assert all(shown.values())

    def test_exposed_alone_is_not_published(self, engine: Engine) -> None:
        assert self.ports(engine, "--expose", "81") == {"81/tcp": None}


class TestConflicts:
    def test_port_of_another_container(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "first", "-p", "18110:80", "busybox", "sleep", "1000")
        done = engine.docker("run", "-d", "--name", "second", "-p", "18110:80", "busybox", "sleep", "1000", check=125)
        assert "Bind for 0.0.0.0:18110 failed: port is already allocated" in done.stderr
        assert engine.out("inspect", "--format", "{{.State.Status}}", "second") == "created"
        engine.docker("rm", "-f", "first", check=0)
        engine.docker("start", "second", check=0)
        engine.docker("rm", "-f", "second", check=0)

    def test_port_of_a_program(self, engine: Engine) -> None:
        with subprocess.Popen(
            [*engine.inside, "busybox", "nc", "-l", "-p", "18111"], stdin=subprocess.DEVNULL
        ) as taken:
            try:
                until(
                    lambda: (
                        b"18111"
                        in subprocess.run([*engine.inside, "ss", "-ltn"], capture_output=True, check=True).stdout
                    ),
                    "the listener",
                )
                done = engine.docker(
                    "run", "-d", "--name", "late", "-p", "18111:80", "busybox", "sleep", "1000", check=125
                )
                assert "address already in use" in done.stderr or "port is already allocated" in done.stderr
            finally:
                taken.kill()
        engine.docker("rm", "-f", "late", check=0)

    @pytest.mark.parametrize("bad", ["99999:80", "x:80", "80:70000", "1-3:1-2", "80/xyz"])
    def test_bad_port_is_refused(self, engine: Engine, bad: str) -> None:
        engine.docker("run", "-p", bad, "busybox", "true", check=125)
        assert engine.out("ps", "-aq") == ""

    def test_address_is_free_again(self, engine: Engine) -> None:
        addresses = set()
        for _ in range(3):
            addresses.add(engine.out("run", "--rm", "busybox", "hostname", "-i"))
        assert len(addresses) <= 3
        assert all(address.startswith("172.17.0.") for address in addresses)
