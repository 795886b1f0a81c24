"""The interface to systemd: socket activation, notifications, and whether the host is shutting down.

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
_ANSWER_S = 30.0  # systemctl is slow during a shutdown; systemd gives a service 90 s to stop


def inherited_sockets() -> list[int]:
    """The sockets passed by systemd (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return list(range(_FIRST_INHERITED, _FIRST_INHERITED + count))


def notify(state: str) -> None:
    """Send a state to systemd (sd_notify(3)), if it listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def refuse_waiting(descriptors: Iterable[int], why: str) -> None:
    """Answer 503 to clients waiting on passed sockets, as the daemon cannot start.

    Otherwise systemd would start it again for each of them until it gives up, and all of them would wait that long.
    All are answered in parallel, within `_REFUSING_S`, so a silent client does not delay the others.
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
    """The next waiting client; None if there is none, or no descriptor for it."""
    try:
        listener.setblocking(False)
        connection, _ = listener.accept()
        connection.setblocking(False)
    except OSError:
        return None
    return connection


def _answer(connection: Any, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1 << 20)  # closing a socket with unread data would send a reset
    with contextlib.suppress(OSError):
        connection.sendall(answer)  # fits into the buffer of a new connection


async def host_goes_down(booted: Path = BOOTED, systemctl: str = "systemctl") -> bool:
    """Report whether systemd is halting, powering off or rebooting the host, and not only stopping this service.

    False if systemd is not the host's init or does not answer.
    """
    if not booted.is_dir():
        return False
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer = await spawn.run([systemctl, "is-system-running"])
    except (OSError, TimeoutError):
        return False
    return answer.stdout.strip() == "stopping"
