"""Children are waited for, whoever reaped them."""

from __future__ import annotations

import asyncio
import os

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
