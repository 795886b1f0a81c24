"""Parses ports as docker/go-connections' `nat`: `-p`, EXPOSE, `80/tcp` of the API, Compose's short form. Pure.

    [IP:][HOST[-HOST]:]CONTAINER[-CONTAINER][/tcp|udp|sctp]      an IPv6 address may be in brackets

Uses no regular expressions, which would delay the start of the command line.

Source: nat.ParsePortSpec, nat.ParsePortRange.
"""

from __future__ import annotations

import _socket

from havre.errors import InvalidInput

PROTOCOLS = ("tcp", "udp", "sctp")
_HIGHEST = 65535


class Mapping:
    """One container port. An `ip` of "" is all addresses; a `host_port` of "" is any port, `A-B` any in the range."""

    __slots__ = ("host_port", "ip", "port", "protocol")

    def __init__(self, port: int, protocol: str, ip: str = "", host_port: str = "") -> None:
        self.port, self.protocol, self.ip, self.host_port = port, protocol, ip, host_port

    @property
    def name(self) -> str:
        """The container port in the API's notation: `80/tcp`."""
        return f"{self.port}/{self.protocol}"


def parse_range(text: str) -> tuple[int, int]:
    """The first and the last port of `80` or `80-90`. Raises ValueError."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    low, high = _port(first), _port(last if dash else first)
    if high < low:
        raise ValueError(f"invalid range specified for port: {text}")
    return low, high


def parse_port(text: str) -> tuple[int, str]:
    """Number and protocol of the API's `80` or `80/tcp`. Raises `InvalidInput`."""
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    try:
        port = _port(number)
    except ValueError:
        port = 0
    if not port or protocol not in PROTOCOLS:
        raise InvalidInput(f'invalid port specification: "{text}"', "expected 1 to 65535, then /tcp, /udp or /sctp")
    return port, protocol


def parse_host_port(text: str) -> tuple[int, int]:
    """First and last host port of an API binding; of a range, any port may be used. Raises `InvalidInput`."""
    try:
        return parse_range(text)
    except ValueError:
        raise InvalidInput(
            f'invalid port specification: "{text}"', "expected PORT or FIRST-LAST, up to 65535"
        ) from None


def parse_mappings(spec: str) -> list[Mapping]:
    """One mapping per container port of a specification. Raises ValueError."""
    *before, inner = spec.split(":")
    outer = before.pop() if before else ""
    ip = ":".join(before)
    if ip.startswith("[") and ip.endswith("]"):
        ip = ip[1:-1]
    if ip and not is_ip(ip):
        raise ValueError(f"invalid IP address: {ip}")
    inner, _, protocol = inner.partition("/")
    protocol = protocol.lower() or "tcp"
    if not inner:
        raise ValueError(f"no port specified: {spec}<empty>")
    first, last = _named(inner, "containerPort")
    low, high = _named(outer, "hostPort") if outer else (0, 0)
    if outer and last != first and last - first != high - low:
        raise ValueError(f"invalid ranges specified for container and host Ports: {inner} and {outer}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    if first == last:
        return [Mapping(first, protocol, ip, f"{low}-{high}" if low != high else str(low) if outer else "")]
    ports = range(first, last + 1)
    return [Mapping(port, protocol, ip, str(low + at) if outer else "") for at, port in enumerate(ports)]


def is_ip(text: str) -> bool:
    """Report whether `text` is an IPv4 or IPv6 address."""
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _port(text: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text) > 20 or int(text) > _HIGHEST:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _named(text: str, name: str) -> tuple[int, int]:
    try:
        return parse_range(text)
    except ValueError:
        raise ValueError(f"invalid {name}: {text}") from None
