"""Orders to a container that runs, with a lifecycle that only notes what it is told."""

from __future__ import annotations

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from havre.containers.life.control import Control
from havre.containers.live import Live
from havre.errors import Conflict
from support.rows import container_row


class Ended:
    """What becomes of a process that ends before a signal reaches it."""

    async def feed(self, live: Live, event: Any) -> None:
        raise Conflict("the process has ended")


def live(process: object | None) -> Live:
    made = Live(container_row(id="c0"))
    made.process = process  # type: ignore[assignment]
    return made


def test_a_kill_that_comes_as_the_container_ends_is_no_error() -> None:
    async def work() -> None:
        ends = live(SimpleNamespace(pid=1))
        async with ends.lock:  # its end is being recorded
            killing = asyncio.ensure_future(Control(Ended()).kill(ends, signal.SIGKILL))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            assert not killing.done()
        await killing

    asyncio.run(work())


def test_a_kill_of_what_does_not_run_is_refused() -> None:
    async def work() -> None:
        await Control(Ended()).kill(live(None), signal.SIGKILL)  # type: ignore[arg-type]

    with pytest.raises(Conflict, match="cannot kill container: n: "):
        asyncio.run(work())
