"""Which rights the daemon agrees to, and which of them a build is refused."""

from __future__ import annotations

from typing import Any

import pytest

from havre.builds.entitlements import DEFAULT, check_grants, parse_entitlements, require
from havre.errors import Forbidden, InvalidInput

HOST, INSECURE, DEVICE = "network.host", "security.insecure", "device"


@pytest.mark.parametrize(
    ("builder", "agreed"),
    [
        ({}, {HOST, DEVICE}),
        ({"entitlements": {}}, {HOST, DEVICE}),
        ({"entitlements": {"network-host": None}}, {HOST, DEVICE}),
        ({"entitlements": {"network-host": False}}, {DEVICE}),
        ({"entitlements": {"security-insecure": True}}, {HOST, INSECURE, DEVICE}),
        ({"entitlements": {"network-host": False, "security-insecure": True, "device": False}}, {INSECURE}),
        ({"insecure-entitlements": []}, set()),
        ({"insecure-entitlements": [INSECURE]}, {INSECURE}),
        ({"insecure-entitlements": [INSECURE], "entitlements": {"security-insecure": False}}, set()),
    ],
)
def test_what_the_daemon_agrees_to(builder: dict[str, Any], agreed: set[str]) -> None:
    assert parse_entitlements(builder) == agreed


@pytest.mark.parametrize(
    "builder",
    [
        {"entitlements": []},
        {"entitlements": {"devices": True}},
        {"entitlements": {"network-host": "yes"}},
        {"insecure-entitlements": "network.host"},
        {"insecure-entitlements": ["network"]},
    ],
)
def test_what_cannot_be_meant(builder: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="builder"):
        parse_entitlements(builder)


def test_both_must_agree() -> None:
    check_grants([HOST, DEVICE, "device=vendor.com/class=name"], DEFAULT)
    with pytest.raises(Forbidden, match=r"granting entitlement device is not allowed .*\"device\": true"):
        check_grants(["device=vendor.com/class=name"], {HOST})
    with pytest.raises(Forbidden, match=r"granting entitlement security.insecure .*\"security-insecure\": true"):
        check_grants([HOST, INSECURE], DEFAULT)
    with pytest.raises(InvalidInput, match="unknown entitlement all"):
        check_grants(["all"], DEFAULT)
    require(HOST, [HOST])
    with pytest.raises(Forbidden, match=r"network.host is not allowed: .*--allow network.host.*\"network-host\": true"):
        require(HOST, [INSECURE])
