"""Clients attached to a container, before it starts or while it runs.

docker's CLI attaches first and starts afterwards, so an attachment may wait for its process. The life cycle binds every
waiting attachment between the creation of the process and its start; the first byte is not missed.

    attach (stopped) --> pending --bind--> subscribed --exit--> ended
    attach (running) ------------------------^                    ^
                         pending --start failed or removed--------'
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from havre.logs import LogChunk
from havre.runtime import Process
from havre.runtime.fanout import Subscription


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """Which streams, whether past output comes first (`logs`) and whether new output follows (`stream`)."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    stream: bool = True
    logs: bool = False


class Attachment:
    """One client: iterate `output` for (stream, data) with stream 1 or 2; write to the container's input.

    `output` ends when the container's end has been recorded, so that who asks next sees it. Close it when the client
    leaves; `left` is then told.
    """

    def __init__(
        self, options: AttachOptions, *, tty: bool, stdin_once: bool, past: AsyncIterator[Sequence[LogChunk]] | None
    ) -> None:
        self.tty = tty
        self._options = options
        self._stdin_once = stdin_once
        self._past = past
        self._process: Process | None = None
        self._subscription: Subscription | None = None
        self._bound = asyncio.Event()
        self.closed = False
        self.left: Callable[[Attachment], None] = lambda attachment: None

    def bind(self, process: Process) -> None:
        """Subscribe to the process; called before it starts."""
        if self.closed:
            return
        self._process = process
        if self._options.stream and (self._options.stdout or self._options.stderr):
            self._subscription = process.output.subscribe(stdout=self._options.stdout, stderr=self._options.stderr)
        self._bound.set()

    def end(self) -> None:
        """There will be no process (any more); idempotent."""
        self.closed = True
        self._bound.set()

    async def _output(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._past is not None:
            async for lines in self._past:
                for line in lines:
                    yield line
        if not self._options.stream:
            return
        await self._bound.wait()
        if self._subscription is not None:
            async for chunk in self._subscription:
                yield chunk
        if self._process is not None:
            await self._process.recorded.wait()

    @property
    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """What the container writes, from where the client attached."""
        return self._output()

    async def write_stdin(self, data: bytes) -> None:
        """Send input; waits for a start. Input that comes after the end is dropped, as Docker's is."""
        await self._bound.wait()
        if self._process is not None and self._options.stdin:
            await self._process.write_stdin(data)

    async def close_stdin(self) -> None:
        """The client has no more input; the container sees the end of it if it was made with `StdinOnce`."""
        await self._bound.wait()
        if self._process is not None and self._options.stdin and self._stdin_once and not self.tty:
            await self._process.close_stdin()

    def close(self) -> None:
        """The client has left; idempotent."""
        self.end()
        self.left(self)
        if self._subscription is not None:
            self._subscription.close()
