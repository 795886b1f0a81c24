"""Sockets in another network namespace."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def opened_inside(netns: str | None, make: Callable[[], socket.socket]) -> socket.socket:
    """What `make` opens in a thread that has entered the named namespace; the test itself stays where it is."""

    def enter() -> socket.socket:
        if netns is not None:
            with open(f"/run/netns/{netns}") as file:
                os.setns(file.fileno(), os.CLONE_NEWNET)
        return make()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(enter).result()
