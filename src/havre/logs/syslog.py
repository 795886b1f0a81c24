"""The driver `syslog`: each line a message to a syslog server, by UDP, TCP, TLS or a local socket.

    unix     <30>Nov 24 16:09:54 web[12462]: hi                               without a format, as syslog(3) writes
    rfc3164  <30>Nov 24 16:09:54 host web[12462]: hi
    rfc5424  <30>1 2026-11-24T16:09:56Z host web 12462 web - hi               rfc5424micro: with microseconds

The number in angle brackets is 8 times the facility, and 6 for standard output or 3 for standard error. Messages end
with a newline; RFC 5424 by TLS has their length before them instead (RFC 5425).

A server that cannot be reached when a container starts is an error, as in dockerd. Later it is tried again with each
message, but not more than once in RETRY_S; what cannot be sent is dropped from the forwarding (the cache has it).
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from havre.errors import Failed, InvalidInput
from havre.logs.records import Record

log = logging.getLogger(__name__)

PORT = 514
TIMEOUT_S = 5.0
RETRY_S = 1.0
LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_SCHEMES = ("udp", "tcp", "tcp+tls", "unix", "unixgram")
_URL = re.compile(r"([a-z+]+)://(.+)")
_SEVERITY = {1: 6, 2: 3}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where messages go and how they look; `scheme` "" is the host's own syslog."""

    scheme: str = ""
    host: str = ""
    port: int = PORT
    path: str = ""
    facility: int = 3
    format: str = ""
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


def parse_target(options: Mapping[str, str]) -> Target:
    """The options `syslog-*`; InvalidInput in dockerd's words. Pure."""
    scheme, host, port, path = _parse_address(options.get("syslog-address", ""))
    form = options.get("syslog-format", "")
    if form not in _FORMATS:
        raise InvalidInput("Invalid syslog format", "expected rfc3164, rfc5424 or rfc5424micro")
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        facility=_parse_facility(options.get("syslog-facility", "daemon")),
        format=form,
        ca_file=options.get("syslog-tls-ca-cert", ""),
        certificate=options.get("syslog-tls-cert", ""),
        key=options.get("syslog-tls-key", ""),
        verify="syslog-tls-skip-verify" not in options,
    )


def _parse_address(text: str) -> tuple[str, str, int, str]:
    if not text:
        return "", "", PORT, ""
    match = _URL.fullmatch(text)
    if match is None:
        raise InvalidInput(f"syslog-address should be in form proto://address, got {text}", "as in udp://127.0.0.1:514")
    scheme, rest = match.groups()
    if scheme not in _SCHEMES:
        raise InvalidInput(f"unsupported scheme: '{scheme}'", f"known: {', '.join(_SCHEMES)}")
    if scheme.startswith("unix"):
        return scheme, "", PORT, rest
    host, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        host, port = rest, str(PORT)
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"invalid port in syslog-address: {text}", "expected 1 to 65535")
    return scheme, host.strip("[]"), int(port), ""


def _parse_facility(text: str) -> int:
    if text.isdecimal() and int(text) < len(_FACILITIES):
        return int(text)
    if text and text in _FACILITIES:
        return _FACILITIES.index(text)
    raise InvalidInput("invalid syslog facility", "a name such as local0, or 0 to 23")


def render_message(record: Record, target: Target, tag: str, hostname: str, pid: int) -> bytes:
    """One message without its end. Pure, but for the time zone."""
    priority = 8 * target.facility + _SEVERITY[record.stream]
    moment = datetime.fromisoformat(f"{record.time[:26].decode()}+00:00").astimezone()
    if target.format.startswith("rfc5424"):
        fraction = "microseconds" if target.format.endswith("micro") else "seconds"
        stamp = moment.isoformat(timespec=fraction).replace("+00:00", "Z")
        head = f"<{priority}>1 {stamp} {hostname} {tag} {pid} {tag} - "
    else:
        stamp = f"{_MONTHS[moment.month - 1]} {moment.day:2d} {moment:%H:%M:%S}"
        host = f"{hostname} " if target.format else ""
        head = f"<{priority}>{stamp} {host}{tag}[{pid}]: "
    return head.encode() + record.text


class Syslog:
    """A forwarder of one container's records."""

    def __init__(self, target: Target, tag: str) -> None:
        """Connect; Failed in dockerd's words where nobody answers. Blocking."""
        self._target = target
        self._tag = tag
        self._hostname = socket.gethostname()
        self._pid = os.getpid()
        self._counted = target.scheme == "tcp+tls" and target.format.startswith("rfc5424")
        self._failed_at = 0.0
        try:
            self._connection: socket.socket | None = _connect(target)
        except OSError as error:
            problem = _describe(target, error)
            raise Failed(
                f"failed to create task for container: failed to initialize logging driver: {problem}"
            ) from error

    def send(self, record: Record) -> None:
        """Send it, by a new connection if the old one has broken. Empty lines are no messages."""
        if not record.text:
            return
        message = render_message(record, self._target, self._tag, self._hostname, self._pid)
        data = b"%d %s" % (len(message), message) if self._counted else message + b"\n"
        for _ in range(2):
            if self._connection is None and time.monotonic() - self._failed_at < RETRY_S:
                return
            try:
                if self._connection is None:
                    self._connection = _connect(self._target)
                self._connection.sendall(data)
            except OSError as error:
                self._break(error)
            else:
                return

    def _break(self, error: OSError) -> None:
        if self._connection is None:
            self._failed_at = time.monotonic()
            log.warning("log lines for %s are dropped: %s", self._tag, _describe(self._target, error))
        else:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()


def _connect(target: Target) -> socket.socket:
    match target.scheme:
        case "":
            return _connect_local()
        case "unix":
            return _connect_path(target.path, socket.SOCK_STREAM)
        case "unixgram":
            return _connect_path(target.path, socket.SOCK_DGRAM)
        case "udp":
            family, kind, _, _, address = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0]
            return _connected(socket.socket(family, kind), lambda fresh: fresh.connect(address))
        case "tcp":
            return socket.create_connection((target.host, target.port), TIMEOUT_S)
        case _:
            return _connect_tls(target)


def _connect_tls(target: Target) -> socket.socket:
    import ssl  # who does not ask for it does not pay for it

    context = ssl.create_default_context(cafile=target.ca_file or None)
    if target.certificate:
        context.load_cert_chain(target.certificate, target.key or None)
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection((target.host, target.port), TIMEOUT_S)
    try:
        return context.wrap_socket(plain, server_hostname=target.host)
    except BaseException:
        plain.close()
        raise


def _connect_local() -> socket.socket:
    for path in LOCAL_SOCKETS:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                return _connect_path(path, kind)
            except OSError:
                continue
    raise ConnectionRefusedError("no local syslog")


def _connect_path(path: str, kind: socket.SocketKind) -> socket.socket:
    return _connected(socket.socket(socket.AF_UNIX, kind), lambda fresh: fresh.connect(path))


def _connected(fresh: socket.socket, connect: Callable[[socket.socket], None]) -> socket.socket:
    try:
        fresh.settimeout(TIMEOUT_S)
        connect(fresh)
    except BaseException:
        fresh.close()
        raise
    return fresh


def _describe(target: Target, error: OSError) -> str:
    if not target.scheme:
        return "Unix syslog delivery error"
    place = target.path or f"{target.host}:{target.port}"
    reason = (error.strerror or str(error)).lower()
    return f"dial {target.scheme.removesuffix('+tls').removesuffix('gram')} {place}: connect: {reason}"
