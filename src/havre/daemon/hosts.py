"""The daemon's listeners: those of `-H`, and sockets passed by systemd.

    unix://PATH    tcp://HOST:PORT    fd://    PATH    HOST:PORT

TLS applies to all TCP sockets, including systemd's. A TCP socket without TLS that is not on loopback is refused
unless `--tls=false` is given.

Source: dockerd(8), --host; sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from havre.api.server import InheritedListener, Listener, TcpListener, UnixListener, first_group
from havre.api.tls import server_context
from havre.daemon.config import DEFAULT_HOST, DaemonConfig
from havre.dataplane.ipam import Address
from havre.errors import InvalidInput

log = logging.getLogger("havre.daemon.program")


def plan_listeners(config: DaemonConfig, inherited: Sequence[int]) -> list[Listener]:
    """The listeners of `-H`; reachable plain TCP only with `--tls=false`."""
    listeners: list[Listener] = []
    for host in (host or DEFAULT_HOST for host in config.hosts):
        kind, separator, rest = host.partition("://")
        if not separator:
            kind, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
        if kind == "unix":
            listeners.append(UnixListener(Path(rest or "/run/havre.sock"), config.group or first_group()))
        elif kind == "tcp":
            listeners.append(_tcp_listener(config, host, rest))
        elif kind == "fd":
            if not inherited:
                raise InvalidInput("no sockets found via socket activation", "fd:// is for systemd's sockets")
            listeners.extend(_inherited_listener(config, fd) for fd in inherited)
        else:
            raise InvalidInput(f"invalid bind address format: {host}", "expected unix://, tcp:// or fd://")
    return listeners


def api_addresses(config: DaemonConfig) -> Iterator[tuple[Address, int]]:
    """The TCP addresses of the API, as far as given as numbers."""
    for host in config.hosts:
        kind, separator, rest = host.partition("://")
        if (kind == "tcp") if separator else not host.startswith("/"):
            name, port = _split_tcp(rest if separator else host)
            with contextlib.suppress(ValueError):
                address = ip_address("127.0.0.1" if name == "localhost" else name)
                yield address, int(port or (2376 if config.tls else 2375))


def _split_tcp(rest: str) -> tuple[str, str]:
    """Name or address, and port, after tcp://; either may be missing."""
    name, _, port = rest.rpartition(":") if ":" in rest and not rest.endswith("]") else (rest, "", "")
    return name.strip("[]") or "127.0.0.1", port


def _tcp_listener(config: DaemonConfig, host: str, rest: str) -> TcpListener:
    name, port = _split_tcp(rest)
    if port and not (port.isdecimal() and int(port) < 65536):
        raise InvalidInput(f"invalid bind address: {host}", "expected tcp://ADDRESS:PORT")
    context = _tls(config, host, name)
    return TcpListener(name, int(port or (2375 if context is None else 2376)), context)


def _inherited_listener(config: DaemonConfig, fd: int) -> InheritedListener:
    with socket.socket(fileno=os.dup(fd)) as handed:
        if handed.family == socket.AF_UNIX:
            return InheritedListener(fd)
        name, port = handed.getsockname()[:2]
    return InheritedListener(fd, _tls(config, f"fd:// (systemd's {name}, port {port})", name))


def _tls(config: DaemonConfig, host: str, name: str) -> ssl.SSLContext | None:
    """The TLS context of a TCP socket at `name`; None is plain TCP, InvalidInput if that needs `--tls=false`."""
    if config.tls:
        return server_context(config.tlscert, config.tlskey, config.tlscacert if config.tlsverify else None)
    if not _is_loopback(name):
        if config.tls is None:
            raise InvalidInput(
                f"refusing to listen on {host} without TLS: anyone who can connect is root on this host",
                "use --tlsverify with certificates, or set --tls=false if you must",
            )
        log.warning("listening on %s WITHOUT TLS OR AUTHENTICATION: anyone who can connect is root on this host", host)
    return None


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
