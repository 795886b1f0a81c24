"""What the daemon's options make of the default bridge, as values."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_interface, ip_network

import pytest

from havre.dataplane.ipam import Subnet
from havre.errors import InvalidInput
from havre.networks.defaultbridge import DefaultBridge
from havre.networks.spec import IpamPool


def choose(version: int, preferred: Sequence[Subnet]) -> Subnet:
    """What is preferred, else a free subnet."""
    return [*preferred, ip_network("172.17.0.0/16" if version == 4 else "fd00:1::/64")][0]


def pools(wanted: DefaultBridge, *present: str, kept: Sequence[IpamPool] = ()) -> list[dict[str, object]]:
    made = wanted.pools([ip_interface(each) for each in present], kept, choose)
    return [{name: value for name in pool.__struct_fields__ if (value := getattr(pool, name))} for pool in made]


def test_where_the_subnet_comes_from() -> None:
    assert pools(DefaultBridge()) == [{"subnet": "172.17.0.0/16", "gateway": "172.17.0.1"}]
    assert pools(DefaultBridge(bip="10.0.0.9/24")) == [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.9"}]
    assert pools(DefaultBridge(link="br0"), "fe80::1/64", "10.1.0.1/24") == [
        {"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"}
    ]
    assert pools(DefaultBridge(fixed_cidr="10.2.0.64/26")) == [{"subnet": "10.2.0.64/26", "ip_range": "10.2.0.64/26"}]
    assert pools(DefaultBridge(ipv6=True, fixed_cidr="10.2.0.70/26", fixed_cidr6="fd00:3::5/64")) == [
        {"subnet": "10.2.0.64/26", "ip_range": "10.2.0.64/26"},
        {"subnet": "fd00:3::/64", "ip_range": "fd00:3::/64"},
    ]
    kept = [IpamPool(subnet="172.20.0.0/16", gateway="172.20.0.7", ip_range="172.20.5.0/24")]
    assert pools(DefaultBridge(), kept=kept) == [{"subnet": "172.20.0.0/16", "gateway": "172.20.0.7"}]
    assert pools(DefaultBridge(ipv6=True))[1] == {"subnet": "fd00:1::/64", "gateway": "fd00:1::1"}
    assert pools(DefaultBridge(ipv6=True, bip6="fd00:2::5/64", gateway6="fd00:2::9"))[1] == {
        "subnet": "fd00:2::/64",
        "gateway": "fd00:2::5",
        "auxiliary_addresses": {"DefaultGatewayIPv6": "fd00:2::9"},
    }


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (DefaultBridge(link="br0", bip="10.0.0.1/24"), "mutually exclusive"),
        (DefaultBridge(link="none", ipv6=True), "has no addresses"),
        (DefaultBridge(host_binding="here"), "invalid IP address: here"),
        (DefaultBridge(bip="10.0.0.1"), "invalid --bip: 10.0.0.1"),
        (DefaultBridge(bip="fd00::1/64"), "invalid --bip: fd00::1/64"),
        (DefaultBridge(bip="10.0.0.1/24", fixed_cidr="10.9.0.0/24"), "doesn't contain ip-range"),
        (DefaultBridge(gateway="10.9.0.1"), "10.9.0.1"),
    ],
)
def test_contradictions_are_refused(wanted: DefaultBridge, message: str) -> None:
    def decided() -> object:
        wanted.check()
        return pools(wanted)

    with pytest.raises(InvalidInput, match=message):
        decided()
