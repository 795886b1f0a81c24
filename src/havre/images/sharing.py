"""Runs work that several callers want at the same time only once.

pull A --watches--+
                  +--> work(key) --> result or failure, for both
pull B --watches--+        each progress line goes to every watcher; when the last one leaves, it is cancelled
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from havre.aio import spawn
from havre.errors import HavreError
from havre.images.progress import Progress, ProgressLine

T = TypeVar("T")


class _Shared(Generic[T]):
    """One piece of work, its watchers, and its last progress line."""

    def __init__(self, outcome: asyncio.Future[T]) -> None:
        self.outcome = outcome
        self.watchers: list[Progress] = []
        self.last: ProgressLine | None = None

    def report(self, line: ProgressLine) -> None:
        """Pass a line to every watcher."""
        self.last = line
        for watcher in self.watchers:
            watcher(line)


class SharedWork(Generic[T]):
    """Work in progress, by key."""

    def __init__(self) -> None:
        self._running: dict[str, _Shared[T]] = {}

    async def join(self, key: str, work: Callable[[Progress], Coroutine[Any, Any, T]], progress: Progress) -> T:
        """The result of the work on `key`, which is started unless it is running."""
        shared = self._running.get(key)
        if shared is None:
            shared = self._running[key] = _Shared(asyncio.get_running_loop().create_future())
            task = spawn(self._run(key, shared, work(shared.report)), f"shared {key}")
            shared.outcome.add_done_callback(lambda outcome: task.cancel() if outcome.cancelled() else None)
        elif shared.last is not None:
            progress(shared.last)
        shared.watchers.append(progress)
        try:
            return await asyncio.shield(shared.outcome)
        finally:
            shared.watchers.remove(progress)
            if not shared.watchers and not shared.outcome.done():
                shared.outcome.cancel()
                self._forget(key, shared)

    async def _run(self, key: str, shared: _Shared[T], work: Coroutine[Any, Any, T]) -> None:
        try:
            result = await work
        except HavreError as error:
            self._settle(shared, error)
        except BaseException as error:
            self._settle(shared, error if isinstance(error, Exception) else asyncio.CancelledError())
            raise
        else:
            if not shared.outcome.done():
                shared.outcome.set_result(result)
        finally:
            self._forget(key, shared)

    def _settle(self, shared: _Shared[T], error: BaseException) -> None:
        if shared.outcome.done():
            return
        if isinstance(error, asyncio.CancelledError):
            shared.outcome.cancel()
            return
        shared.outcome.set_exception(error)
        shared.outcome.exception()  # mark as retrieved: asyncio would log it if every watcher has left

    def _forget(self, key: str, shared: _Shared[T]) -> None:
        if self._running.get(key) is shared:
            del self._running[key]
