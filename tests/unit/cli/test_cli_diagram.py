"""The picture of networks, by value."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from havre.cli.diagram import read_networks, render_svg, render_text

NETWORKS = [
    {
        "Name": "front",
        "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}, {"Subnet": "fd00::/64"}]},
        "EnableIPv6": True,
        "Internal": False,
        "Containers": {
            "b": {"Name": "web", "IPv4Address": "172.18.0.3/16", "IPv6Address": "fd00::3/64"},
            "a": {"Name": "<db>", "IPv4Address": "172.18.0.2/16", "IPv6Address": ""},
        },
    },
    {"Name": "back", "Driver": "bridge", "IPAM": {"Config": None}, "Internal": True, "Containers": {}},
]
PORTS = {
    "b": [
        {"IP": "0.0.0.0", "PublicPort": 8080, "PrivatePort": 80, "Type": "tcp"},
        {"IP": "::", "PublicPort": 8080, "PrivatePort": 80, "Type": "tcp"},
        {"IP": "127.0.0.1", "PublicPort": 53, "PrivatePort": 53, "Type": "udp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
}


def test_as_text() -> None:
    assert render_text(read_networks(NETWORKS, PORTS)) == (
        "host\n"
        "├─ back  bridge  internal\n"
        "└─ front  bridge  172.18.0.0/16  fd00::/64  IPv6\n"
        "   ├─ <db>  172.18.0.2\n"
        "   └─ web  172.18.0.3  fd00::3  8080→80/tcp  127.0.0.1:53→53/udp\n"
    )


def test_as_svg() -> None:
    root = ElementTree.fromstring(render_svg(read_networks(NETWORKS, PORTS)))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:3] == ["back", "bridge", "internal"]
    assert {"<db>", "web", "8080→80/tcp"} <= set(texts)
    assert render_text([]) == "host\n"
    assert ElementTree.fromstring(render_svg([])).tag.endswith("svg")
