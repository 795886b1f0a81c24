"""`-p` and `--expose` to exposed ports and port bindings.

    [IP:][HOST[-HOST]:]CONTAINER[-CONTAINER][/tcp|udp|sctp]     published=8080,target=80,protocol=tcp

Source: github.com/docker/go-connections/nat, for the grammar and the words.
"""

from __future__ import annotations

from havre.cli.values import is_ip, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Bindings: TypeAlias = dict[str, list[dict[str, str]]]


def parse_publish(specs: list[str]) -> Bindings:
    """The bindings of every container port (`80/tcp`) that the `-p`s name. Raises ValueError."""
    bindings: Bindings = {}
    for spec in specs:
        for port, binding in _parse_spec(_standard_form(spec) if "=" in spec else spec):
            bindings.setdefault(port, []).append(binding)
    return bindings


def parse_expose(specs: list[str]) -> list[str]:
    """The ports that the `--expose`s name. Raises ValueError."""
    ports = []
    for spec in specs:
        if ":" in spec:
            raise ValueError(f"invalid port format for --expose: {spec}")
        port, _, kind = spec.partition("/")
        try:
            first, last = _range(port)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {spec}, error: {error}") from None
        ports += [f"{number}/{kind or 'tcp'}" for number in range(first, last + 1)]
    return ports


def _range(text: str) -> tuple[int, int]:
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    numbers = _port(first), _port(last if dash else first)
    if numbers[1] < numbers[0]:
        raise ValueError(f"invalid range specified for port: {text}")
    return numbers


def _port(text: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _named_range(text: str, name: str) -> tuple[int, int]:
    try:
        return _range(text)
    except ValueError:
        raise ValueError(f"Invalid {name}: {text}") from None


def _parse_spec(spec: str) -> list[tuple[str, dict[str, str]]]:
    *before, inner = spec.split(":")
    outer = before.pop() if before else ""
    ip = ":".join(before)
    inner, _, kind = inner.partition("/")
    kind = kind or "tcp"
    if ip.startswith("[") and ip.endswith("]"):
        ip = ip[1:-1]
    if ip and not is_ip(ip):
        raise ValueError(f"Invalid ip address: {ip}")
    if not inner:
        raise ValueError(f"No port specified: {spec}<empty>")
    first, last = _named_range(inner, "containerPort")
    out_first, out_last = _named_range(outer, "hostPort") if outer else (0, 0)
    if outer and last - first != out_last - out_first and last != first:
        raise ValueError(f"Invalid ranges specified for container and host Ports: {inner} and {outer}")
    if kind.lower() not in ("tcp", "udp", "sctp"):
        raise ValueError(f"Invalid proto: {kind}")
    pairs = []
    for offset in range(last - first + 1):
        host = str(out_first + offset) if outer else ""
        if first == last and out_first != out_last:
            host = f"{host}-{out_last}"
        pairs.append((f"{first + offset}/{kind.lower()}", {"HostIp": ip, "HostPort": host}))
    return pairs


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
