"""Opens the byte stream to a daemon's address. TLS and ssh are in `secure`, imported only when used."""

from __future__ import annotations

import _socket

from havre.client.endpoint import SocketStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.client.endpoint import Endpoint, Stream


def connect(endpoint: Endpoint) -> Stream:
    """Open a stream to `endpoint`. Raises OSError."""
    if endpoint.scheme == "unix":
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.connect(endpoint.address)
        except OSError:
            sock.close()
            raise
        return SocketStream(sock)
    if endpoint.scheme == "ssh":
        from havre.client.secure import connect_ssh

        return connect_ssh(endpoint.address)
    sock = connect_tcp(endpoint.address)
    if endpoint.tls is None:
        return SocketStream(sock)
    from havre.client.secure import TlsStream

    return TlsStream(sock, endpoint.address.rpartition(":")[0].strip("[]"), endpoint.tls)


def connect_tcp(address: str) -> _socket.socket:
    """A socket connected to `host:port` (`[v6]:port`), trying each address of the name in turn. Raises OSError."""
    host, _, port = address.rpartition(":")
    failure: OSError | None = None
    for family, kind, protocol, _, target in _socket.getaddrinfo(host.strip("[]"), port, 0, _socket.SOCK_STREAM):
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.connect(target)
        except OSError as error:
            sock.close()
            failure = error
            continue
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        return sock
    raise failure or OSError(f"no address for {address}")
