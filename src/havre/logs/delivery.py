"""Connections to log servers, and retries.

A server that is unreachable when a container starts is an error, as in dockerd. Later, each message is tried on the
current connection and once more, or as often as configured, on a new one; then messages are dropped for a while. After
the container's end the first failure is final, and after END_S everything left is dropped. The cache still has it.

Blocking.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
from collections.abc import Callable

from havre.errors import Failed

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
_GOODBYE_S = 1.0
PAUSE_S = 1.0
# How long a container's end waits for a slow server, as in dockerd.
END_S = 10.0

Write = Callable[[socket.socket], None]


class Delivery:
    """The connection to one server, re-established when it breaks. `describe` renders an OSError for messages."""

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        describe: Callable[[OSError], str],
        *,
        attempts: int = 1,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._connect = connect
        self._describe = describe
        self._attempts = attempts
        self._pause_s = pause_s
        self._connection: socket.socket | None = None
        self._silent_until = -math.inf
        self._deadline = math.inf
        self._hurried = threading.Event()

    def open(self) -> None:
        """Connect. Failed, in dockerd's words, when the server is unreachable."""
        try:
            self._connection = self._connect()
        except OSError as error:
            raise Failed(
                f"failed to create task for container: failed to initialize logging driver: {self._describe(error)}"
            ) from error

    def send(self, write: Write) -> None:
        """Call `write` to send a message; it raises OSError on failure. The message is dropped after all attempts."""
        now = time.monotonic()
        if now > self._deadline or (self._connection is None and now < self._silent_until):
            return
        for attempt in range(self._attempts + 1):
            if attempt > 1:
                self._hurried.wait(self._pause_s)
            try:
                self.try_send(write)
            except OSError as error:
                problem = self._describe(error)
            else:
                return
            if self._hurried.is_set():
                break
        pause_s = math.inf if self._hurried.is_set() else max(self._pause_s, PAUSE_S)
        self._silent_until = time.monotonic() + pause_s
        log.warning("log lines are dropped: %s", problem)

    def try_send(self, write: Write) -> None:
        """Send with a single attempt. Raises OSError."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            write(self._connection)
        except OSError:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            raise

    def hurry(self) -> None:
        """The container has ended: see the module's docstring. Thread-safe."""
        self._deadline = time.monotonic() + END_S
        self._hurried.set()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with self._connection as connection:
                self._connection = None
                _say_goodbye(connection)


def connect_udp(host: str, port: int) -> socket.socket:
    """A connected UDP socket."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    return _connected(socket.socket(family, kind), lambda fresh: fresh.connect(address))


def connect_tcp(host: str, port: int) -> socket.socket:
    """A TCP connection. OSError."""
    return socket.create_connection((host, port), TIMEOUT_S)


def connect_unix(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A connection to a local socket. OSError."""
    return _connected(socket.socket(socket.AF_UNIX, kind), lambda fresh: fresh.connect(path))


def connect_tls(
    host: str, port: int, *, ca_file: str = "", certificate: str = "", key: str = "", verify: bool = True
) -> socket.socket:
    """A TLS connection, verified by the host's CAs and those in `ca_file`. OSError."""
    import ssl  # imported late: only containers with TLS need it

    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go: private CAs often lack the key usage extension
    if certificate:
        context.load_cert_chain(certificate, key or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with contextlib.ExitStack() as undo:
        plain = undo.enter_context(connect_tcp(host, port))
        encrypted = context.wrap_socket(plain, server_hostname=host)
        undo.pop_all()
    return encrypted


def _say_goodbye(connection: socket.socket) -> None:
    """Close TLS, reading what the server sent: closing a socket with unread data sends a reset, which loses the last
    lines."""
    if unwrap := getattr(connection, "unwrap", None):
        connection.settimeout(_GOODBYE_S)
        try:
            unwrap()
        except OSError as error:  # many servers close without TLS's close_notify
            log.debug("a log server's TLS ended with %s", error)


def _connected(fresh: socket.socket, connect: Callable[[socket.socket], None]) -> socket.socket:
    try:
        fresh.settimeout(TIMEOUT_S)
        connect(fresh)
    except BaseException:
        fresh.close()
        raise
    return fresh


def describe(network: str, place: str, error: OSError) -> str:
    """Why a connection failed, in the words of Go's `net`."""
    if unverified := getattr(error, "verify_message", ""):
        return f"tls: failed to verify certificate: {unverified}"
    return f"dial {network} {place}: connect: {(error.strerror or str(error)).lower()}"
