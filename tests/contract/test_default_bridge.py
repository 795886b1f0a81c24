"""The daemon's options for the default bridge: each takes effect, in both engines alike, or is refused at the start."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.engines import Dockerd, Engine, Havred, run
from support.waiting import until


@pytest.fixture(params=[Havred, Dockerd], ids=["havre", "dockerd"])
def kind(request: pytest.FixtureRequest, havred: Engine) -> type[Engine]:
    """An engine that the test starts with options of its own; `havred` narrows the leak check."""
    return request.param  # type: ignore[no-any-return]


@contextmanager
def started(kind: type[Engine], archive: Path, *options: str, bridge: str = "") -> Iterator[Engine]:
    """An engine with `options`; `bridge` is an administrator's, br7 with 10.97.0.1/24, which is there afterwards."""
    engine = kind(options)
    run("ip", "netns", "add", engine.netns)
    run("ip", "-n", engine.netns, "link", "set", "lo", "up")
    if bridge:
        run("ip", "-n", engine.netns, "link", "add", bridge, "type", "bridge")
        run("ip", "-n", engine.netns, "addr", "add", "10.97.0.1/24", "dev", bridge)
        run("ip", "-n", engine.netns, "link", "set", bridge, "up")
    try:
        engine.start()
        engine.docker("load", "-i", str(archive), check=0)
        yield engine
        if bridge:
            assert engine.docker("ps", "-q").stdout == ""
            engine.stop()
            assert "10.97.0.1/24" in run("ip", "-n", engine.netns, "addr", "show", bridge)
    finally:
        engine.close()


def bridge_of(engine: Engine) -> dict[str, object]:
    shown = json.loads(engine.out("network", "inspect", "bridge"))[0]
    return {
        "pools": shown["IPAM"]["Config"],
        **{key.rpartition(".")[2]: value for key, value in shown["Options"].items()},
    }


def test_addresses_rules_and_ports(kind: type[Engine], archive: Path) -> None:
    options = "--bip=10.96.0.1/24 --fixed-cidr=10.96.0.64/26 --default-gateway=10.96.0.2 --icc=false --ip=127.0.0.1"
    more = "--mtu=1400 --ip-masq=false --userland-proxy=false --host-gateway-ip=10.96.0.9"
    defaults = "--default-network-opt=bridge=com.docker.network.driver.mtu=1300"
    with started(kind, archive, *options.split(), *more.split(), defaults) as engine:
        shown = bridge_of(engine)
        aux = {"DefaultGatewayIPv4": "10.96.0.2"}
        pool = {"Subnet": "10.96.0.0/24", "IPRange": "10.96.0.64/26", "Gateway": "10.96.0.1"}
        assert shown["pools"] == [{**pool, "AuxiliaryAddresses": aux}]
        assert (shown["enable_icc"], shown["enable_ip_masquerade"], shown["host_binding_ipv4"], shown["mtu"]) == (
            "false",
            "false",
            "127.0.0.1",
            "1400",
        )
        page = "echo page > /index.html; exec httpd -f -p 80 -h /"
        engine.out("run", "-d", "--name", "site", "--expose", "80", "-p", "18500:80", "busybox", "sh", "-c", page)
        assert engine.out("port", "site", "80/tcp") == "127.0.0.1:18500"
        fetch = [*engine.inside, "curl", "-s", "-m", "5", "http://127.0.0.1:18500/"]
        until(lambda: subprocess.run(fetch, capture_output=True, text=True, check=False).stdout == "page\n", "the page")
        looking = ("--add-host", "gate:host-gateway", "busybox", "sh", "-c", "ip route; ip addr; cat /etc/hosts")
        inside = engine.out("run", "--rm", *looking)
        for text in ("default via 10.96.0.2", "mtu 1400", "10.96.0.65/24", "10.96.0.9\tgate"):
            assert text in inside
        stranger = engine.docker("run", "--rm", "busybox", "wget", "-qO-", "-T", "1", "http://10.96.0.64/")
        assert stranger.returncode == 1
        engine.out("network", "create", "narrow")
        assert "1300" in engine.out("network", "inspect", "--format", "{{.Options}}", "narrow")
        engine.docker("rm", "-f", "site", check=0)
        engine.docker("network", "rm", "narrow", check=0)


def test_a_bridge_of_the_administrators_with_ipv6(kind: type[Engine], archive: Path) -> None:
    options = ("--bridge=br7", "--ipv6", "--fixed-cidr-v6=fd00:97::/64")
    with started(kind, archive, *options, bridge="br7") as engine:
        shown = bridge_of(engine)
        assert {pool["Subnet"] for pool in shown["pools"]} == {"10.97.0.0/24", "fd00:97::/64"}  # type: ignore[attr-defined,index]
        assert shown["name"] == "br7"
        addresses = engine.out("run", "--rm", "busybox", "ip", "addr", "show", "eth0")
        assert "10.97.0.2/24" in addresses
        assert "inet6 fd00:97::" in addresses


