"""Waits for a container's end, registered before anything else happens.

`POST /wait` sends its response headers before the container starts; so `Exits.wait` registers at once and returns an
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
    """The end of a run: the exit code, and the error's text if it could not be started."""

    code: int
    error: str = ""


class AsyncWait:
    """A registered wait; call `cancel()` when the client disconnects."""

    def __init__(self, future: asyncio.Future[WaitResult]) -> None:
        self._future = future

    async def result(self) -> WaitResult:
        """Wait for the end."""
        return await self._future

    def cancel(self) -> None:
        """Drop the wait. Idempotent."""
        self._future.cancel()


def check_condition(condition: str) -> str:
    """The condition to wait for ("" is not-running). Raises `InvalidInput`."""
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
        """Register for `condition`; `now` is a result available at once, None if it is yet to come."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if now is not None:
            future.set_result(now)
            return AsyncWait(future)
        waiters = self._removal if condition == "removed" else self._exit
        waiters.add(future)
        future.add_done_callback(waiters.discard)
        return AsyncWait(future)

    def exited(self, result: WaitResult) -> None:
        """Wake waiters for an exit."""
        _fulfil(self._exit, result)

    def not_removed(self, result: WaitResult) -> None:
        """Wake waiters for a removal, which has failed."""
        _fulfil(self._removal, result)

    def removed(self, result: WaitResult) -> None:
        """Wake all waiters: nothing follows a removal."""
        _fulfil(self._exit, result)
        _fulfil(self._removal, result)


def _fulfil(waiters: set[asyncio.Future[WaitResult]], result: WaitResult) -> None:
    for future in list(waiters):
        if not future.done():
            future.set_result(result)
