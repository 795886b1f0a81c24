"""Clients attached to a container, before it starts or while it runs.

docker's CLI attaches before it starts a container, so an attachment may wait for the process. The lifecycle binds all
waiting attachments after it creates the process and before it starts it, so that no output is lost.

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
    """The streams; whether past output comes first (`logs`), and whether new output follows (`stream`)."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    stream: bool = True
    logs: bool = False


class Attachment:
    """One client: iterate over `output` for (stream, data) with stream 1 or 2; write to the container's input.

    `output` ends after the container's end has been recorded, so a client that inspects it next sees the end. Call
    `close` when the client disconnects; it calls `left`.
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
        """No process will be bound, or it has ended. Idempotent."""
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
        """The container's output, from the time of attachment."""
        return self._output()

    async def write_stdin(self, data: bytes) -> None:
        """Write input; waits for the start. Input after the container's end is dropped, as in Docker."""
        await self._bound.wait()
        if self._process is not None and self._options.stdin:
            await self._process.write_stdin(data)

    async def close_stdin(self) -> None:
        """End of the client's input; passed on to the container if it was created with `StdinOnce`."""
        await self._bound.wait()
        if self._process is not None and self._options.stdin and self._stdin_once and not self.tty:
            await self._process.close_stdin()

    def close(self) -> None:
        """The client has disconnected. Idempotent."""
        self.end()
        self.left(self)
        if self._subscription is not None:
            self._subscription.close()