def test_no_default_bridge(havred: Engine, archive: Path) -> None:
    with started(Havred, archive, "--bridge=none") as engine:
        assert engine.out("network", "ls", "--format", "{{.Name}}").split() == ["host", "none"]
        links = engine.out("run", "--rm", "-p", "18501:80", "busybox", "ls", "/sys/class/net").split()
        assert "lo" in links
        assert "eth0" not in links
        engine.out("network", "create", "own")
        assert "eth0" in engine.out("run", "--rm", "--network", "own", "busybox", "ls", "/sys/class/net").split()
        engine.docker("network", "rm", "own", check=0)


def test_options_of_ipv6_have_no_effect_without_ipv6(kind: type[Engine], archive: Path) -> None:
    with started(kind, archive, "--fixed-cidr-v6=fd00:97::/64") as engine:
        assert json.loads(engine.out("network", "inspect", "bridge"))[0]["EnableIPv6"] is False
        assert "inet6" not in engine.out("run", "--rm", "busybox", "ip", "addr", "show", "eth0")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--bridge=missing9", "bridge device with non default name missing9 must be created manually"),
        ("--fixed-cidr-v6=nonsense", "nonsense: invalid CIDR"),
        ("--fixed-cidr-v6=10.0.0.0/24", "invalid fixed-cidr-v6: 10.0.0.0/24"),
        ("--bip6=10.0.0.1/24", "invalid --bip6: 10.0.0.1/24"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(havred: Engine, option: str, message: str) -> None:
    engine = Havred([option])
    try:
        with pytest.raises(AssertionError, match="ended with 1") as refused:
            engine.open()
        assert message in str(refused.value)
    finally:
        engine.stop()
        engine.close()


def test_ipv6_addresses_come_from_the_mac(kind: type[Engine], archive: Path) -> None:
    with started(kind, archive, "--ipv6", "--fixed-cidr-v6=fd00:97::5/64") as engine:

        def address(*options: str) -> str:
            shown = engine.out("run", "--rm", *options, "busybox", "ip", "-o", "-6", "addr", "show", "eth0")
            return next(word for word in shown.split() if word.startswith("fd00:"))

        assert address() == "fd00:97::242:ac11:2/64"
        assert address("--mac-address", "02:42:DE:AD:BE:EF") == "fd00:97::242:dead:beef/64"
        if kind is Dockerd:
            return
        engine.out("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
        for prefix, expected in (("fd00:98::1/80", "242:ac11:3/80"), ("fd00:97::/56", "242:ac11:3/56")):
            engine.stop()
            engine.extra = ["--ipv6", f"--fixed-cidr-v6={prefix}"]
            engine.start()
            assert address().endswith(f"::{expected}")
        engine.docker("rm", "-f", "runs", check=0)


def test_subnets_of_users_networks_are_not_taken(kind: type[Engine], archive: Path) -> None:
    with started(kind, archive) as engine:
        engine.out("network", "create", "--subnet", "10.95.0.0/24", "--ipv6", "--subnet", "fd00:95::/64", "own")
        engine.stop()
        engine.extra = ["--bip=10.95.0.1/24"]
        with pytest.raises(AssertionError, match="Pool overlaps with other one on this address space"):
            engine.start()
        engine.stop()
        engine.extra = ["--bip=10.94.0.1/24", "--default-address-pool=base=10.93.0.0/16,size=24"]
        engine.start()
        assert "10.94.0.2/24" in engine.out("run", "--rm", "busybox", "ip", "addr")
        engine.out("run", "--rm", "--network", "own", "busybox", "true")


def test_full_pools_are_no_reason_not_to_start(havred: Engine, archive: Path) -> None:
    engine = Havred()
    run("ip", "netns", "add", engine.netns)
    run("ip", "-n", engine.netns, "link", "set", "lo", "up")
    for network in ("172.16.0.0/12", "192.168.0.0/16"):
        run("ip", "-n", engine.netns, "route", "add", network, "dev", "lo")
    try:
        engine.start()
        engine.docker("load", "-i", str(archive), check=0)
        assert "10.255.240.2/20" in engine.out("run", "--rm", "busybox", "ip", "addr")
        assert "all predefined address pools have been fully subnetted" in engine.log.read_text()
    finally:
        engine.close()


def test_a_port_of_the_api_is_not_published(kind: type[Engine], archive: Path) -> None:
    with started(kind, archive, "-H", "tcp://127.0.0.1:18510") as engine:
        for host, message in (
            ("127.0.0.1", "Bind for 127.0.0.1:18510 failed: port is already allocated"),
            ("0.0.0.0", "127.0.0.1:18510 failed: port is already allocated" if kind is Havred else "address already"),
        ):
            refused = engine.docker("run", "--rm", "-p", f"{host}:18510:80", "busybox", "true", check=125)
            assert message in refused.stderr
        engine.docker("run", "--rm", "-p", "127.0.0.9:18510:80", "busybox", "true", check=0)
