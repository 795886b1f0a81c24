"""A blob on its way here, as those see it who asked for it: its bytes go on as they come.

    upstream --> [ upload's file grows ] --whole, verified--> blob
                       |  |  |  read behind it
                 client client client        the last byte waits for the verdict

A client never gets all of a blob that turns out to be another: its answer ends one byte short.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

from havre.aio import in_thread
from havre.distribution.repositories import Repositories
from havre.distribution.uploads import Upload
from havre.errors import Failed
from havre.oci.manifest import Descriptor

_PIECE = 1 << 18
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Fetch:
    """One download; everybody who wants the blob follows the same."""

    upload: Upload
    task: asyncio.Task[None]


class Incoming:
    """The blob that `fetch` brings, for the repository `name`."""

    def __init__(self, repositories: Repositories, name: str, descriptor: Descriptor, fetch: Fetch) -> None:
        self._repositories = repositories
        self._name = name
        self._descriptor = descriptor
        self._fetch = fetch

    async def whole(self) -> None:
        """Wait until the repository holds the blob; raises what the download failed with."""
        await asyncio.shield(self._fetch.task)
        async with self._repositories.turns.writing():
            self._repositories.link_blob(self._name, self._descriptor.digest)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes, as they come; raises what the download failed with."""
        position, before_last = 0, self._descriptor.size - 1
        file = await self._open()
        try:
            while position < before_last:
                over = self._fetch.task.done()
                piece = await in_thread(os.pread, file, min(_PIECE, before_last - position), position)
                if piece:
                    position += len(piece)
                    yield piece
                elif over:
                    await self.whole()
                    raise Failed(f"blob {self._descriptor.digest} is shorter than announced")
                else:
                    await asyncio.wait({self._fetch.task}, timeout=_PAUSE_S)
            await self.whole()
            yield await in_thread(os.pread, file, _PIECE, position)
        finally:
            os.close(file)

    async def _open(self) -> int:
        """The upload's file, which stays the same one when it becomes a blob; or that blob."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            return os.open(self._fetch.upload.file, flags)
        await self.whole()
        return os.open(self._repositories.blobs.path(self._descriptor.digest), flags)
