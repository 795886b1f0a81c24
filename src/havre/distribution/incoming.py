"""A blob being fetched from upstream, streamed to every client waiting for it.

    upstream --> [ upload's file grows ] --complete, verified--> blob
                      |  |  |  read behind the writer
                   client client client        the last byte waits for verification

If verification fails, each client's response ends one byte short, so that no client gets a complete wrong blob.
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
    """One download, shared by all clients that want the blob."""

    upload: Upload
    task: asyncio.Task[None]


class Incoming:
    """The blob downloaded by `fetch` into the repository `name`."""

    def __init__(self, repositories: Repositories, name: str, descriptor: Descriptor, fetch: Fetch) -> None:
        self._repositories = repositories
        self._name = name
        self._descriptor = descriptor
        self._fetch = fetch

    async def whole(self) -> None:
        """Wait until the repository has the blob. Raises the download's error."""
        await asyncio.shield(self._fetch.task)
        async with self._repositories.turns.writing():
            self._repositories.link_blob(self._name, self._descriptor.digest)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes as they arrive. Raises the download's error."""
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
        """Open the upload's file, which is the same inode once it is a blob; or that blob."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            return os.open(self._fetch.upload.file, flags)
        await self.whole()
        return os.open(self._repositories.blobs.path(self._descriptor.digest), flags)
