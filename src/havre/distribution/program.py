"""`havre registry serve`: the registry as a program, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
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
    """Serve `root` at `address` (host:port) until a signal; `upstream` makes it a pull-through cache of that
    registry."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"invalid address {address!r}", "expected host:port, or :port for every interface")
    repositories = Repositories(root)
    if not read_only and (freed := await collect(repositories)):
        log.info("garbage collection removed %d bytes", freed)
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
    except OSError as error:  # no TLS, or the handshake timed out
        log.debug("a client's TLS handshake failed: %s", error)


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`, "" for all interfaces. OSError."""
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


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The flags of `havre registry serve`, passed as JSON."""

    addr: str
    root: str
    read_only: bool
    upstream: str
    tlscert: str
    tlskey: str
    htpasswd: str
    auth: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; its argument is `Settings` in JSON. Returns the exit status."""
    (text,) = sys.argv[1:] if arguments is None else arguments
    settings = msgspec.json.decode(text, type=Settings)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(RateLimit())
    try:
        tls = _context(settings.tlscert, settings.tlskey)
        gate = _gate(settings.htpasswd, settings.auth)
        root, read_only, upstream = Path(settings.root), settings.read_only, settings.upstream
        asyncio.run(serve(settings.addr, root, read_only=read_only, upstream=upstream, tls=tls, gate=gate))
    except (HavreError, OSError) as error:
        print(f"havre registry: {error}", file=sys.stderr)
        return 1
    return 0


def _gate(htpasswd: str, kind: str) -> Gate | None:
    if kind not in ("basic", "token"):
        raise InvalidInput(f"invalid --auth {kind!r}", "expected basic or token")
    if not htpasswd:
        if kind == "token":
            raise InvalidInput("tokens need accounts to be issued to", "give --htpasswd")
        return None
    accounts = Accounts(Path(htpasswd))
    return TokenGate(accounts) if kind == "token" else BasicGate(accounts)


def _context(certificate: str, key: str) -> ssl.SSLContext | None:
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise InvalidInput("TLS needs both a certificate and its key", "give --tlscert and --tlskey")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    sys.exit(main())
