"""Subnets and addresses as arithmetic."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havre.dataplane.ipam import (
    DEFAULT_POOLS,
    Address,
    allocate,
    check_free,
    choose_subnet,
    default_gateway,
    mac_for,
    parse_mac,
    parse_pool,
)
from havre.errors import Forbidden, InvalidInput, Unavailable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bad",), "invalid subnet bad: invalid CIDR block notation"),
        (("172.44.0.0",), "invalid CIDR block notation"),
        (("172.44.0.1/24",), "invalid subnet 172.44.0.1/24: it should be 172.44.0.0/24"),
        (("172.44.0.0/24", "1.2.3.4"), "invalid gateway 1.2.3.4: parent subnet 172.44.0.0/24 doesn't contain"),
        (("172.44.0.0/24", "x"), "invalid IP address: x"),
        (("172.44.0.0/24", "", "1.2.3.4/30"), "invalid ip-range 1.2.3.4/30: parent subnet 172.44.0.0/24 doesn't"),
        (("172.44.0.0/24", "", "", ["1.2.3.4"]), "invalid auxiliary address 1.2.3.4"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_pool(*arguments)
    assert message in refused.value.message


def test_addresses_are_given_from_the_lowest() -> None:
    pool = parse_pool("10.0.0.0/29", "10.0.0.3", auxiliary=["10.0.0.2"])
    used: set[Address] = set()
    while len(used) < 4:
        used.add(allocate(pool, used, "n (id)"))
    assert {str(address) for address in used} == {"10.0.0.1", "10.0.0.4", "10.0.0.5", "10.0.0.6"}
    with pytest.raises(Unavailable, match=r"no available IPv4 addresses on this network's address pools: n \(id\)"):
        allocate(pool, used, "n (id)")
    assert str(allocate(pool, used - {IPv4Address("10.0.0.4")}, "n (id)")) == "10.0.0.4"


def test_a_range_may_begin_with_an_address_that_ends_in_zero() -> None:
    pool = parse_pool("172.33.0.0/16", "172.33.0.9", "172.33.5.0/24")
    assert str(allocate(pool, (), "n")) == "172.33.5.0"


@settings(deadline=None)
@given(prefix=st.integers(min_value=20, max_value=30), taken=st.sets(st.integers(min_value=0, max_value=40)))
def test_an_address_is_free_usable_and_inside(prefix: int, taken: set[int]) -> None:
    subnet = IPv4Network(f"10.20.0.0/{prefix}")
    pool = parse_pool(str(subnet))
    used = {subnet.network_address + number for number in taken}
    try:
        address = allocate(pool, used, "n")
    except Unavailable:
        assert set(subnet.hosts()) <= used | {pool.gateway}
        return
    assert address in set(subnet.hosts()) - used - {pool.gateway}


def test_an_asked_address_is_given_once() -> None:
    pool = parse_pool("10.0.0.0/24")
    wanted = IPv4Address("10.0.0.9")
    assert allocate(pool, (), "n", wanted) == wanted
    for used in ({wanted}, ()):
        with pytest.raises(Forbidden, match="Address already in use"):
            allocate(pool, used, "n", wanted if used else pool.gateway)
    with pytest.raises(InvalidInput, match="no configured subnet or ip-range contain"):
        allocate(pool, (), "n", IPv4Address("10.0.1.9"))


def test_a_subnet_is_chosen_beside_networks_and_routes() -> None:
    assert str(choose_subnet([])) == "172.17.0.0/16"
    taken = [IPv4Network("172.16.0.0/13"), IPv4Network("172.24.0.0/14"), IPv4Network("172.28.7.0/24")]
    assert str(choose_subnet(taken)) == "172.29.0.0/16"
    assert str(choose_subnet([IPv4Network("172.16.0.0/12")])) == "192.168.0.0/20"
    with pytest.raises(Forbidden, match="all predefined address pools have been fully subnetted"):
        choose_subnet(DEFAULT_POOLS)
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        check_free(IPv4Network("10.1.0.0/16"), [IPv4Network("10.0.0.0/8")])


def test_the_mac_follows_the_address() -> None:
    assert mac_for(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
    assert str(default_gateway(IPv4Network("172.18.0.0/16"))) == "172.18.0.1"


@pytest.mark.parametrize("text", ["", "02:42", "02:42:ac:11:00:0g", "03:42:ac:11:00:02", "02:42:ac:11:00:02:03"])
def test_a_mac_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid MAC address"):
        parse_mac(text)
    for written in ("02-42-AC-11-00-02", "0242.ac11.0002", "02:42:AC:11:00:02"):
        assert parse_mac(written) == "02:42:ac:11:00:02"
