"""What the daemon and systemd tell each other: sockets handed over, notifications, whether the host goes down.

Source: sd_listen_fds(3), sd_notify(3), systemctl(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from havre.runtime import spawn

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_FIRST_INHERITED = 3
_REFUSING_S = 2.0
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
    All are served at once, within `_REFUSING_S`: a client that says nothing costs the others nothing.
    """
    body = json.dumps({"message": why}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    answer = head.encode() + b"Connection: close\r\n\r\n" + body
    end = time.monotonic() + _REFUSING_S
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        for descriptor in descriptors:
            listener = stack.enter_context(socket.socket(fileno=os.dup(descriptor)))
            while time.monotonic() < end and (connection := _accepted(listener)) is not None:
                waiting.register(stack.enter_context(connection), selectors.EVENT_READ)
        while waiting.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                waiting.unregister(key.fileobj)
                _answer(key.fileobj, answer)
        for key in waiting.get_map().values():
            _answer(key.fileobj, answer)


def _accepted(listener: socket.socket) -> socket.socket | None:
    """The next who waits; None when nobody does, or when there are too many of them for this process."""
    try:
        listener.setblocking(False)
        connection, _ = listener.accept()
        connection.setblocking(False)
    except OSError:
        return None
    return connection


def _answer(connection: Any, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1 << 20)  # closed with something unread, the client would see a reset
    with contextlib.suppress(OSError):
        connection.sendall(answer)  # it fits into the buffer of a new connection


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
