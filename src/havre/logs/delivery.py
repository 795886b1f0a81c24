"""Connections to log servers, and what happens when one is away.

A server that cannot be reached when a container starts is an error, as in dockerd. Later each message is tried on the
connection there is and once more, or as often as was asked for, on a new one; after that, messages are dropped for a
while. When the container has ended, the first failure is the last, and END_S later all that is left is dropped. The
cache has them.

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
#: How long the end of a container waits for a server that is slow, as in dockerd.
END_S = 10.0

Write = Callable[[socket.socket], None]


class Delivery:
    """One server's connection, made anew where it breaks. `describe` says in words what an OSError means."""

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
        """Connect; Failed in dockerd's words where nobody answers."""
        try:
            self._connection = self._connect()
        except OSError as error:
            raise Failed(
                f"failed to create task for container: failed to initialize logging driver: {self._describe(error)}"
            ) from error

    def send(self, write: Write) -> None:
        """Let `write` send a message, which raises OSError where that fails; after all attempts it is dropped."""
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
        """The same, but once, and OSError is the caller's."""
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
        """Somebody waits for the end: see the module. From any thread."""
        self._deadline = time.monotonic() + END_S
        self._hurried.set()

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            with self._connection as connection:
                self._connection = None
                _say_goodbye(connection)


def connect_udp(host: str, port: int) -> socket.socket:
    """A socket whose messages go there."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    return _connected(socket.socket(family, kind), lambda fresh: fresh.connect(address))


def connect_tcp(host: str, port: int) -> socket.socket:
    """A connection; OSError."""
    return socket.create_connection((host, port), TIMEOUT_S)


def connect_unix(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A connection to a local socket; OSError."""
    return _connected(socket.socket(socket.AF_UNIX, kind), lambda fresh: fresh.connect(path))


def connect_tls(
    host: str, port: int, *, ca_file: str = "", certificate: str = "", key: str = "", verify: bool = True
) -> socket.socket:
    """A connection whose server is verified, by the host's authorities and those in a file; OSError."""
    import ssl  # who does not ask for it does not pay for it

    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go: home-made authorities often have no key usage extension
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
    """End TLS, which reads what the server has sent: unread, it made a reset of the close, and lost the last lines."""
    if unwrap := getattr(connection, "unwrap", None):
        connection.settimeout(_GOODBYE_S)
        try:
            unwrap()
        except OSError as error:  # many servers just hang up, too
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
    """Why nobody answers there, in the words of Go's `net`."""
    if unverified := getattr(error, "verify_message", ""):
        return f"tls: failed to verify certificate: {unverified}"
    return f"dial {network} {place}: connect: {(error.strerror or str(error)).lower()}"
