"""What Docker's port bindings mean."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havre.dataplane.ports import Publish, parse_bindings
from havre.errors import InvalidInput
from havre.golang.ports import parse_port


def test_bindings_are_read() -> None:
    bindings = {
        "80/tcp": [("", "8080"), ("127.0.0.1", "")],
        "53/UDP": [("::1", "5300-5310")],
        "9/sctp": None,
        "70": [],
    }
    assert parse_bindings(bindings, ["80/tcp", "443/tcp", "70/udp"], publish_all=True) == [
        Publish("tcp", 80, None, 8080, 8080),
        Publish("tcp", 80, ip_address("127.0.0.1")),
        Publish("udp", 53, ip_address("::1"), 5300, 5310),
        Publish("sctp", 9),
        Publish("tcp", 70),
        Publish("udp", 70),
        Publish("tcp", 443),
    ]
    assert parse_bindings({}, ["80/tcp"]) == []


@pytest.mark.parametrize("text", ["80x", "", "0", "65536", "80-82/tcp", "80/foo", "-1/tcp", "80/", "٨٠/tcp", "8 0"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid port specification"):
        parse_port(text)


@pytest.mark.parametrize("host_port", ["1x", "9-8", "1-65536", "-", "1-", "99999"])
def test_a_host_port_that_is_none_is_refused(host_port: str) -> None:
    with pytest.raises(InvalidInput, match="invalid port specification"):
        parse_bindings({"80/tcp": [("", host_port)]})


def test_a_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match="invalid IP address: zz"):
        parse_bindings({"80/tcp": [("zz", "1")]})


@given(st.text(max_size=12))
def test_any_text_is_a_port_or_refused(text: str) -> None:
    try:
        port, protocol = parse_port(text)
    except InvalidInput:
        return
    assert 1 <= port <= 65535
    assert protocol in ("tcp", "udp", "sctp")
