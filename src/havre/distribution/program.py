"""`havre registry serve`: the registry as a program of its own, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
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
from havre.registry import Registry, RegistryConfig

log = logging.getLogger("havre.registry")


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
    runner = web.ServerRunner(web.Server(server.handle), handle_signals=False)
    await runner.setup()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=tls, shutdown_timeout=5).start()
        for listening in runner.addresses:
            log.info("serving %s at %s", root, listening)
        await stop.wait()
    finally:
        await runner.cleanup()
        await registry.close()


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
