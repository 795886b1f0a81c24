"""The listening sockets: unix, TCP, TCP with TLS, and those passed by systemd.

    server = await serve(services, [UnixListener(Path("/run/havre.sock"))])
    ...
    await server.close()

A unix socket has mode 0660 from its creation. A stale socket file is replaced; if a daemon answers on it, it is left
alone. Containers may be able to reach TCP sockets: their connections are limited in total and per address
(`listening`), and the TLS handshake has a timeout.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import socket
import ssl
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from havre.api.authorization import Authorization
from havre.api.call import settling
from havre.api.edge import Edge, EdgeServer, Guard
from havre.api.origin import own_names
from havre.api.routes import build_router
from havre.api.services import Services
from havre.api.tls import protocol_factory
from havre.errors import Conflict, Failed, InvalidInput
from havre.listening import Acceptor, Budget, descriptors
from havre.wire.versions import OLDEST, Version

SOCKET_MODE = 0o660
BACKLOG = 1024
_MAX_HEADER = 1 << 20  # Go's default; aiohttp's 8190 bytes are too few for filters and X-Registry-Auth
_GRACE_FOR_ANSWERS_S = 0.1


@dataclass(frozen=True)
class UnixListener:
    """A socket file; the members of `group` may connect."""

    path: Path
    group: str | None = None


@dataclass(frozen=True)
class TcpListener:
    """A TCP address; with `tls`, only TLS is accepted."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class InheritedListener:
    """A listening socket by its descriptor (socket activation), TCP or unix."""

    fd: int
    tls: ssl.SSLContext | None = None


Listener: TypeAlias = UnixListener | TcpListener | InheritedListener


def first_group(candidates: Iterable[str] = ("havre", "docker")) -> str | None:
    """The first of the groups that exists on this host."""
    existing = {entry.gr_name for entry in grp.getgrall()}
    return next((name for name in candidates if name in existing), None)


class Server:
    """The open listeners. `addresses` has the actual port where 0 was requested."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._http = EdgeServer(
            edge,
            access_log=None,
            auto_decompress=False,
            read_bufsize=256 << 10,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        self._listening: list[Acceptor] = []
        self._strangers = Budget(descriptors(8))
        self._files: list[tuple[Path, int]] = []
        self.addresses: list[str] = []

    async def listen(self, listener: Listener) -> None:
        """Open another listener."""
        opened = _open(listener)
        tls = None if isinstance(listener, UnixListener) else listener.tls
        make = self._http if tls is None else protocol_factory(self._http, tls)
        loop = asyncio.get_running_loop()
        opened.listen(BACKLOG)

        async def connected(accepted: socket.socket) -> None:
            await loop.connect_accepted_socket(make, accepted)

        budget = None if opened.family == socket.AF_UNIX else self._strangers
        self._listening.append(Acceptor(opened, connected, budget))
        self.addresses.append(_address(opened))
        if isinstance(listener, UnixListener):
            self._files.append((listener.path, listener.path.stat().st_ino))

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop accepting, give state-changing work `grace_s` to finish, end all streams, close. Idempotent."""
        for acceptor in self._listening:
            acceptor.close()
        for path, inode in self._files:
            _remove_own(path, inode)
        self._files.clear()
        if work := settling():
            _, left = await asyncio.wait(work, timeout=grace_s)
            for task in left:  # its cleanup runs on cancellation
                task.cancel()
            if left:
                await asyncio.wait(left)
            if self._edge.tasks:
                await asyncio.wait(self._edge.tasks, timeout=_GRACE_FOR_ANSWERS_S)
        for task in list(self._edge.tasks):
            task.cancel()
        self._http.pre_shutdown()
        await self._http.shutdown(timeout=_GRACE_FOR_ANSWERS_S)
        self._listening.clear()


async def serve(
    services: Services,
    listeners: Sequence[Listener],
    *,
    guard: Guard | None = None,
    experimental: bool = False,
    allowed_hosts: Sequence[str] = (),
    authorization: Authorization | None = None,
    oldest: Version = OLDEST,
) -> Server:
    """Serve Docker's API from version `oldest` on all listeners; if one cannot be opened none stays open.

    `allowed_hosts` are host names accepted over TCP, besides those it listens on. Raises `Conflict` if another
    daemon listens there, `Failed` for other errors.
    """
    names = own_names([each.host for each in listeners if isinstance(each, TcpListener)], allowed_hosts)
    server = Server(Edge(build_router(), services, guard, experimental, names, authorization, oldest))
    try:
        for listener in listeners:
            await server.listen(listener)
    except BaseException:
        await server.close()
        raise
    return server


def _open(listener: Listener) -> socket.socket:
    try:
        match listener:
            case UnixListener():
                return _open_unix(listener)
            case TcpListener():
                return socket.create_server((listener.host, listener.port), family=_family(listener.host))
            case InheritedListener():
                return socket.socket(fileno=listener.fd)
    except OSError as error:
        raise Failed(f"cannot listen on {_describe(listener)}: {error.strerror or error}") from error


def _open_unix(listener: UnixListener) -> socket.socket:
    path = listener.path
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # on Linux, bind() creates the file with the socket's mode (less the umask)
        os.fchmod(opened.fileno(), SOCKET_MODE)
        _clear_stale(path)
        opened.bind(str(path))
        if listener.group is not None:
            os.chown(path, -1, _group_id(listener.group))
        os.chmod(path, SOCKET_MODE)  # restore what the umask removed
    except BaseException:
        opened.close()
        raise
    return opened


def _clear_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(f"cannot listen on {path}: the file exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        refused = probe.connect_ex(str(path))
    if refused in (errno.ECONNREFUSED, errno.ENOENT):
        path.unlink(missing_ok=True)
    else:
        raise Conflict(
            f"cannot listen on {path}: another daemon listens there", "stop it, or choose another socket with -H"
        )


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidInput(f"no group named {name}", f"create it with groupadd {name}, or name another") from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _describe(listener: Listener) -> str:
    match listener:
        case UnixListener():
            return f"unix://{listener.path}"
        case TcpListener():
            return f"tcp://{listener.host}:{listener.port}"
        case InheritedListener():
            return f"fd://{listener.fd}"


def _address(opened: socket.socket) -> str:
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return f"unix://{name}"
    host = f"[{name[0]}]" if opened.family == socket.AF_INET6 else name[0]
    return f"tcp://{host}:{name[1]}"


def _remove_own(path: Path, inode: int) -> None:
    """Unlink a socket file unless it was replaced."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return
