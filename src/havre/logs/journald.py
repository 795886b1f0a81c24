"""The driver `journald`: sends each line to systemd's journal by its native protocol.

An entry is a datagram of fields, `NAME=value` and a newline; a value with newlines is preceded by its length instead.
The names are dockerd's, so that `journalctl CONTAINER_NAME=web` works as with docker.

Source: "Native Journal Protocol" of systemd; dockerd's documentation of the driver for the fields.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from havre.logs.delivery import Delivery, connect_unix
from havre.logs.numbering import Numbering
from havre.logs.records import Record
from havre.logs.subject import Subject

SOCKET = Path("/run/systemd/journal/socket")
_PRIORITY = {1: b"6", 2: b"3"}
_NOT_A_NAME = re.compile(r"[^A-Z0-9_]")


def field_name(text: str) -> str:
    """The field name of a label or variable: capitals, digits and underscores, not beginning with an underscore or
    digit."""
    return _NOT_A_NAME.sub("_", text.upper()).lstrip("_")


def render_field(name: str, value: bytes) -> bytes:
    """One field of an entry."""
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def fixed_fields(subject: Subject, tag: str, attrs: Mapping[str, str]) -> bytes:
    """The fields common to all entries of a container."""
    fields = {
        "CONTAINER_ID": subject.id[:12],
        "CONTAINER_ID_FULL": subject.id,
        "CONTAINER_NAME": subject.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": subject.image_name,
        "SYSLOG_IDENTIFIER": tag,
        **{name: value for key, value in attrs.items() if (name := field_name(key))},
    }
    return b"".join(render_field(name, value.encode()) for name, value in fields.items())


class Journald:
    """Forwards one container's records."""

    def __init__(self, subject: Subject, tag: str, attrs: Mapping[str, str], path: Path = SOCKET) -> None:
        """Connect to the journal at `path`. Failed, in dockerd's words, when it is missing. Blocking."""
        self._fixed = fixed_fields(subject, tag, attrs)
        self._numbering = Numbering()
        self._delivery = Delivery(partial(connect_unix, str(path), socket.SOCK_DGRAM), _describe)
        self._delivery.open()

    def send(self, record: Record) -> None:
        """Send a record, reconnecting once to a restarted journal; skips empty lines."""
        if not record.text and not self._numbering.has_begun(record.stream):
            return
        entry = self._render(record)
        self._delivery.send(lambda connection: connection.sendall(entry))

    def _render(self, record: Record) -> bytes:
        fields = [
            render_field("MESSAGE", record.text),
            render_field("PRIORITY", _PRIORITY[record.stream]),
            render_field("SYSLOG_TIMESTAMP", record.time),
            self._fixed,
            *self._part_fields(record),
        ]
        return b"".join(fields)

    def _part_fields(self, record: Record) -> list[bytes]:
        if (part := self._numbering.number(record)) is None:
            return []
        return [
            render_field("CONTAINER_PARTIAL_MESSAGE", b"true"),
            render_field("CONTAINER_PARTIAL_ID", part.line.encode()),
            render_field("CONTAINER_PARTIAL_ORDINAL", b"%d" % part.ordinal),
            render_field("CONTAINER_PARTIAL_LAST", b"true" if part.is_last else b"false"),
        ]

    def hurry(self) -> None:
        """No more records will come."""
        self._delivery.hurry()

    def close(self) -> None:
        """Close the socket."""
        self._delivery.close()


def _describe(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | ConnectionError):
        return "journald is not enabled on this host"
    return f"journald rejected an entry: {error.strerror or error}"
