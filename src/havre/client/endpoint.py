"""Daemon addresses, from `-H`, the environment or a context.

    unix:///run/havre.sock    tcp://HOST:PORT (with TLS when requested)    ssh://[USER@]HOST[:PORT]

`Stream` is the part of a socket that the client needs; `client.connect` opens one.
"""

from __future__ import annotations

import _socket
import posix

from havre.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Stream(Protocol):
        """A connected byte stream that can be half-closed."""

        def fileno(self) -> int: ...
        def recv(self, size: int) -> bytes: ...
        def send(self, data: bytes) -> int: ...
        def sendall(self, data: bytes) -> None: ...
        def send_file(self, descriptor: int, count: int) -> int: ...
        def setblocking(self, blocking: bool) -> None: ...
        def buffered(self) -> bool: ...
        def close_write(self) -> None: ...
        def close(self) -> None: ...


_PIECE = 256 << 10
DEFAULT_SOCKET = "/run/havre.sock"
DEFAULT_HOST = "unix://" + DEFAULT_SOCKET


class TlsFiles:
    """PEM files for TLS, each "" when not given; without `verify` the server's certificate is not checked."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, ca: str = "", cert: str = "", key: str = "", verify: bool = True) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify


class Endpoint:
    """A parsed daemon address: `scheme` unix, tcp or ssh; `address` a path or `host:port`; `host` the user's text."""

    __slots__ = ("address", "base_path", "host", "scheme", "tls")

    def __init__(self, scheme: str, address: str, host: str, tls: TlsFiles | None = None, base_path: str = "") -> None:
        self.scheme = scheme
        self.address = address
        self.host = host
        self.tls = tls
        self.base_path = base_path


def parse_endpoint(host: str, tls: TlsFiles | None = None) -> Endpoint:
    """Parse `host`, as given to `-H`. Raises InvalidInput for what docker rejects too."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme == "unix":
        return Endpoint("unix", rest or DEFAULT_SOCKET, host)
    if scheme == "ssh":
        return Endpoint("ssh", rest, host)
    if scheme in ("tcp", "http", "https"):
        address, slash, path = rest.partition("/")
        if not address.rpartition(":")[2].isdigit():
            address = f"{address or '127.0.0.1'}:{2376 if tls else 2375}"
        if scheme == "https" and tls is None:
            tls = TlsFiles()
        return Endpoint("tcp", address, host, tls, (slash + path).rstrip("/"))
    raise InvalidInput(f"invalid bind address format: {host}")


class SocketStream:
    """A plain socket as a `Stream`."""

    def __init__(self, sock: _socket.socket) -> None:
        self.fileno = sock.fileno
        self.recv: Callable[[int], bytes] = sock.recv
        self.send = sock.send
        self.sendall: Callable[[bytes], None] = sock.sendall
        self.setblocking = sock.setblocking
        self.close = sock.close
        self._shutdown = sock.shutdown

    def send_file(self, descriptor: int, count: int) -> int:
        """Send at most `count` of the next bytes of a file; returns the number sent, 0 at its end."""
        try:
            return posix.sendfile(self.fileno(), descriptor, None, count)
        except OSError as error:
            from errno import EINVAL

            if error.errno != EINVAL:
                raise
        data = posix.read(descriptor, min(count, _PIECE))  # a file type that sendfile(2) does not support
        self.sendall(data)
        return len(data)

    def buffered(self) -> bool:
        """Report whether there are buffered bytes that polling the descriptor does not report."""
        return False

    def close_write(self) -> None:
        """Shut down the sending direction."""
        try:
            self._shutdown(_socket.SHUT_WR)
        except OSError:  # the peer has already closed
            return
