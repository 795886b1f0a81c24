"""Waiting for an event with a deadline, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """The first true value of `condition`; fails after `timeout_s`, naming what was awaited.

    Polled every 10 ms and at most half of the time: many conditions start a program, while other tests run.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        begun = time.monotonic()
        if value := condition():
            return value
        ended = time.monotonic()
        if ended > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}")
        time.sleep(max(0.01, ended - begun))
