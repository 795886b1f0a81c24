"""Waiting for an event with a deadline, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """The first true value of `condition`; fails after `timeout_s`, saying what was awaited.

    Asked every 10 ms, and no more than half of the time: many conditions start a program, while others test, too.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        begun = time.monotonic()
        if value := condition():
            return value
        ended = time.monotonic()
        if ended > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for {what}")
        time.sleep(max(0.01, ended - begun))
