"""Children are waited for, whoever reaped them."""

from __future__ import annotations

import asyncio
import os

import pytest

from havre.errors import Failed
from havre.runtime import spawn


def test_a_child_is_finished_once_and_again() -> None:
    async def play() -> None:
        child = spawn.start(["/bin/sh", "-c", "exit 3"])
        assert await spawn.finish(child) == 3
        assert await spawn.finish(child) == 3

    asyncio.run(play())


def test_a_child_that_was_reaped_by_a_signal_too_late() -> None:
    async def play() -> None:
        child = spawn.start(["/bin/true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is there to be reaped
        child.kill()  # looks first whether it has ended, and so reaps it
        assert await spawn.finish(child) == 0

    asyncio.run(play())


def test_a_child_that_the_kernel_holds_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in an uninterruptible sleep, which SIGKILL does not end before the sleep is over."""
    monkeypatch.setattr(spawn, "LIMIT_S", 0.05)
    monkeypatch.setattr(spawn, "END_MS", 500)
    monkeypatch.setattr(os, "killpg", lambda *_: None)
    started: list[int] = []

    async def play() -> None:
        running = asyncio.ensure_future(spawn.run(["sleep", "60"]))
        turns = 0
        while not running.done():  # the loop serves others meanwhile
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 5
        with pytest.raises(Failed, match=r"^sleep did not end within 0\.05 s and was killed$"):
            await running

    real = spawn.start

    def start(*args: object, **options: object) -> object:
        child = real(*args, **options)  # type: ignore[arg-type]
        started.append(child.pid)
        return child

    monkeypatch.setattr(spawn, "start", start)
    asyncio.run(asyncio.wait_for(play(), 20))
    os.kill(started[0], 9)
    os.waitpid(started[0], 0)
