"""The driver `fluentd`: sends each line as an event of fluentd's forward protocol, by TCP, TLS or a local socket.

    [tag, time, {"container_id": ..., "container_name": "/web", "source": "stdout", "log": "hi"}, {}]    as MessagePack

The time is in seconds, or with fluentd-sub-second-precision an EventTime. Texts are strings with the original bytes,
UTF-8 or not, hence the encoder here. With fluentd-request-ack the last map names a chunk, which the server echoes.

With fluentd-async the server may appear later, and disappear: up to fluentd-buffer-limit events are queued in memory
for
a sending thread. Otherwise the rules of `delivery` apply.

Source: Fluentd Forward Protocol Specification 1.0; MessagePack's specification; dockerd's documentation of the driver.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import queue
import secrets
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec

from havre.errors import InvalidInput
from havre.golang.units import parse_duration
from havre.logs.delivery import Delivery, connect_tcp, connect_tls, connect_unix, describe
from havre.logs.numbering import Numbering
from havre.logs.records import NAMES, Record
from havre.logs.subject import Subject
from havre.logs.values import parse_flag, parse_size

log = logging.getLogger(__name__)

PORT = 24224
LONGEST_WAIT_S = 60.0
CLOSE_TIMEOUT_S = 5.0
_SCHEMES = ("tcp", "tls", "unix")
_FOR_EVER = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FluentdTarget:
    """The server and settings; `renew_s` is the maximum age of a connection (0: unlimited)."""

    scheme: str = "tcp"
    host: str = "127.0.0.1"
    port: int = PORT
    path: str = ""
    later: bool = False
    renew_s: float = 0.0
    buffer_events: int = 1 << 20
    retries: int = _FOR_EVER
    wait_s: float = 1.0
    acknowledged: bool = False
    precise: bool = False


def parse_fluentd(options: Mapping[str, str]) -> FluentdTarget:
    """Parse the options `fluentd-*`. InvalidInput in dockerd's words. Pure."""
    if "fluentd-async" in options and "fluentd-async-connect" in options:
        raise InvalidInput(
            "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect", "keep fluentd-async"
        )
    scheme, host, port, path = _parse_address(options.get("fluentd-address", ""))
    return FluentdTarget(
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        later=parse_flag(options, "fluentd-async", False, "")
        or parse_flag(options, "fluentd-async-connect", False, ""),
        renew_s=_parse_interval(options),
        buffer_events=parse_size(options.get("fluentd-buffer-limit", "1m"), ""),
        retries=_parse_retries(options),
        wait_s=_parse_duration(options.get("fluentd-retry-wait", "1s")),
        acknowledged=parse_flag(options, "fluentd-request-ack", False, ""),
        precise=parse_flag(options, "fluentd-sub-second-precision", False, ""),
    )


def _parse_address(text: str) -> tuple[str, str, int, str]:
    def refused(problem: str) -> InvalidInput:
        return InvalidInput(f"invalid fluentd-address ({text}): {problem}", "as in tcp://127.0.0.1:24224")

    scheme, found, place = text.partition("://")
    if not found:
        scheme, place = "tcp", text
    if scheme not in _SCHEMES:
        raise refused(f"unsupported scheme: '{scheme}'")
    if scheme == "unix":
        if not place.strip("/"):
            raise refused("path is empty")
        return scheme, "", 0, place
    place, slash, _ = place.partition("/")
    if slash:
        raise refused("should not contain a path element")
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon:
        host, port = place, str(PORT)
    if not port.isdecimal() or int(port) > 65535:
        raise refused(f'parse "{text}": invalid port ":{port}" after host')
    return scheme, host.strip("[]") or "127.0.0.1", int(port), ""


def _parse_retries(options: Mapping[str, str]) -> int:
    value = options.get("fluentd-max-retries", str(_FOR_EVER))
    if not value.isdecimal():
        raise InvalidInput(f'strconv.ParseUint: parsing "{value}": invalid syntax', "fluentd-max-retries is a number")
    return int(value)


def _parse_duration(text: str) -> float:
    """Seconds."""
    try:
        return parse_duration(text) / 1e9
    except ValueError as error:
        raise InvalidInput(str(error), "as in 500ms or 1m30s") from None


def _parse_interval(options: Mapping[str, str]) -> float:
    if not (text := options.get("fluentd-async-reconnect-interval")):
        return 0.0
    start = "invalid value for fluentd-async-reconnect-interval"
    try:
        interval_s = _parse_duration(text)
    except InvalidInput as error:
        raise InvalidInput(f"{start}: {error.message}", error.hint) from error
    if not 0.1 <= interval_s <= 10:
        raise InvalidInput(f'{start}: value ("{text}") must be between 100ms and 10s', "as in 1s")
    return interval_s


# -- MessagePack


def pack_text(text: bytes) -> bytes:
    """Encode a string of any bytes."""
    length = len(text)
    if length < 32:
        return bytes((0xA0 | length,)) + text
    if length < 1 << 8:
        return struct.pack(">BB", 0xD9, length) + text
    if length < 1 << 16:
        return struct.pack(">BH", 0xDA, length) + text
    return struct.pack(">BI", 0xDB, length) + text


