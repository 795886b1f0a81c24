"""The driver `gelf`: sends each line in the Graylog Extended Log Format, by UDP or TCP.

    {"version":"1.1","host":"h","short_message":"hi","timestamp":1795790476.269,"level":6,"_container_name":"web",...}

By UDP, a message is compressed, and split into chunks if it exceeds a packet; by TCP it ends with a zero byte. Empty
lines are skipped.

Source: the GELF specification 1.1; dockerd's documentation of the driver for the fields.
"""

from __future__ import annotations

import gzip
import secrets
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from havre.errors import InvalidInput
from havre.logs.delivery import PAUSE_S, Delivery, connect_tcp, connect_udp, describe
from havre.logs.jsonfile import escape_text
from havre.logs.records import Record
from havre.logs.subject import Subject

_MAGIC = b"\x1e\x0f"
_CHUNK_BYTES = 1420 - len(_MAGIC) - 8 - 2
_MOST_CHUNKS = 128
_MOST_ATTEMPTS = 100
_LONGEST_PAUSE_S = 60
_LEVELS = {1: 6, 2: 3}
_COMPRESSIONS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": lambda data, level: gzip.compress(data, level, mtime=0),
    "zlib": zlib.compress,
    "none": lambda data, level: data,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GelfTarget:
    """The server and settings; `attempts` and `pause_s` apply to new connections (TCP)."""

    scheme: str
    host: str
    port: int
    compression: str = "gzip"
    level: int = 1
    attempts: int = 3
    pause_s: float = PAUSE_S


def parse_gelf(options: Mapping[str, str]) -> GelfTarget:
    """Parse the options `gelf-*`. InvalidInput in dockerd's words. Pure."""
    if not (address := options.get("gelf-address")):
        raise InvalidInput("gelf-address is a required parameter", "as in udp://127.0.0.1:12201")
    scheme, _, place = address.partition("://")
    if scheme not in ("udp", "tcp"):
        raise InvalidInput("gelf: endpoint needs to be TCP or UDP", "as in udp://127.0.0.1:12201")
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput("gelf: please provide gelf-address as proto://host:port", "as in udp://127.0.0.1:12201")
    _refuse_other_transport(options, scheme)
    return GelfTarget(
        scheme=scheme,
        host=host.strip("[]"),
        port=int(port),
        compression=_choice(options, "gelf-compression-type", "gzip", _COMPRESSIONS),
        level=int(_choice(options, "gelf-compression-level", "1", [str(level) for level in range(-1, 10)])),
        attempts=_positive(options, "gelf-tcp-max-reconnect", 3, _MOST_ATTEMPTS),
        pause_s=_positive(options, "gelf-tcp-reconnect-delay", 1, _LONGEST_PAUSE_S),
    )


def _refuse_other_transport(options: Mapping[str, str], scheme: str) -> None:
    for name in options:
        if scheme == "tcp" and name.startswith("gelf-compression"):
            raise InvalidInput("compression is only supported on UDP", f"leave {name} out")
        if scheme == "udp" and name.startswith("gelf-tcp"):
            raise InvalidInput(f'"{name}" is only valid for TCP', "leave it out")


def _choice(options: Mapping[str, str], name: str, default: str, known: Mapping[str, object] | list[str]) -> str:
    value = options.get(name, default)
    if value not in known:
        raise InvalidInput(
            f'unknown value "{value}" for log opt "{name}" for gelf log driver', f"known: {', '.join(known)}"
        )
    return value


def _positive(options: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = options.get(name, str(default))
    if not value.isdecimal() or len(value) > len(str(2**63 - 1)):
        raise InvalidInput(f'"{name}" must be a positive integer', f"as in {default}")
    return min(int(value), most)


def render_fields(subject: Subject, tag: str, attrs: Mapping[str, str]) -> bytes:
    """The additional fields of every message."""
    fields = {
        "command": subject.command,
        "container_id": subject.id,
        "container_name": subject.name,
        "created": subject.created,
        "image_id": subject.image_id,
        "image_name": subject.image_name,
        "tag": tag,
        **attrs,
    }
    pairs = ((escape_text(key.encode()), escape_text(value.encode())) for key, value in sorted(fields.items()))
    return b"".join(b',"_%s":"%s"' % pair for pair in pairs)


def render_gelf(record: Record, hostname: str, fields: bytes) -> bytes:
    """One message."""
    seconds = datetime.fromisoformat(f"{record.time[:19].decode()}+00:00").timestamp()
    moment = f"{seconds:.0f}.{record.time[20:23].decode()}".rstrip("0").rstrip(".")
    head = b'{"version":"1.1","host":"%s","short_message":"%s"' % (hostname.encode(), escape_text(record.text))
    return head + b',"timestamp":%s,"level":%d%s}' % (moment.encode(), _LEVELS[record.stream], fields)


def cut(message: bytes) -> list[bytes]:
    """The packets of a message; none if it is too long for the format (128 chunks)."""
    if len(message) <= _CHUNK_BYTES + len(_MAGIC) + 10:
        return [message]
    pieces = [message[start : start + _CHUNK_BYTES] for start in range(0, len(message), _CHUNK_BYTES)]
    if len(pieces) > _MOST_CHUNKS:
        return []
    identifier = secrets.token_bytes(8)
    return [_MAGIC + identifier + bytes((number, len(pieces))) + piece for number, piece in enumerate(pieces)]


class Gelf:
    """Forwards one container's records."""

    def __init__(self, target: GelfTarget, subject: Subject, tag: str, attrs: Mapping[str, str]) -> None:
        """Connect. Failed, in dockerd's words, when the server is unreachable. Blocking."""
        self._target = target
        self._hostname = socket.gethostname()
        self._fields = render_fields(subject, tag, attrs)
        self._compress = _COMPRESSIONS[target.compression]
        connect = connect_udp if target.scheme == "udp" else connect_tcp
        self._delivery = Delivery(
            partial(connect, target.host, target.port),
            partial(_describe, target),
            attempts=target.attempts,
            pause_s=target.pause_s,
        )
        self._delivery.open()

    def send(self, record: Record) -> None:
        """Send a record; skips empty lines."""
        if not record.text:
            return
        message = render_gelf(record, self._hostname, self._fields)
        if self._target.scheme == "tcp":
            packets = [message + b"\0"]
        else:
            packets = cut(self._compress(message, self._target.level))

        def write(connection: socket.socket) -> None:
            for packet in packets:
                connection.sendall(packet)

        self._delivery.send(write)

    def hurry(self) -> None:
        """No more records will come."""
        self._delivery.hurry()

    def close(self) -> None:
        """Close the connection."""
        self._delivery.close()


def _describe(target: GelfTarget, error: OSError) -> str:
    place = f"{target.host}:{target.port}"
    return f"gelf: cannot connect to GELF endpoint: {place} {describe(target.scheme, place, error)}"
