"""Waiting for a container's end: conditions as values, waiters that are registered before anything else happens.

`POST /wait` answers its headers before the container has started; so `Exits.wait` registers at once and hands back an
`AsyncWait`, whose `result()` is awaited later.

    condition      fulfilled by
    not-running    at once if it does not run, else its next exit
    next-exit      its next exit
    removed        its removal (with the last exit code), or a removal that failed (with its error)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from havre.errors import InvalidInput

CONDITIONS = ("not-running", "next-exit", "removed")


@dataclass(frozen=True, slots=True)
class WaitResult:
    """How it ended: the exit code, and the error's text if it could not be run."""

    code: int
    error: str = ""


class AsyncWait:
    """A registered wait; `cancel()` when the client is gone."""

    def __init__(self, future: asyncio.Future[WaitResult]) -> None:
        self._future = future

    async def result(self) -> WaitResult:
        """The end, once it comes."""
        return await self._future

    def cancel(self) -> None:
        """Forget about it; idempotent."""
        self._future.cancel()


def check_condition(condition: str) -> str:
    """The condition to wait for ("" is not-running), or `InvalidInput`."""
    condition = condition or "not-running"
    if condition not in CONDITIONS:
        raise InvalidInput(f'invalid condition: "{condition}"', f"expected one of {', '.join(CONDITIONS)}")
    return condition


class Exits:
    """The waiters of one container."""

    def __init__(self) -> None:
        self._exit: set[asyncio.Future[WaitResult]] = set()
        self._removal: set[asyncio.Future[WaitResult]] = set()

    def wait(self, condition: str, now: WaitResult | None) -> AsyncWait:
        """Register for `condition`; `now` is the result to give at once, None if it is yet to come."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if now is not None:
            future.set_result(now)
            return AsyncWait(future)
        waiters = self._removal if condition == "removed" else self._exit
        waiters.add(future)
        future.add_done_callback(waiters.discard)
        return AsyncWait(future)

    def exited(self, result: WaitResult) -> None:
        """Wake who waits for an exit."""
        _fulfil(self._exit, result)

    def not_removed(self, result: WaitResult) -> None:
        """Wake who waits for a removal, which has failed."""
        _fulfil(self._removal, result)

    def removed(self, result: WaitResult) -> None:
        """Wake everybody: after a removal nothing else can happen."""
        _fulfil(self._exit, result)
        _fulfil(self._removal, result)


def _fulfil(waiters: set[asyncio.Future[WaitResult]], result: WaitResult) -> None:
    for future in list(waiters):
        if not future.done():
            future.set_result(result)
