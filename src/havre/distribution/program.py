"""`havre registry serve`: the registry as a program of its own, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from havre.distribution.accounts import Accounts
from havre.distribution.collect import collect
from havre.distribution.gates import BasicGate, Gate
from havre.distribution.repositories import Repositories
from havre.distribution.server import Server
from havre.distribution.tokens import TokenGate
from havre.errors import HavreError, InvalidInput
from havre.listening import Acceptor, Budget, descriptors
from havre.logtext import RateLimit
from havre.registry import Registry, RegistryConfig

log = logging.getLogger("havre.registry")

_BACKLOG = 128
_HANDSHAKE_S = 10.0
_GRACE_S = 5.0


async def serve(
    address: str,
    root: Path,
    *,
    read_only: bool = False,
    upstream: str = "",
    tls: ssl.SSLContext | None = None,
    gate: Gate | None = None,
) -> None:
    """Serve `root` at `address` (host:port) until told to stop; `upstream` is the registry to be a cache of."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"invalid address {address!r}", "expected host:port, or :port for every interface")
    repositories = Repositories(root)
    if not read_only and (freed := await collect(repositories)):
        log.info("removed %d bytes that no repository needs", freed)
    registry = Registry(RegistryConfig())
    server = Server(repositories, read_only=read_only, registry=registry, upstream=upstream, gate=gate)
    http = web.Server(server.handle)
    acceptors: list[Acceptor] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        budget = Budget(descriptors(2))
        for listening in open_sockets(host.strip("[]"), int(port)):
            log.info("serving %s at %s", root, listening.getsockname())
            acceptors.append(Acceptor(listening, lambda accepted: _connected(http, accepted, tls), budget))
        await stop.wait()
    finally:
        for acceptor in acceptors:
            acceptor.close()
        http.pre_shutdown()
        await http.shutdown(_GRACE_S)
        await registry.close()


async def _connected(http: web.Server, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
    timeout_s = _HANDSHAKE_S if tls is not None else None
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            http, accepted, ssl=tls, ssl_handshake_timeout=timeout_s
        )
    except OSError as error:  # no TLS, or not in time
        log.debug("a client was not served: %s", error)


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listening sockets at each address of `host`, "" for all of this machine's; OSError."""
    opened = []
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, *_, address in dict.fromkeys(found):
            opened.append(socket.create_server(address, family=family, backlog=_BACKLOG))
    except BaseException:
        for each in opened:
            each.close()
        raise
    return opened


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="havre registry serve", description="Serve a registry.")
    parser.add_argument("--addr", default="127.0.0.1:5000", help="where to listen (default %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("/var/lib/havre-registry"), help="where it keeps everything")
    parser.add_argument("--read-only", action="store_true", help="refuse what changes something")
    parser.add_argument(
        "--upstream", default="", help="be a pull-through cache of this registry (docker.io, host:port)"
    )
    parser.add_argument("--tlscert", type=Path, help="certificate to serve HTTPS with")
    parser.add_argument("--tlskey", type=Path, help="key of the certificate")
    parser.add_argument("--htpasswd", type=Path, help="accounts (bcrypt lines); without it all may do everything")
    parser.add_argument("--auth", choices=("basic", "token"), default="basic", help="how accounts show themselves")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(RateLimit())
    try:
        tls = _context(options.tlscert, options.tlskey)
        gate = _gate(options.htpasswd, options.auth)
        where = {"read_only": options.read_only, "upstream": options.upstream}
        asyncio.run(serve(options.addr, options.root, tls=tls, gate=gate, **where))
    except (HavreError, OSError) as error:
        print(f"havre registry: {error}", file=sys.stderr)
        return 1
    return 0


def _gate(htpasswd: Path | None, kind: str) -> Gate | None:
    if htpasswd is None:
        if kind == "token":
            raise InvalidInput("tokens need accounts to be issued to", "give --htpasswd")
        return None
    accounts = Accounts(htpasswd)
    return TokenGate(accounts) if kind == "token" else BasicGate(accounts)


def _context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidInput("TLS needs both a certificate and its key", "give --tlscert and --tlskey")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    sys.exit(main())
