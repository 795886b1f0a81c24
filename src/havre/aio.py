"""The only doors to threads and background tasks.

`in_thread` runs blocking work off the loop; `spawn` starts a task that is kept alive until it ends and whose failure is
logged, never lost (a bare `create_task` may be collected half-way, and its exception is seen by nobody).

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

#: For work that ends by itself, soon: nothing in it waits for a client.
SHARED = ThreadPoolExecutor(max_workers=16, thread_name_prefix="havre")
#: How many clients may hold up a thread each.
MAX_TRANSFERS = 256
#: How much `feed` hands to a thread at once.
BATCH_BYTES = 1 << 20
_transfers = threading.BoundedSemaphore(MAX_TRANSFERS)
_tasks: set[asyncio.Task[Any]] = set()


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `function` in the shared pool and return its result.

    Cancelling the caller does not stop the thread: the work must be safe to finish unobserved.
    """
    return await in_pool(SHARED, function, *args, **kwargs)


async def in_pool(pool: ThreadPoolExecutor, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The same in a pool of the caller's, for work that waits for somebody who may never answer."""
    return await asyncio.get_running_loop().run_in_executor(pool, functools.partial(function, *args, **kwargs))


def in_own_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """The same, at once, in a thread that nothing else needs: for a transfer, which a client may hold up for ever.

    `Unavailable`, and nothing has begun, while there are `MAX_TRANSFERS` of them.
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
    """As `in_thread`, but who is cancelled waits for the thread all the same: what it works on must not go before."""
    running = asyncio.ensure_future(in_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def ahead(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same items; while the caller is at one, the next is awaited. To be closed, as `items` is with it."""
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
    """Await `work` so that it runs to its end even when the caller is cancelled (a client that hung up)."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return await asyncio.shield(task)


async def end_background() -> None:
    """Cancel what still runs in the background and wait until it has undone itself; at the daemon's end."""
    running = [task for task in _tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


def spawn(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start `work` as a background task that is referenced until it ends.

    A failure that nobody awaits is logged by asyncio itself, as soon as the task is let go.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def feed(chunks: AsyncIterator[bytes], take: Callable[[bytes], None]) -> None:
    """Give the chunks to `take` in a thread, a megabyte at a time, while the next ones come in."""
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
