"""Parses `-p` and `--expose` into exposed ports and port bindings.

    [IP:][HOST[-HOST]:]CONTAINER[-CONTAINER][/tcp|udp|sctp]     published=8080,target=80,protocol=tcp

Source: docker/cli, opts/port.go; the grammar and most words are `golang.ports`'.
"""

from __future__ import annotations

from havre.golang.csvtext import split_csv
from havre.golang.ports import parse_mappings, parse_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from havre.golang.ports import Mapping

    Bindings: TypeAlias = dict[str, list[dict[str, str]]]


def parse_publish(specs: list[str]) -> Bindings:
    """The bindings by container port (`80/tcp`) of all `-p`. Raises ValueError."""
    bindings: Bindings = {}
    for spec in specs:
        for each in _mappings(_standard_form(spec) if "=" in spec else spec):
            bindings.setdefault(each.name, []).append({"HostIp": each.ip, "HostPort": each.host_port})
    return bindings


def _mappings(spec: str) -> list[Mapping]:
    """Refusals in the words of docker's command line up to 27, whose `nat` has other capitals than the daemon's."""
    try:
        return parse_mappings(spec)
    except ValueError as error:
        text = str(error).replace("IP address", "ip address")
        raise ValueError(text[:1].upper() + text[1:]) from None


def parse_expose(specs: list[str]) -> list[str]:
    """The ports of all `--expose`. Raises ValueError."""
    ports = []
    for spec in specs:
        if ":" in spec:
            raise ValueError(f"invalid port format for --expose: {spec}")
        port, _, kind = spec.partition("/")
        try:
            first, last = parse_range(port)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {spec}, error: {error}") from None
        ports += [f"{number}/{kind or 'tcp'}" for number in range(first, last + 1)]
    return ports


def _standard_form(spec: str) -> str:
    """The short form of `published=8080,target=80,protocol=tcp`."""
    parts = {"protocol": "tcp", "published": "", "target": ""}
    for field in split_csv(spec):
        key, equals, value = field.partition("=")
        if not equals or not value:
            raise ValueError(f"invalid publish opts format (should be name=value but got '{field}')")
        if key in parts:
            parts[key] = value
        elif key != "mode":
            raise ValueError(f"invalid publish opts format (unknown key '{key}')")
    return f"{parts['published']}:{parts['target']}/{parts['protocol']}"
