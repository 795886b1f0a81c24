"""Threads and background tasks: the only module that starts either.

`in_thread` runs blocking work off the event loop; `spawn` starts a task with a reference until it ends, whose failure
is
logged (asyncio keeps only weak references to tasks, and an unretrieved exception may go unnoticed).

Why: docs/decisions/001.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, ParamSpec, TypeVar, cast

from havre.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

# For work that soon ends by itself: nothing in it waits for a client.
SHARED = ThreadPoolExecutor(max_workers=16, thread_name_prefix="havre")
# Maximum number of transfers, each of which occupies a thread.
MAX_TRANSFERS = 256
# Bytes that `feed` passes to a thread at once.
BATCH_BYTES = 1 << 20
_transfers = threading.BoundedSemaphore(MAX_TRANSFERS)
_tasks: set[asyncio.Task[Any]] = set()


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `function` in the shared pool and return its result.

    Cancelling the caller does not stop the thread: the work must be safe to complete unobserved.
    """
    return await in_pool(SHARED, function, *args, **kwargs)


async def in_pool(pool: ThreadPoolExecutor, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`, in the caller's pool: for work that may wait indefinitely."""
    return await asyncio.get_running_loop().run_in_executor(pool, functools.partial(function, *args, **kwargs))


def in_own_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """As `in_thread`, at once, in a new thread: for a transfer, which a client may delay indefinitely.

    `Unavailable`, and nothing is started, while there are `MAX_TRANSFERS`.
    """
    if not _transfers.acquire(blocking=False):
        hint = "end some of them (clients that are silent count, too), or try again later"
        raise Unavailable(f"there are {MAX_TRANSFERS} transfers of files already, which is the limit", hint=hint)
    pool = ThreadPoolExecutor(1, thread_name_prefix="havre-transfer")
    try:
        working = pool.submit(function, *args, **kwargs)
    except BaseException:
        _transfers.release()
        raise
    working.add_done_callback(lambda _: _transfers.release())
    pool.shutdown(wait=False)
    return asyncio.wrap_future(working)


async def to_its_end(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`. On cancellation, wait for the thread, then raise: it still uses the caller's resources."""
    running = asyncio.ensure_future(in_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def owned(release: Callable[[T], None], function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`, for a result that the caller must release, also when it is cancelled."""
    running = asyncio.ensure_future(in_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(lambda done: release(done.result()) if done.exception() is None else None)
        await asyncio.wait([running])
        raise


async def ahead(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield the same items; the next one is awaited while the caller processes one. Close it, which closes `items`."""
    end = object()
    async with aclosing(items):
        coming = asyncio.ensure_future(anext(items, end))
        try:
            while (item := await coming) is not end:
                coming = asyncio.ensure_future(anext(items, end))
                yield cast(T, item)
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to completion even when the caller is cancelled (a client disconnected)."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return await asyncio.shield(task)


async def end_background() -> None:
    """Cancel background tasks and wait for their cleanup; at the daemon's end."""
    running = [task for task in _tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


def spawn(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start `work` as a background task that is referenced until it ends.

    asyncio logs a failure that nothing awaits, when the task is released.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def feed(chunks: AsyncIterator[bytes], take: Callable[[bytes], None]) -> None:
    """Pass the chunks to `take` in a thread, a megabyte at a time, while the next ones arrive."""
    working: asyncio.Future[None] | None = None
    try:
        batch, size = list[bytes](), 0
        async for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH_BYTES:
                if working is not None:
                    await working
                working, batch, size = asyncio.ensure_future(in_thread(_take_all, take, batch)), [], 0
        if working is not None:
            await working
        working = asyncio.ensure_future(in_thread(_take_all, take, batch))
        await working
    finally:
        if working is not None and not working.done():
            await asyncio.wait([working])  # its thread uses what the caller closes next


def _take_all(take: Callable[[bytes], None], batch: list[bytes]) -> None:
    for chunk in batch:
        take(chunk)
