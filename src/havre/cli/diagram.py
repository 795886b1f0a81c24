"""`network diagram`: draws the host, its networks, their containers, addresses and published ports.

    host                                        as text (a tree), or with --svg as an image: a column for each
    ├─ front  bridge  172.18.0.0/16             network, a box for each container. A container on several networks
    │  └─ web  172.18.0.2  8080→80/tcp          appears in each of them.
    └─ back   bridge  172.19.0.0/16  internal

The model (`Net`, `Member`) is made from the API's answers; both renderings are pure.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from havre.cli.parser import StatusError

if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.golang.flags import Options

_WIDTH, _LINE, _PAD = 260, 18, 12


@dataclass(frozen=True)
class Member:
    """A container on a network: name, addresses without prefix lengths, published ports."""

    name: str
    addresses: tuple[str, ...]
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Net:
    """A network: name, driver, subnets, and special properties."""

    name: str
    driver: str
    subnets: tuple[str, ...]
    notes: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def title(self) -> str:
        """A line with everything but the members."""
        return "  ".join((self.name, self.driver, *self.subnets, *self.notes))


def diagram(session: Session, options: Options, arguments: list[str]) -> int:
    """Draw the networks on standard output, or as SVG into a file."""
    networks = [session.client.get(f"/networks/{each['Id']}") for each in session.client.get("/networks")]
    ports = {each["Id"]: each.get("Ports") or [] for each in session.client.get("/containers/json")}
    nets = read_networks(networks, ports)
    if not options.svg:
        sys.stdout.write(render_text(nets))
        return 0
    try:
        Path(options.svg).write_text(render_svg(nets))
    except OSError as error:
        raise StatusError(1, f"cannot write {options.svg}: {error.strerror}") from error
    return 0


def read_networks(networks: Iterable[dict[str, Any]], ports: dict[str, list[dict[str, Any]]]) -> list[Net]:
    """The model: `networks` as from inspect, `ports` by container as from the list; sorted by name."""
    return [_net(each, ports) for each in sorted(networks, key=lambda each: each["Name"])]


def _net(network: dict[str, Any], ports: dict[str, list[dict[str, Any]]]) -> Net:
    members = sorted((network.get("Containers") or {}).items(), key=lambda item: item[1]["Name"])
    kinds = {"Internal": "internal", "EnableIPv6": "IPv6", "ConfigOnly": "configuration only"}
    return Net(
        name=network["Name"],
        driver=network["Driver"],
        subnets=tuple(pool["Subnet"] for pool in network["IPAM"]["Config"] or []),
        notes=tuple(text for key, text in kinds.items() if network.get(key)),
        members=tuple(_member(member, ports.get(id, [])) for id, member in members),
    )


def _member(member: dict[str, Any], ports: list[dict[str, Any]]) -> Member:
    addresses = (member.get("IPv4Address", ""), member.get("IPv6Address", ""))
    published = dict.fromkeys(
        f"{_host(port.get('IP', ''))}{port['PublicPort']}→{port['PrivatePort']}/{port['Type']}"
        for port in ports
        if port.get("PublicPort")
    )
    return Member(member["Name"], tuple(text.partition("/")[0] for text in addresses if text), tuple(published))


def _host(address: str) -> str:
    return "" if address in ("", "0.0.0.0", "::") else f"[{address}]:" if ":" in address else f"{address}:"


def render_text(nets: Sequence[Net]) -> str:
    """The diagram as a tree."""
    lines = ["host"]
    for number, net in enumerate(nets):
        last = number == len(nets) - 1
        lines.append(("└─ " if last else "├─ ") + net.title)
        for position, member in enumerate(net.members):
            branch = "└─ " if position == len(net.members) - 1 else "├─ "
            lines.append(
                ("   " if last else "│  ") + branch + "  ".join((member.name, *member.addresses, *member.ports))
            )
    return "\n".join(lines) + "\n"


def render_svg(nets: Sequence[Net]) -> str:
    """The diagram as a standalone SVG 1.1 image."""
    columns = [_column(net, _PAD + number * (_WIDTH + _PAD)) for number, net in enumerate(nets)]
    width = _PAD + len(nets) * (_WIDTH + _PAD)
    height = max((bottom for _, bottom in columns), default=_PAD) + _PAD
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="monospace"'
    body = "".join(text for text, _ in columns)
    return f'{head} font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{body}</svg>\n'


def _column(net: Net, x: int) -> tuple[str, int]:
    """A network's box with its containers below, and the position of its end."""
    text, bottom = _box((net.name, net.driver, *net.subnets, *net.notes), x, _PAD, "#dbe9f6")
    for member in net.members:
        line = f'<path d="M{x + _WIDTH // 2} {bottom} v{_PAD}" stroke="black"/>\n'
        box, bottom = _box((member.name, *member.addresses, *member.ports), x, bottom + _PAD, "#fdf3d8")
        text += line + box
    return text, bottom


def _box(lines: Sequence[str], x: int, y: int, colour: str) -> tuple[str, int]:
    height = len(lines) * _LINE + _PAD
    text = f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{height}" rx="4" fill="{colour}" stroke="black"/>\n'
    for number, line in enumerate(lines):
        weight = ' font-weight="bold"' if number == 0 else ""
        text += f'<text x="{x + _PAD}" y="{y + (number + 1) * _LINE}"{weight}>{escape(line)}</text>\n'
    return text, y + height
