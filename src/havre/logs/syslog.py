"""The driver `syslog`: sends each line to a syslog server, by UDP, TCP, TLS or a local socket.

    unix     <30>Nov 24 16:09:54 web[12462]: hi                               without a format, as syslog(3) writes
    rfc3164  <30>Nov 24 16:09:54 host web[12462]: hi
    rfc5424  <30>1 2026-11-24T16:09:56Z host web 12462 web - hi               rfc5424micro: with microseconds

The number in angle brackets is 8 times the facility, plus 6 for standard output or 3 for standard error. Messages end
with a newline; RFC 5424 over TLS prefixes their length instead (RFC 5425).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from havre.errors import InvalidInput
from havre.logs.delivery import Delivery, connect_tcp, connect_tls, connect_udp, connect_unix, describe
from havre.logs.records import Record

PORT = 514
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
    """The server and message format; `scheme` "" is the host's own syslog."""

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
    """Parse the options `syslog-*`. InvalidInput in dockerd's words. Pure."""
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
    """Render one message. Pure, except for the time zone."""
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
    return head.encode() + record.text + b"\n"


class Syslog:
    """Forwards one container's records."""

    def __init__(self, target: Target, tag: str) -> None:
        """Connect. Failed, in dockerd's words, when the server is unreachable. Blocking."""
        self._target = target
        self._tag = tag
        self._hostname = socket.gethostname()
        self._pid = os.getpid()
        self._counted = target.scheme == "tcp+tls" and target.format.startswith("rfc5424")
        self._delivery = Delivery(partial(_connect, target), partial(_describe, target))
        self._delivery.open()

    def send(self, record: Record) -> None:
        """Send a record; skips empty lines."""
        if not record.text:
            return
        message = render_message(record, self._target, self._tag, self._hostname, self._pid)
        data = b"%d %s" % (len(message), message) if self._counted else message
        self._delivery.send(lambda connection: connection.sendall(data))

    def hurry(self) -> None:
        """No more records will come."""
        self._delivery.hurry()

    def close(self) -> None:
        """Close the connection."""
        self._delivery.close()


def _connect(target: Target) -> socket.socket:
    match target.scheme:
        case "":
            return _connect_local()
        case "unix":
            return connect_unix(target.path)
        case "unixgram":
            return connect_unix(target.path, socket.SOCK_DGRAM)
        case "udp":
            return connect_udp(target.host, target.port)
        case "tcp":
            return connect_tcp(target.host, target.port)
        case _:
            return connect_tls(
                target.host,
                target.port,
                ca_file=target.ca_file,
                certificate=target.certificate,
                key=target.key,
                verify=target.verify,
            )


def _connect_local() -> socket.socket:
    for path in LOCAL_SOCKETS:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                return connect_unix(path, kind)
            except OSError:
                continue
    raise ConnectionRefusedError("no local syslog")


def _describe(target: Target, error: OSError) -> str:
    if not target.scheme:
        return "Unix syslog delivery error"
    place = target.path or f"{target.host}:{target.port}"
    return describe(target.scheme.removesuffix("+tls").removesuffix("gram"), place, error)
