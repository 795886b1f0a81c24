"""Sends a build's files to the client, as a directory or as one tar.

    daemon                              client
    STAT a, STAT b, ... STAT (empty)  -->         (the protocol of `filesync` with reversed roles)
                                      <--  REQ 1
    DATA 1, DATA 1 (empty)            -->
                                     <--  FIN
    FIN                               -->

Source: as `filesync`; moby/buildkit exporter/local, exporter/tar.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing
from itertools import islice
from typing import Any

from grpclib.client import Stream

from havre.aio import to_its_end
from havre.api.buildkit.filesync import DATA, FIN, REQ, STAT, render_stat
from havre.api.buildkit.sessionmessages import BytesMessage, Packet
from havre.api.buildkit.sessions import Session
from havre.api.buildkit.shown import Moved
from havre.builds.outputs import OutputFile, OutputTree
from havre.errors import Failed, InvalidInput

METHOD = "/moby.filesync.v1.FileSend/DiffCopy"
_STATS_AT_ONCE = 256


async def send_tar(session: Session, pieces: AsyncGenerator[bytes, None], moved: Moved) -> None:
    """Send a file; `moved` gets the size of each piece."""
    async with session.converse(METHOD, [], BytesMessage, BytesMessage) as stream, aclosing(pieces):
        await stream.send_request()
        async for piece in pieces:
            await stream.send_message(BytesMessage(piece))
            moved(len(piece))
        await stream.end()
        while await stream.recv_message() is not None:
            pass


async def send_tree(session: Session, tree: OutputTree, moved: Moved) -> None:
    """Serve the client's copy of the tree; `moved` gets the size of each piece."""
    async with session.converse(METHOD, [], Packet, Packet) as stream:
        await stream.send_request()
        files: dict[int, str] = {}
        listing = asyncio.ensure_future(_send_list(stream, tree, files))
        try:
            while True:
                packet = await stream.recv_message()
                if packet is None:
                    raise Failed("the client ended the transfer of files too early")
                if packet.type == REQ:
                    await _send_file(stream, tree, packet.id, files, moved)
                elif packet.type == FIN:
                    break
                else:
                    raise Failed(f"error from receiver: {packet.data.decode(errors='replace')}")
            await listing
            await stream.send_message(Packet(type=FIN), end=True)
            while await stream.recv_message() is not None:
                pass
        finally:
            listing.cancel()
            await asyncio.gather(listing, return_exceptions=True)


async def _send_list(stream: Stream[Any, Packet], tree: OutputTree, files: dict[int, str]) -> None:
    """Send the list of files; adds to `files` the paths whose content may be requested, by position."""
    place = 0
    with closing(tree.files()) as listed:
        while batch := await _next(listed):
            for file in batch:
                if stat.S_ISREG(file.status.st_mode):
                    files[place] = file.path
                await stream.send_message(Packet(type=STAT, stat=render_stat(file.path, file.status, file.link)))
                place += 1
    await stream.send_message(Packet(type=STAT))


async def _next(listed: Iterator[OutputFile]) -> list[OutputFile]:
    return await to_its_end(lambda: list(islice(listed, _STATS_AT_ONCE)))


async def _send_file(
    stream: Stream[Any, Packet], tree: OutputTree, id: int, files: dict[int, str], moved: Moved
) -> None:
    if id not in files:
        raise InvalidInput(f"invalid file id {id}")
    async for piece in tree.read(files.pop(id)):
        await stream.send_message(Packet(type=DATA, id=id, data=piece))
        moved(len(piece))
    await stream.send_message(Packet(type=DATA, id=id))
