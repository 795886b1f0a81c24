"""Docker's words for networks and sandboxes, to values and back."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest

from havre.containers.networking import guest_of
from havre.dataplane.plan import Access
from havre.dataplane.ports import ANY4, ANY6, Publish, Reservation
from havre.errors import HavreError, InvalidInput
from havre.networks.guest import Guest
from havre.networks.sandbox import bindings_left, describe_ports, numbered, wishes_of
from havre.networks.spec import ConfigReference, Ipam, IpamPool, Network, NetworkSpec, bridge_of, check_spec
from havre.wire.config import Config, EndpointSettings, HostConfig, PortBinding
from support.rows import container_row

TARGET, TARGET6 = ip_address("10.8.0.2"), ip_address("fd00:8::2")


def _guest(**more: object) -> Guest:
    return guest_of(container_row("/x", id="a" * 64, **more))


def test_a_network_is_shown_with_dockers_names() -> None:
    network = Network(name="n", id="i", created="t", ipam=Ipam(config=[IpamPool(subnet="10.0.0.0/24", ip_range="")]))
    assert msgspec.to_builtins(network) == {
        "Name": "n",
        "Id": "i",
        "Created": "t",
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": "10.0.0.0/24"}]},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def test_options_of_a_bridge_are_read() -> None:
    options = {
        "com.docker.network.bridge.name": "br9",
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "0",
        "com.docker.network.driver.mtu": "9000",
    }
    ipam = Ipam(config=[IpamPool(subnet="10.0.0.0/24", gateway="10.0.0.254")])
    bridge = bridge_of(Network(name="n", id="f" * 64, created="", ipam=ipam, options=options))
    assert (bridge.link, bridge.icc, bridge.masquerade, bridge.mtu) == ("br9", False, False, 9000)
    assert [str(own) for own in bridge.interfaces] == ["10.0.0.254/24"]
    assert bridge_of(Network(name="n", id="f" * 64, created="", ipam=ipam)).link == "hv-ffffffffffff"


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(name="n", options={"com.docker.network.bridge.enable_icc": "maybe"}),
        NetworkSpec(name="n", options={"com.docker.network.driver.mtu": "big"}),
        NetworkSpec(name="n", options={"com.docker.network.bridge.name": "far-too-long-name"}),
        NetworkSpec(name="n", options={"com.docker.network.bridge.name": 'a";flush'}),
        NetworkSpec(name="n", options={"com.docker.network.bridge.name": ".."}),
        NetworkSpec(name="n", options={"com.docker.network.bridge.host_binding_ipv6": "127.0.0.1"}),
        NetworkSpec(name="n", options={"com.docker.network.bridge.gateway_mode_ipv4": "open"}),
        NetworkSpec(name="n", options={"com.docker.network.bridge.gateway_mode_ipv6": "isolated"}),
        NetworkSpec(name="n", options={"com.docker.network.bridge.trusted_host_interfaces": 'up0:a"b'}),
        NetworkSpec(name="n", ipam=Ipam(driver="zz")),
        NetworkSpec(name="n", driver="macvlan", options={"macvlan_mode": "odd"}),
        NetworkSpec(name="n", driver="overlay", attachable=True, options={"encrypted": ""}),
        NetworkSpec(name="n", config_only=True, config_from=ConfigReference(network="c")),
        NetworkSpec(name="n", ingress=True),
        NetworkSpec(name="n", scope="swarm"),
    ],
)
def test_a_network_that_cannot_be_is_refused(spec: NetworkSpec) -> None:
    with pytest.raises(HavreError) as refused:
        check_spec(spec)
    assert 400 <= refused.value.status < 502


def test_the_main_network_comes_first() -> None:
    asked = EndpointSettings(aliases=["db"])
    guest = _guest(host_config=HostConfig(network_mode="front"), networks={"back": asked, "front": asked})
    assert list(guest.asked) == ["front", "back"]
    assert list(_guest(networks={}).asked) == []
    assert list(_guest(config=Config(network_disabled=True)).asked) == ["none"]


def test_ports_are_shown_as_docker_shows_them_and_read_again() -> None:
    target = ip_address("172.17.0.2")
    held = [
        Reservation(Publish("tcp", 80, None, 8080, 8080), 8080, (ANY4, ANY6), target, "x"),
        Reservation(Publish("tcp", 80, ip_address("127.0.0.1")), 32768, (ip_address("127.0.0.1"),), target, "x"),
    ]
    ports = describe_ports(_guest(config=Config(exposed_ports={"99/tcp": {}, "80/tcp": {}})), held)
    assert ports == {
        "80/tcp": [
            PortBinding(host_ip="0.0.0.0", host_port="8080"),
            PortBinding(host_ip="::", host_port="8080"),
            PortBinding(host_ip="127.0.0.1", host_port="32768"),
        ],
        "99/tcp": None,
    }
    assert numbered([each.wish for each in held], ports) == [(each.wish, each.host_port) for each in held]


def test_a_wish_finds_the_number_that_it_was_given() -> None:
    bindings = [PortBinding(host_port=port) for port in ("", "9000-9010", "9005")]
    bindings += [PortBinding(host_ip="0.0.0.0", host_port="7000"), PortBinding(host_ip="127.0.0.1", host_port="1")]
    wishes = wishes_of(_guest(host_config=HostConfig(port_bindings={"80/tcp": bindings})), "")
    shown = [("0.0.0.0", "9005"), ("0.0.0.0", "9000"), ("::", "9000"), ("0.0.0.0", "32768"), ("0.0.0.0", "7000")]
    ports = {"80/tcp": [PortBinding(host_ip=host, host_port=port) for host, port in shown], "81/tcp": None}
    found = {id(wish): number for wish, number in numbered(wishes, ports)}
    assert [found[id(wish)] for wish in wishes] == [32768, 9000, 9005, 7000, 0]


def test_who_gave_a_port_away_keeps_its_other_bindings() -> None:
    bindings = {"80": [PortBinding(host_port="1"), PortBinding(host_port="2"), PortBinding()], "81/udp": None}
    guest = _guest(host_config=HostConfig(port_bindings=bindings, publish_all_ports=True))
    wishes = wishes_of(guest, "127.0.0.1")
    assert bindings_left(guest, wishes, [wishes[1], wishes[3]]) == {"80": [PortBinding(host_port="1"), PortBinding()]}


@pytest.mark.parametrize(
    ("versions", "shown"),
    [
        ((4, 6), [("0.0.0.0", ""), ("::", "")]),
        ((4,), [("::", "8080"), ("0.0.0.0", "")]),
        ((6,), [("0.0.0.0", "8080"), ("::", "")]),
    ],
)
def test_routed_ports_are_shown_without_a_number_and_read_again(
    versions: tuple[int, ...], shown: list[tuple[str, str]]
) -> None:
    access = Access(frozenset(versions), frozenset(versions))
    guest = _guest(host_config=HostConfig(port_bindings={"80/tcp": [PortBinding(host_port="8080")]}))
    wishes = wishes_of(guest, "", "", access)
    for _ in range(2):
        held = [Reservation(each, each.first, each.hosts, TARGET, "x", TARGET6) for each in wishes]
        assert {port.address.version for each in held for port in each.maps() if port.host_port == 0} == set(versions)
        ports = describe_ports(guest, held)
        assert [(each.host_ip, each.host_port) for each in ports["80/tcp"] or []] == shown
        assert {each for each, _ in numbered(wishes, ports)} == set(wishes)
        wishes = [each for each, _ in numbered(wishes, ports)]


def test_a_network_may_bind_ports_to_one_address() -> None:
    guest = _guest(host_config=HostConfig(port_bindings={"80/tcp": [PortBinding(host_port="80")]}))
    assert wishes_of(guest, "127.0.0.1") == [Publish("tcp", 80, ip_address("127.0.0.1"), 80, 80)]
    assert wishes_of(guest, "0.0.0.0") == [Publish("tcp", 80, None, 80, 80)]
    both = wishes_of(guest, "127.0.0.1", "::1")
    assert [str(host) for host in both[0].hosts] == ["127.0.0.1", "::1"]
    assert [str(host) for host in wishes_of(guest, "", "::1")[0].hosts] == ["0.0.0.0", "::1"]


def test_a_container_is_named_by_its_domain_first() -> None:
    assert _guest(config=Config(hostname="web", domainname="example.org")).host_names == "web.example.org web"
    assert _guest().host_names == "a" * 12


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput):
        wishes_of(_guest(host_config=HostConfig(port_bindings={"80x/tcp": None})), "")
