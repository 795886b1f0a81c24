"""Between a taken connection and a process: output one way, input the other, each waiting for the slower side.

                 framed or raw                       iterate
    Connection <---------------- deliver_output <--------------- Stdio.output
        |                                                            ^
        '------> feed_input --- detach keys? --- write_stdin --------'
                      '-- b"" (half-close) ----- close_stdin

The relay ends when the output does, when the user detaches, or (cancelled) when the client leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from havre.api.hijack import Connection
from havre.wire.detach import DetachScanner
from havre.wire.frames import render_header


class Stdio(Protocol):
    """What an attachment and a running exec have in common."""

    @property
    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, data), stream 1 or 2, until the process ends."""

    async def write_stdin(self, data: bytes) -> None:
        """Send input, waiting while the process does not read."""

    async def close_stdin(self) -> None:
        """There is no more input."""

    def close(self) -> None:
        """Leave; the process goes on."""


async def relay(
    connection: Connection, stdio: Stdio, *, framed: bool, stdin: bool, detach_keys: bytes | None = None
) -> bool:
    """Carry both directions until the end; `detach_keys` (of terminals alone) are looked for in the input.

    True when it ended because the user detached.
    """
    output = asyncio.ensure_future(deliver_output(connection, stdio.output, framed=framed))
    scanner = DetachScanner(detach_keys) if detach_keys else None
    tasks: set[asyncio.Future[bool]] = {output}
    if stdin:
        tasks.add(asyncio.ensure_future(feed_input(connection, stdio, scanner)))
    try:
        while not output.done():
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            tasks -= done
            if any(task.result() for task in done):
                return not output.done()
        return False
    finally:
        stdio.close()
        for task in (output, *tasks):
            task.cancel()
        await asyncio.gather(output, *tasks, return_exceptions=True)


async def deliver_output(connection: Connection, output: AsyncIterator[tuple[int, bytes]], *, framed: bool) -> bool:
    """Send all output to the client; True, for this is the end of the relay."""
    async for stream, data in output:
        if framed:
            await connection.write(render_header(stream, len(data)), data)
        else:
            await connection.write(data)
    return True


async def feed_input(connection: Connection, stdio: Stdio, scanner: DetachScanner | None) -> bool:
    """Pass input on until the client's half-close; True if the user detached."""
    while data := await connection.read():
        detached = False
        if scanner is not None:
            data, detached = scanner.feed(data)
        if data:
            await stdio.write_stdin(data)
        if detached:
            return True
    await stdio.close_stdin()
    return False
