"""`--link` on the default bridge, and what an endpoint may ask for beyond an address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine, Havred, serving
from support.raw import ask
from support.waiting import until

SLEEP = ("busybox", "sleep", "1000")


class TestLinks:
    @pytest.fixture
    def linked(self, engine: Engine) -> Iterator[Engine]:
        """`db`, which exposes 80/tcp and 90/udp and has an environment, and `app`, linked to it as `store-1`."""
        exposed = ("--expose", "80", "--expose", "90/udp", "-e", "KEY=a=b", "-e", "HOME=/x")
        engine.out("run", "-d", "--name", "db", *exposed, *SLEEP)
        engine.out("run", "-d", "--name", "app", "--link", "db:store-1", *SLEEP)
        yield engine
        engine.docker("rm", "-f", "app", "db", "squatter")

    def test_variables(self, linked: Engine) -> None:
        address = linked.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "db")
        shown = linked.out("run", "--rm", "--name", "one", "--link", "db:store-1", "busybox", "env").splitlines()
        assert [line for line in shown if line.startswith("STORE")] == [
            f"STORE_1_PORT=tcp://{address}:80",
            f"STORE_1_PORT_80_TCP=tcp://{address}:80",
            f"STORE_1_PORT_80_TCP_ADDR={address}",
            "STORE_1_PORT_80_TCP_PORT=80",
            "STORE_1_PORT_80_TCP_PROTO=tcp",
            f"STORE_1_PORT_90_UDP=udp://{address}:90",
            f"STORE_1_PORT_90_UDP_ADDR={address}",
            "STORE_1_PORT_90_UDP_PORT=90",
            "STORE_1_PORT_90_UDP_PROTO=udp",
            "STORE_1_NAME=/one/store-1",
            "STORE_1_ENV_KEY=a=b",
        ]

    def test_variables_of_ports_in_a_row(self, engine: Engine) -> None:
        exposed = [option for port in ("53/udp", "54/udp", "80-82", "83/udp", "90") for option in ("--expose", port)]
        engine.out("run", "-d", "--name", "wide", *exposed, *SLEEP)
        shown = engine.out("run", "--rm", "--link", "wide:s", "busybox", "env").splitlines()
        address = engine.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "wide")
        engine.docker("rm", "-f", "wide", check=0)
        assert {line for line in shown if "START" in line or "END" in line} == {
            f"S_PORT_80_TCP_START=tcp://{address}:80",
            "S_PORT_80_TCP_PORT_START=80",
            f"S_PORT_80_UDP_END=udp://{address}:83",
            "S_PORT_80_UDP_PORT_END=83",
        }

    def test_a_link_follows_a_rename(self, linked: Engine) -> None:
        linked.out("rename", "db", "data")
        assert linked.out("inspect", "--format", "{{.HostConfig.Links}}", "app") == "[/data:/app/store-1]"
        linked.docker("run", "-d", "--name", "db", *SLEEP, check=0)
        linked.out("restart", "-t", "0", "app")
        address = linked.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "data")
        assert f"{address}\tstore-1" in linked.out("exec", "app", "cat", "/etc/hosts")
        linked.docker("rm", "-f", "data", check=0)

    def test_the_alias_is_a_name(self, linked: Engine) -> None:
        assert linked.out("ps", "--no-trunc", "--filter", "name=db", "--format", "{{.Names}}") == "app/store-1,db"
        assert linked.out("inspect", "--format", "{{.Name}}", "app/store-1") == "/db"
        linked.docker("rm", "-f", "app", check=0)
        assert linked.out("ps", "--no-trunc", "--format", "{{.Names}}") == "db"

    def test_hosts_has_the_others_own_name(self, engine: Engine) -> None:
        id = engine.out("run", "-d", "--name", "Named", "-h", "fred", *SLEEP)
        shown = engine.out("run", "--rm", "--link", f"{id}:n", "busybox", "cat", "/etc/hosts")
        engine.docker("rm", "-f", "Named", check=0)
        assert "\tn fred Named" in shown

    def test_a_link_to_a_shared_network_is_to_its_owner(self, linked: Engine) -> None:
        linked.out("run", "-d", "--name", "sidecar", "--network", "container:db", *SLEEP)
        linked.out("run", "-d", "--name", "second", "--network", "container:sidecar", *SLEEP)
        address = linked.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "db")
        for name in ("sidecar", "second"):
            hosts = linked.out("run", "--rm", "--link", f"{name}:x", "busybox", "cat", "/etc/hosts")
            assert f"{address}\tx " in hosts, name
        linked.docker("rm", "-f", "second", "sidecar", check=0)

    def test_what_cannot_be_linked(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "wide", "--network", "host", *SLEEP)
        refused = engine.docker("run", "--rm", "--link", "wide", "busybox", "true", check=125)
        engine.docker("rm", "-f", "wide", check=0)
        assert "host type networking can't be used with links" in refused.stderr
        unknown = engine.docker("run", "--rm", "--link", "odd", "busybox", "true", check=125)
        assert "could not get container for odd" in unknown.stderr
        engine.out("network", "create", "own")
        assert engine.out("run", "--rm", "--network", "own", "--link", "odd:x", "busybox", "echo", "there") == "there"
        engine.out("network", "rm", "own")

    def test_an_alias_that_is_no_name_is_refused(self, havred: Engine) -> None:
        havred.out("create", "--name", "db", *SLEEP)
        for alias in ("a/b", "../../x", "/a/b/c", "/a/", "a b", "a:b", ".a", "x" * 256):
            body = {"Image": "busybox", "HostConfig": {"Links": [f"db:{alias}"]}}
            refused = ask(havred.socket, "POST", "/containers/create?name=app", body)
            assert refused.status == 400, alias
            assert refused.message.startswith("invalid alias of a link ("), alias
        havred.docker("rm", "db", check=0)

    def test_aliases_in_all_their_forms(self, engine: Engine) -> None:
        """Among them what `inspect` shows of a container that is to be made anew."""
        engine.out("create", "--name", "db", *SLEEP)
        for link, alias in {"db:b": "b", "db:/c": "c", "/db:/old/_d.e-f": "_d.e-f", "db": "db"}.items():
            body = {"Image": "busybox", "HostConfig": {"Links": [link]}}
            made = ask(engine.socket, "POST", "/containers/create?name=app", body)
            assert made.status == 201, link
            shown = engine.out("inspect", "--format", "{{.HostConfig.Links}}", "app")
            engine.docker("rm", "app", check=0)
            assert shown == f"[/db:/app/{alias}]", link
        engine.docker("rm", "db", check=0)

    def test_a_new_address_is_told(self, linked: Engine) -> None:
        before = linked.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "db")
        linked.out("stop", "-t", "0", "db")
        linked.out("run", "-d", "--name", "squatter", *SLEEP)
        linked.out("start", "db")
        now = linked.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "db")
        assert now != before
        until(lambda: f"{now}\tstore-1" in linked.out("exec", "app", "cat", "/etc/hosts"), "the new address in hosts")
        assert before not in linked.out("exec", "app", "cat", "/etc/hosts")

    def test_only_containers_of_the_default_network(self, engine: Engine) -> None:
        engine.out("network", "create", "own")
        engine.out("run", "-d", "--name", "far", "--network", "own", *SLEEP)
        engine.out("create", "--name", "app", "--link", "far:x", *SLEEP)
        refused = ask(engine.socket, "POST", "/containers/app/start")
        assert (refused.status, refused.message) == (
            500,
            "Cannot link to /far, as it does not belong to the default network",
        )
        engine.docker("rm", "-f", "app", "far", check=0)
        engine.out("network", "rm", "own")

    def test_another_container_of_the_name_is_not_meant(self, linked: Engine) -> None:
        linked.out("stop", "-t", "0", "app")
        linked.out("rm", "-f", "db")
        linked.out("run", "-d", "--name", "db", *SLEEP)
        assert linked.out("inspect", "--format", "{{.HostConfig.Links}}", "app") == "[/db:/app/store-1]"
        refused = ask(linked.socket, "POST", "/containers/app/start")
        assert (refused.status, refused.message) == (
            409 if linked.name == "havre" else refused.status,
            "Cannot link to a non running container: /db AS /app/store-1",
        )


def test_a_link_follows_a_rename_also_after_a_restart(havred: Engine) -> None:
    for name, link in (("db", ()), ("app", ("--link", "db"))):  # dockerd forgets such a link when it is started again
        havred.out("run", "-d", "--name", name, *link, *SLEEP)
    havred.out("rename", "db", "data")
    havred.stop()
    havred.start()
    havred.out("restart", "-t", "0", "app")
    assert havred.out("exec", "app", "sh", "-c", "env | grep DB_NAME") == "DB_NAME=/app/db"
    havred.docker("rm", "-f", "app", "data", check=0)


def test_links_open_what_is_exposed_where_containers_do_not_meet(havred: Engine, archive: Path) -> None:
    with serving(Havred(["--icc=false", "--bip", "10.95.1.1/24"], netns=havred.netns), archive) as daemon:
        page = "echo page > /index.html; httpd -p 81 -h /; exec httpd -f -p 80 -h /"
        daemon.out("run", "-d", "--name", "db", "--expose", "80", "busybox", "sh", "-c", page)
        fetch = ("busybox", "wget", "-qO-", "-T", "1")

        def linked(url: str) -> str:
            return daemon.docker("run", "--rm", "--link", "db", *fetch, url).stdout

        until(lambda: linked("http://db/") == "page\n", "the page by way of the link")
        assert linked("http://db:81/") == ""
        assert daemon.docker("run", "--rm", *fetch, "http://10.95.1.2/").stdout == ""
        daemon.stop()
        daemon.start()
        assert linked("http://db/") == "page\n"


class TestEndpoints:
    @pytest.fixture
    def two(self, havred: Engine) -> Iterator[Engine]:
        """Networks `one` and `two`."""
        for name in ("one", "two"):
            havred.out("network", "create", name)
        yield havred
        havred.docker("network", "rm", "one", "two", check=0)

    def test_settings_of_the_device(self, two: Engine) -> None:
        options = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
        name = "driver-opt=com.docker.network.endpoint.ifname=lan0"
        asked = ("--network", f"name=one,{options},{name},link-local-ip=169.254.9.9,link-local-ip=fe80::99")
        look = "ip addr show lan0; cat /proc/sys/net/ipv4/conf/lan0/log_martians"
        shown = two.out("run", "--rm", *asked, "busybox", "sh", "-c", look)
        assert "169.254.9.9/16" in shown
        assert "fe80::99/64" in shown
        assert shown.splitlines()[-1] == "1"

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ("link-local-ip=10.0.0.1", "invalid link-local IP address: 10.0.0.1"),
            ("driver-opt=com.docker.network.endpoint.x=1", "unknown driver option com.docker.network.endpoint.x"),
            ("driver-opt=com.docker.network.endpoint.sysctls=kernel.x=1", "invalid sysctl kernel.x=1"),
            ("driver-opt=com.docker.network.endpoint.ifname=../x", "invalid interface name: ../x"),
        ],
    )
    def test_what_cannot_be_is_refused(self, two: Engine, asked: str, message: str) -> None:
        done = two.docker("run", "--rm", "--network", f"name=one,{asked}", "busybox", "true", check=125)
        assert message in done.stderr

    def test_the_highest_priority_is_the_way_out(self, two: Engine) -> None:
        body: dict[str, Any] = {
            "Image": "busybox",
            "Cmd": ["sleep", "1000"],
            "HostConfig": {"NetworkMode": "one"},
            "NetworkingConfig": {"EndpointsConfig": {"one": {}, "two": {"GwPriority": 7}}},
        }
        made = ask(two.socket, "POST", "/v1.45/containers/create?name=prior", body=body)
        assert made.status == 201
        two.out("start", "prior")
        gateway = two.out("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "two")
        assert f"default via {gateway}" in two.out("exec", "prior", "ip", "route")
        two.out("network", "disconnect", "two", "prior")
        assert f"default via {gateway}" not in two.out("exec", "prior", "ip", "route")
        two.docker("rm", "-f", "prior", check=0)
