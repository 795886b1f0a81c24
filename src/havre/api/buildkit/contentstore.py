"""A client's cache directory, over its session: an OCI layout behind containerd's content service.

    Read(digest)                                    --> pieces          --cache-from type=local
    Write(ref): STAT, WRITE, ..., COMMIT(digest)    --> offset each     --cache-to type=local

A write at offset 0 replaces what an interrupted build has left. The client maintains `index.json` itself: it reads
the manifest's digest from it, and writes the digest that it gets from the daemon.

Source: containerd api/services/content/v1/content.proto; moby/buildkit session/content, cache/remotecache/local.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from havre.api.buildkit.sessionmessages import ReadContent, ReadContentPiece, WriteContent, WrittenContent
from havre.api.buildkit.sessions import Session
from havre.errors import Conflict
from havre.oci.digest import Digest

_READ, _WRITE = "/containerd.services.content.v1.Content/Read", "/containerd.services.content.v1.Content/Write"
_STORE = "buildkit-attachable-store-id"
_STAT, _DATA, _COMMIT = 0, 1, 2  # actions of Write


async def read_blob(session: Session, store: str, digest: Digest) -> AsyncGenerator[bytes, None]:
    """The content of a blob in the client's `store`; `NotFound` if missing."""
    async with session.converse(_READ, [(_STORE, store)], ReadContent, ReadContentPiece) as stream:
        await stream.send_message(ReadContent(digest), end=True)
        async for piece in stream:
            yield piece.data


async def write_blob(session: Session, store: str, digest: Digest, size: int, pieces: AsyncIterator[bytes]) -> None:
    """Write a blob to the client's `store`, unless it exists."""
    told: dict[str, Any] = {"ref": f"havre-{digest}", "total": size, "expected": digest}
    try:
        async with session.converse(_WRITE, [(_STORE, store)], WriteContent, WrittenContent) as stream:
            await stream.send_message(WriteContent(action=_STAT, **told))
            await stream.recv_message()
            offset = 0
            async for piece in pieces:
                await stream.send_message(WriteContent(action=_DATA, offset=offset, data=piece, **told))
                await stream.recv_message()
                offset += len(piece)
            await stream.send_message(WriteContent(action=_COMMIT, offset=offset, **told), end=True)
            while await stream.recv_message() is not None:
                pass
    except Conflict:
        pass  # it exists
