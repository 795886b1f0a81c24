"""A plugin's side of Docker's plugin protocol: JSON posted to a unix socket, a thread for each connection.

Source: Docker's documentation, "Docker Plugin API".
"""

from __future__ import annotations

import json
import socketserver
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Answer = Callable[[str, dict[str, Any]], Any]


class PluginServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listens at `socket`. `answer` is given a call (`Plugin.Activate`) and its body; bytes that it returns are sent as
    they are, an object with `Err` in it with status 500."""

    daemon_threads = True

    def __init__(self, socket: Path, answer: Answer) -> None:
        super().__init__(str(socket), _Handler)
        self.answer = answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PluginServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer(self.path.strip("/"), json.loads(body or b"{}"))
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(500 if isinstance(answer, dict) and answer.get("Err") else 200)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "the engine"

    def log_message(self, format: str, *arguments: Any) -> None:
        return
