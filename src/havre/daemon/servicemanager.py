"""What the daemon and systemd tell each other: sockets handed over, notifications, whether the host goes down.

Source: sd_listen_fds(3), sd_notify(3), systemctl(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from havre.runtime import spawn

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_FIRST_INHERITED = 3
_REQUEST_S = 1.0
_ANSWER_S = 30.0  # a host that stops is busy; systemd gives a service 90 s to stop


def inherited_sockets() -> list[int]:
    """The sockets that systemd hands over (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return list(range(_FIRST_INHERITED, _FIRST_INHERITED + count))


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def refuse_waiting(descriptors: Iterable[int], why: str) -> None:
    """Answer those who wait on sockets handed over, since the daemon cannot start.

    Otherwise systemd would start it again for the next of them, and each would wait until it is given up.
    """
    body = json.dumps({"message": why}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    answer = head.encode() + b"Connection: close\r\n\r\n" + body
    for descriptor in descriptors:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listener:
            listener.setblocking(False)
            while True:
                connection, _ = listener.accept()  # BlockingIOError: nobody waits any more
                _answer(connection, answer)


def _answer(connection: socket.socket, answer: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(_REQUEST_S)
        connection.recv(1 << 20)  # closed with something unread, the client would see a reset
        connection.sendall(answer)


async def host_goes_down(booted: Path = BOOTED, systemctl: str = "systemctl") -> bool:
    """Whether systemd is about to halt, power off or reboot the host, of which the end of a service is a part.

    False where systemd is not the host's, or does not answer.
    """
    if not booted.is_dir():
        return False
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer = await spawn.run([systemctl, "is-system-running"])
    except (OSError, TimeoutError):
        return False
    return answer.stdout.strip() == "stopping"
