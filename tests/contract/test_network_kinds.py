"""Kinds of networks: IPv6, configurations, chosen ranges, devices on a parent; and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import Engine, Havred, run
from support.waiting import until


def settings(engine: Engine, container: str, network: str) -> dict[str, Any]:
    shown = engine.out("inspect", "--format", "{{json .NetworkSettings.Networks}}", container)
    return json.loads(shown)[network]  # type: ignore[no-any-return]


@pytest.fixture
def six(engine: Engine) -> Iterator[Engine]:
    """A network with IPv6, `six` (fd00:99::/64), and a server `site` on it, published as 18300."""
    engine.out("network", "create", "--ipv6", "--subnet", "fd00:99::/64", "six")
    page = "echo page > /index.html; exec httpd -f -p [::]:80 -h /"
    engine.out("run", "-d", "--name", "site", "--network", "six", "-p", "18300:80", "busybox", "sh", "-c", page)
    yield engine
    engine.docker("rm", "-f", "site")
    engine.docker("network", "rm", "six", check=0)


def test_ipv6(six: Engine) -> None:
    got = settings(six, "site", "six")
    assert (got["GlobalIPv6Address"], got["GlobalIPv6PrefixLen"], got["IPv6Gateway"]) == (
        "fd00:99::2",
        64,
        "fd00:99::1",
    )
    assert six.out("network", "inspect", "--format", "{{.EnableIPv6}}", "six") == "true"
    asked = six.out("run", "--rm", "--network", "six", "--ip6", "fd00:99::77", "busybox", "ip", "addr", "show", "eth0")
    assert "fd00:99::77/64" in asked

    def fetched(*address: str) -> bool:
        command = ("run", "--rm", "--network", "six", "busybox", "wget", "-qO-", "-T", "2")
        return all(six.docker(*command, f"http://{each}/").stdout == "page\n" for each in address)

    until(lambda: fetched("site", "[fd00:99::2]"), "the page by name and by address")

    def page(url: str) -> str:
        done = subprocess.run([*six.inside, "curl", "-sg", "-m", "5", url], capture_output=True, text=True, check=False)
        return done.stdout

    for url in ("http://[::1]:18300/", "http://127.0.0.1:18300/", "http://[fd00:99::1]:18300/"):
        until(lambda url=url: page(url) == "page\n", f"the page at {url}", 20.0)


def test_configurations(engine: Engine) -> None:
    engine.out("network", "create", "--config-only", "--subnet", "10.99.5.0/24", "--label", "a=b", "cfg")
    engine.out("network", "create", "--config-from", "cfg", "made")
    shown = json.loads(engine.out("network", "inspect", "made"))[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.99.5.0/24"}]
    assert (shown["ConfigFrom"], shown["Labels"], shown["Driver"]) == ({"Network": "cfg"}, {"a": "b"}, "bridge")
    config = json.loads(engine.out("network", "inspect", "cfg"))[0]
    assert (config["ConfigOnly"], config["Driver"]) == (True, "null")
    for arguments, message in (
        (("create", "--config-from", "nope", "x"), 'configuration network "nope" does not exist'),
        (("create", "--config-from", "cfg", "--label", "x=y", "x"), "user specified configurations are not supported"),
        (("rm", "cfg"), 'configuration network "cfg" is in use'),
        (("create", "--subnet", "10.99.5.0/25", "x"), "Pool overlaps with other one on this address space"),
        (("create", "--subnet", "10.98.1.0/24", "--subnet", "10.98.2.0/24", "x"), "doesn't support multiple subnets"),
    ):
        assert message in engine.docker("network", *arguments, check=1).stderr
    done = engine.docker("run", "--rm", "--network", "cfg", "busybox", "true", check=125)
    assert "cannot create endpoint on configuration-only network" in done.stderr
    engine.docker("network", "rm", "made", check=0)
    engine.docker("network", "rm", "cfg", check=0)


def test_ranges_gateways_and_reserved_addresses(engine: Engine) -> None:
    reserved = ("--gateway", "10.99.6.9", "--aux-address", "router=10.99.6.10", "--ip-range", "10.99.6.8/29")
    engine.out("network", "create", "--subnet", "10.99.6.0/24", *reserved, "ranged")
    inside = engine.out("run", "--rm", "--network", "ranged", "busybox", "sh", "-c", "ip addr show eth0; ip route")
    assert "default via 10.99.6.9" in inside
    assert "inet 10.99.6.8/24" in inside or "inet 10.99.6.11/24" in inside
    taken = engine.docker("run", "--rm", "--network", "ranged", "--ip", "10.99.6.9", "busybox", "true", check=125)
    assert "Address already in use" in taken.stderr
    engine.docker("network", "rm", "ranged", check=0)


def test_devices_on_a_parent(engine: Engine) -> None:
    run("ip", "-n", engine.netns, "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    try:
        for name in ("wire0", "wire1"):
            run("ip", "-n", engine.netns, "link", "set", name, "up")
        lan = ("--subnet", "10.99.7.0/24", "-o", "parent=wire0")
        engine.out("network", "create", "-d", "macvlan", *lan, "lan")
        engine.out("run", "-d", "--name", "one", "--network", "lan", "busybox", "sleep", "1000")
        until(
            lambda: (
                "1 packets received"
                in engine.docker(
                    "run", "--rm", "--network", "lan", "busybox", "ping", "-c", "1", "-W", "2", "one"
                ).stdout
            ),
            "an answer from the other device",
        )
        for parent, message in (
            ("lo", "loopback interface is not a valid macvlan parent link"),
            ("nowhere", "invalid subinterface vlan name nowhere, example formatting is eth0.10"),
            ("wire0.x", "unable to parse a valid vlan id from: x"),
        ):
            refused = engine.docker("network", "create", "-d", "macvlan", "-o", f"parent={parent}", "x", check=1)
            assert message in refused.stderr
        engine.docker("rm", "-f", "one", check=0)
        engine.docker("network", "rm", "lan", check=0)
    finally:
        run("ip", "-n", engine.netns, "link", "del", "wire0")


def test_several_subnets_on_a_parent(engine: Engine) -> None:
    run("ip", "-n", engine.netns, "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    run("ip", "-n", engine.netns, "link", "set", "wire0", "up")
    try:
        subnets = ("--subnet", "10.99.8.0/30", "--subnet", "10.99.9.0/24")
        engine.out("network", "create", "-d", "macvlan", "-o", "parent=wire0", *subnets, "lan")
        engine.out("run", "-d", "--name", "one", "--network", "lan", "busybox", "sleep", "1000")
        look = ("busybox", "sh", "-c", "ip -4 addr show eth0; ip route")
        asked = engine.out("run", "--rm", "--network", "lan", "--ip", "10.99.9.77", *look)
        assert "10.99.9.77/24" in asked
        assert "default via 10.99.9.1" in asked
        # Docker's command line sends the subnets in any order, and the first one serves.
        shown = engine.out("exec", "one", "ip", "addr", "show", "eth0")
        assert "10.99.8.2/30" in shown or "10.99.9.2/24" in shown
    finally:
        engine.docker("rm", "-f", "one")
        engine.docker("network", "rm", "lan")
        run("ip", "-n", engine.netns, "link", "del", "wire0")


@pytest.mark.parametrize("options", [("-o", "parent=wire0.10"), ("--internal",)], ids=["vlan", "dummy"])
def test_parents_that_are_made_and_go_with_their_network(havred: Engine, options: tuple[str, ...]) -> None:
    run("ip", "-n", havred.netns, "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    before = run("ip", "-n", havred.netns, "-br", "link")
    try:
        done = havred.docker("network", "create", "-d", "macvlan", *options, "made")
        if done.returncode:  # the kernel lacks the driver of the parent: that is said
            assert "this kernel has no" in done.stderr
        else:
            parent = json.loads(havred.out("network", "inspect", "made"))[0]["Options"]["parent"]
            assert f"{parent}@" in run("ip", "-n", havred.netns, "-o", "link") or parent.startswith("dm-")
            assert "eth0" in havred.out("run", "--rm", "--network", "made", "busybox", "ip", "link")
            havred.docker("network", "rm", "made", check=0)
        assert run("ip", "-n", havred.netns, "-br", "link") == before
    finally:
        run("ip", "-n", havred.netns, "link", "del", "wire0")


def test_overlays_of_one_host(havred: Engine) -> None:
    havred.out("network", "create", "-d", "overlay", "--attachable", "over")
    shown = json.loads(havred.out("network", "inspect", "over"))[0]
    assert (shown["Driver"], shown["Scope"], shown["Attachable"]) == ("overlay", "swarm", True)
    assert shown["Options"] == {"com.docker.network.driver.overlay.vxlanid_list": "4097"}
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]
    tunnel = run("ip", "-n", havred.netns, "-d", "link", "show", "type", "vxlan")
    assert "vxlan id 4097 local 127.0.0.1" in tunnel
    havred.out("run", "-d", "--name", "one", "--network", "over", "busybox", "sleep", "1000")
    found = havred.out("run", "--rm", "--network", "over", "busybox", "ping", "-c", "1", "-W", "2", "one")
    assert "1 packets received" in found
    assert "mtu 1450" in havred.out("exec", "one", "ip", "link", "show", "eth0")
    assert "overlay  10.0.1.0/24" in havred.havre("network", "diagram", check=0).stdout
    havred.docker("rm", "-f", "one", check=0)
    for arguments, message in (
        (("-d", "overlay", "x"), "This node is not a swarm manager"),
        (("-d", "overlay", "--attachable", "-o", "encrypted", "x"), "overlay networks are not encrypted"),
    ):
        assert message in havred.docker("network", "create", *arguments, check=1).stderr
    havred.docker("network", "rm", "over", check=0)


def test_pools_of_the_daemon(havred: Engine) -> None:
    daemon = Havred(
        ["--default-address-pool", "base=10.96.0.0/16,size=24", "--bip", "10.95.0.1/24"], netns=havred.netns
    )
    daemon.open()
    try:
        subnets = []
        for name in ("a1", "a2"):
            daemon.out("network", "create", "--ipv6", name)
            config = json.loads(daemon.out("network", "inspect", name))[0]["IPAM"]["Config"]
            subnets.append(config[0]["Subnet"])
            assert config[1]["Subnet"].startswith("fd")
            assert config[1]["Subnet"].endswith("::/64")
        assert subnets == ["10.96.0.0/24", "10.96.1.0/24"]
    finally:
        daemon.docker("network", "rm", "a1", "a2")
        daemon.close()
