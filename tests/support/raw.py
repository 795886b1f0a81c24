"""HTTP by hand over a unix socket, to see status lines, headers and bytes that clients hide."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Reply:
    """A complete response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an error."""
        assert set(self.json) == {"message"}
        return self.json["message"]  # type: ignore[no-any-return]


def ask(path: Path, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    """Send one request to the socket at `path`; `body` is sent as JSON unless it is bytes."""
    connection = _UnixConnection(path)
    sent = dict(headers or {})
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, target, data, sent)
        with connection.getresponse() as answer:
            return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


@contextmanager
def streaming(path: Path, method: str, target: str) -> Iterator[http.client.HTTPResponse]:
    """The response to one request after its head; the body is read by the caller."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, target)
        with connection.getresponse() as answer:
            yield answer
    finally:
        connection.close()
