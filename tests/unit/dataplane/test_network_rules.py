"""The firewall's text is what the golden files say. `HAVRE_GOLDEN=write` writes them anew."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from havre.dataplane.ipam import parse_pool
from havre.dataplane.plan import Bridge, PortMap
from havre.dataplane.rules import render_delete, render_ports, render_table

GOLDEN = Path(__file__).parents[2] / "golden" / "nft"

DEFAULT = Bridge("1" * 64, "bridge", "havre0", (parse_pool("172.17.0.0/16"),))
VAULT = Bridge("2" * 64, "vault", "hv-222222222222", (parse_pool("172.18.0.0/16"),), internal=True)
ROUTED = Bridge("3" * 64, "routed", "hv-333333333333", (parse_pool("10.9.0.0/24"),), masquerade=False)
OPEN = Bridge(
    "4" * 64,
    "open",
    "hv-444444444444",
    (parse_pool("10.8.0.0/24"), parse_pool("fd00:8::/64")),
    gateways=((4, "routed"),),
)
LAX = Bridge(
    "5" * 64,
    "lax",
    "hv-555555555555",
    (parse_pool("10.7.0.0/24"),),
    gateways=((4, "nat-unprotected"),),
    trusted=("up0", "up1"),
)
SOURCES = (ip_address("198.51.100.9"), ip_address("2001:db8::9"))
OPENED = PortMap("tcp", ip_address("0.0.0.0"), 0, ip_address("10.8.0.2"), 80)
WEB = PortMap("tcp", ip_address("0.0.0.0"), 8080, ip_address("172.17.0.2"), 80)
DNS = PortMap("udp", ip_address("127.0.0.1"), 5300, ip_address("172.17.0.2"), 53)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty", render_table("havre", [], [])),
        ("default", render_table("havre", [DEFAULT], [WEB, DNS])),
        ("screened", render_table("havre", [DEFAULT], [WEB, DNS], screened=True)),
        ("three-networks", render_table("havre_two", [ROUTED, DEFAULT, VAULT], [DNS])),
        ("gateway-modes", render_table("havre", [DEFAULT, OPEN, LAX], [WEB, OPENED])),
        ("sourced", render_table("havre", [replace(OPEN, gateways=(), sources=SOURCES), DEFAULT], [])),
        ("publish", render_ports("add", "havre", [WEB, DNS, OPENED])),
        ("retract", render_ports("delete", "havre", [WEB])),
        ("removed", render_delete("havre")),
    ],
)
def test_rules_are_as_agreed(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("HAVRE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_nothing_to_publish_is_no_command() -> None:
    assert render_ports("add", "havre", []) == ""
