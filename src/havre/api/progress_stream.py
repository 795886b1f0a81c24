"""Streams the progress of long operations on images, line by line.

The engine calls `progress` from its own task; pending lines are written together, so a slow client does not delay
the operation. An error before the first line is a response with its own status; later ones are the last line. When
the client disconnects, the operation is cancelled.
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
from havre.wire import versions
from havre.wire.progress import render_error, render_line, render_status, render_stream

Work: TypeAlias = Callable[[Progress], Coroutine[Any, Any, Any]]


async def stream_progress(
    call: Call, work: Work, *, at_once: bool = False, errors_in_stream: bool = False
) -> web.StreamResponse:
    """Run `work(progress)` and stream its lines; `at_once` sends the head immediately (push).

    With `errors_in_stream` the head is sent with the first line and has status 200 even for an error (load).
    """
    lines: list[bytes] = []
    ready = asyncio.Event()

    drawn = versions.progress_is_drawn(call.version)

    def progress(line: ProgressLine) -> None:
        lines.append(_render(line, drawn=drawn))
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


def _render(line: ProgressLine, *, drawn: bool) -> bytes:
    if line.aux is not None:
        kind: dict[str, object] = {"id": line.id} if line.id else {"progressDetail": {}}
        return render_line(kind | {"aux": line.aux})
    if line.stream:
        return render_stream(line.stream)
    if line.message:
        return render_line({"status": line.status} | ({"id": line.id} if line.id else {}))
    return render_status(line.status, line.id, line.current, line.total, drawn=drawn)