def pack_map(fields: Mapping[str, bytes]) -> bytes:
    """Encode a map of strings."""
    count = len(fields)
    head = bytes((0x80 | count,)) if count < 16 else struct.pack(">BH", 0xDE, count)
    return head + b"".join(pack_text(name.encode()) + pack_text(value) for name, value in fields.items())


def pack_time(moment: bytes, precise: bool) -> bytes:
    """Encode a record's time, in seconds or as an EventTime."""
    seconds = int(datetime.fromisoformat(f"{moment[:19].decode()}+00:00").timestamp())
    if precise:
        return struct.pack(">BBII", 0xD7, 0, seconds, int(moment[20:29]))
    return struct.pack(">BI", 0xD2, seconds)


class Fluentd:
    """Forwards one container's records."""

    def __init__(self, target: FluentdTarget, subject: Subject, tag: str, attrs: Mapping[str, str]) -> None:
        """Connect, unless async. Failed, in dockerd's words, when the server is unreachable. Blocking."""
        self._target = target
        self._tag = pack_text(tag.encode())
        self._fixed = {"container_id": subject.id.encode(), "container_name": f"/{subject.name}".encode()}
        self._attrs = {name: value.encode() for name, value in attrs.items()}
        self._numbering = Numbering()
        self._delivery = Delivery(partial(_connect, target), partial(_describe, target))
        self._thread: _Later | None = None
        if target.later:
            self._thread = _Later(target, self._delivery)
        else:
            self._delivery.open()

    def send(self, record: Record) -> None:
        """Send a record, or queue it if async."""
        event = _Event(self._render(record), self._target.acknowledged)
        if self._thread is not None:
            self._thread.put(event)
        else:
            self._delivery.send(event.write)

    def _render(self, record: Record) -> bytes:
        fields = {**self._fixed, "source": NAMES[record.stream], "log": record.text, **self._attrs}
        if (part := self._numbering.number(record)) is not None:
            fields |= {
                "partial_message": b"true",
                "partial_id": part.line.encode(),
                "partial_ordinal": b"%d" % part.ordinal,
                "partial_last": b"true" if part.is_last else b"false",
            }
        return b"\x94" + self._tag + pack_time(record.time, self._target.precise) + pack_map(fields)

    def hurry(self) -> None:
        """No more records will come."""
        self._delivery.hurry()

    def close(self) -> None:
        """Send queued events, if the server is reachable, and close."""
        if self._thread is not None:
            self._thread.close()
        self._delivery.close()


class _Event:
    """An event and, if it is to be acknowledged, its chunk ID."""

    def __init__(self, data: bytes, acknowledged: bool) -> None:
        self._chunk = base64.b64encode(secrets.token_bytes(16)) if acknowledged else b""
        self._data = data + pack_map({"chunk": self._chunk} if acknowledged else {})

    def write(self, connection: socket.socket) -> None:
        """Send it. OSError if it was not acknowledged."""
        connection.sendall(self._data)
        if self._chunk:
            answer = connection.recv(4096)
            try:
                acknowledged = msgspec.msgpack.decode(answer, type=dict[str, str]).get("ack", "")
            except msgspec.DecodeError as error:
                raise OSError(f"no acknowledgement: {error}") from error
            if acknowledged.encode() != self._chunk:
                raise OSError("another chunk was acknowledged")


class _Later:
    """The queue and its sending thread."""

    def __init__(self, target: FluentdTarget, delivery: Delivery) -> None:
        self._target = target
        self._delivery = delivery
        self._events: queue.Queue[_Event | None] = queue.Queue(max(1, target.buffer_events))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="havre-fluentd", daemon=True)
        self._thread.start()

    def put(self, event: _Event) -> None:
        """Queue an event; dropped when the queue is full."""
        try:
            self._events.put_nowait(event)
        except queue.Full:
            log.warning("a log event is dropped: %d wait for fluentd", self._target.buffer_events)

    def close(self) -> None:
        """Try to send each queued event once more, until one fails."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then the thread is already awake
            self._events.put_nowait(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        connected_at = time.monotonic()
        while not (self._closing.is_set() and self._events.empty()):
            event = self._events.get()
            if self._target.renew_s and time.monotonic() - connected_at > self._target.renew_s:
                self._delivery.close()
                connected_at = time.monotonic()
            if event is not None and not self._hand_over(event) and self._closing.is_set():
                return

    def _hand_over(self, event: _Event) -> bool:
        wait_s = self._target.wait_s
        for _ in range(self._target.retries + 1):
            last = self._closing.is_set()
            try:
                self._delivery.try_send(event.write)
            except OSError as error:
                problem = error
            else:
                return True
            if last:
                break
            self._closing.wait(min(wait_s, LONGEST_WAIT_S))
            wait_s *= 1.5
        log.warning("log events are dropped: %s", _describe(self._target, problem))
        return False


def _connect(target: FluentdTarget) -> socket.socket:
    if target.scheme == "unix":
        return connect_unix(target.path)
    return (connect_tls if target.scheme == "tls" else connect_tcp)(target.host, target.port)


def _describe(target: FluentdTarget, error: OSError) -> str:
    network = "unix" if target.scheme == "unix" else "tcp"
    return describe(network, target.path or f"{target.host}:{target.port}", error)
