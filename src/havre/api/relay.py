"""Relays between a hijacked connection and a process, with back-pressure in both directions.

                    framed or raw                       iterate
    Connection <---------------- deliver_output <--------------- Stdio.output
         |                                                            ^
         '------> feed_input --- detach keys? --- write_stdin --------'
                     '-- b"" (half-close) ----- close_stdin

The relay ends with the output, when the user detaches, or (cancelled) when the client disconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from havre.api.hijack import Connection
from havre.wire.detach import DetachScanner
from havre.wire.frames import render_header


class Stdio(Protocol):
    """The common interface of an attachment and a running exec."""

    @property
    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, data), stream 1 or 2, until the process ends."""

    async def write_stdin(self, data: bytes) -> None:
        """Write to stdin, waiting while the process does not read."""

    async def close_stdin(self) -> None:
        """Close stdin."""

    def close(self) -> None:
        """Close the attachment; the process continues."""


async def relay(
    connection: Connection, stdio: Stdio, *, framed: bool, stdin: bool, detach_keys: bytes | None = None
) -> bool:
    """Relay both directions until the end; `detach_keys` (terminals only) are recognized in the input.

    Returns True if the user detached.
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
    """Send all output to the client. Returns True: the relay is over."""
    async for stream, data in output:
        if framed:
            await connection.write(render_header(stream, len(data)), data)
        else:
            await connection.write(data)
    return True


async def feed_input(connection: Connection, stdio: Stdio, scanner: DetachScanner | None) -> bool:
    """Relay input until the client's half-close. Returns True if the user detached."""
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
