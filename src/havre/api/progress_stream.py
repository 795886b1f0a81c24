"""Long work on images, told line by line while it goes on.

The engine calls `progress` from its own task; lines are collected and written together, so that a slow client slows
nobody and costs one line's memory each. An error before the first line is an answer with its own status; afterwards the
status has been sent and the error is the last line. When the client leaves, the work is cancelled: what it was fetching
is of use to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from aiohttp import web

from havre.api.call import Call
from havre.builds.running import RunFailed
from havre.errors import HavreError
from havre.images.progress import Progress, ProgressLine
from havre.wire.progress import render_error, render_line, render_status, render_stream

Work: TypeAlias = Callable[[Progress], Coroutine[Any, Any, Any]]


async def stream_progress(
    call: Call, work: Work, *, at_once: bool = False, errors_in_stream: bool = False
) -> web.StreamResponse:
    """Run `work(progress)` and stream its lines; `at_once` sends the head before anything is known (push).

    With `errors_in_stream` the head comes with the first line, and is 200 whatever that is (load).
    """
    lines: list[bytes] = []
    ready = asyncio.Event()

    def progress(line: ProgressLine) -> None:
        lines.append(_render(line))
        ready.set()

    task = asyncio.ensure_future(work(progress))
    task.add_done_callback(lambda _: ready.set())
    try:
        response = await call.stream() if at_once else None
        while not task.done() or lines:
            await ready.wait()
            ready.clear()
            if lines:
                batch = b"".join(lines)
                lines.clear()
                response = response or await call.stream()
                await response.write(batch)
            elif task.done():
                break
        if errors_in_stream:
            response = response or await call.stream()
        await _finish(task, response)
        return response or await call.stream()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _finish(task: asyncio.Future[Any], response: web.StreamResponse | None) -> None:
    try:
        await task
    except HavreError as error:
        if response is None:
            raise
        code = error.code if isinstance(error, RunFailed) else 0
        await response.write(render_error(error.message, code, error.hint or ""))


def _render(line: ProgressLine) -> bytes:
    if line.aux is not None:
        kind: dict[str, object] = {"id": line.id} if line.id else {"progressDetail": {}}
        return render_line(kind | {"aux": line.aux})
    if line.stream:
        return render_stream(line.stream)
    if line.message:
        return render_line({"status": line.status} | ({"id": line.id} if line.id else {}))
    return render_status(line.status, line.id, line.current, line.total)
