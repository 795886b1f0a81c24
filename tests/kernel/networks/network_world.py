"""What the network tests do to the world: commands, questions to servers, containers as guests."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

from havre.networks.guest import Guest
from havre.wire.config import EndpointSettings, PortBinding


def run(*commands: str) -> str:
    """Run commands in the test's namespace; the output of the last."""
    output = ""
    for command in commands:
        output = subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
    return output


def ask(protocol: str, host: str, port: int, timeout_s: float = 1.0) -> str:
    """What the server at an address answers: the address it sees us at; "" when there is no answer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect((host, port))
            if protocol == "udp":
                client.send(b"?")
            return client.recv(100).decode()
        except OSError:
            return ""


def container(letter: str, network: str = "bridge", ports: dict[str, list[str]] | None = None) -> Guest:
    """A container: ID of one repeated hexadecimal digit, `ports` as {"80/tcp": ["127.0.0.1:8080"]}."""
    bindings = {
        name: [PortBinding(host_ip=text.rpartition(":")[0], host_port=text.rpartition(":")[2]) for text in wanted]
        for name, wanted in (ports or {}).items()
    }
    return Guest(
        id=letter * 64,
        name=letter * 2,
        mode=network,
        hostname=letter * 12,
        bindings=bindings,
        asked={} if ":" in network else {network: EndpointSettings()},
    )


class Rows:
    """A table in memory."""

    def __init__(self, rows: dict[str, Any] | None = None) -> None:
        self.rows = rows or {}
        self.damaged: dict[str, Any] = {}

    async def all(self) -> dict[str, Any]:
        return dict(self.rows)

    async def put(self, key: str, value: Any) -> None:
        self.rows[key] = value

    async def delete(self, key: str) -> None:
        self.rows.pop(key, None)
