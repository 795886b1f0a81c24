"""Blob uploads: in one request, in chunks, or mounted from another repository of the registry.

    POST  blobs/uploads/[?mount=D&from=R]   201: mounted          202: Location of the upload
    PATCH Location  Content-Range: 0-8388607                      202: the next Location       (once per chunk)
    PUT   Location?digest=D                 201: done

The pieces of a chunk are sent unjoined, so that a chunk is in memory only once.

After a broken PATCH, the upload's progress is queried and the upload continues there; an abandoned upload is deleted. A
Location at another origin is used without the user's credentials (see `transport`).

Source: OCI distribution specification 1.1, "Pushing blobs".
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence

import aiohttp
from yarl import URL

from havre.aio import in_thread
from havre.errors import Failed, HavreError
from havre.oci.digest import Digest
from havre.registry.endpoints import parse_url
from havre.registry.transport import RegistryError, Target, Transport, as_asked, in_words

log = logging.getLogger(__name__)

CHUNK = 5 << 20  # minimum size that some registries accept for all but the last (ECR: "layer part size")
_RESUMES = 3
_ABANDON_S = 5
_BINARY = "application/octet-stream"


class Uploads:
    """Uploads through one transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def mount(self, target: Target, repository: str, digest: Digest, source: str) -> bool:
        """Mount the blob from the repository `source`; False if the registry wants an upload instead."""
        query = URL.build(query={"mount": digest, "from": source}).raw_query_string
        try:
            async with self._transport.open(
                "POST", target, f"{repository}/blobs/uploads/?{query}", data=b"", ok=(201, 202)
            ) as response:
                if response.status == 201:
                    return True
                location = _location(response)
        except RegistryError as error:
            log.info("mounting %s from %s: %s", digest, source, error)
            return False
        await self._abandon(target, location)
        return False

    async def whole(self, target: Target, repository: str, digest: Digest, body: bytes) -> None:
        """Upload a blob in one PUT."""
        with in_words():
            await self._finish(target, await self._begin(target, repository), digest, body)

    async def stream(self, target: Target, repository: str, chunks: AsyncIterator[bytes]) -> tuple[Digest, int]:
        """Upload a blob of unknown length in chunks of `CHUNK` bytes; returns digest and size.

        Two chunks are in memory: one is being sent while the next is gathered.
        """
        hasher, sent, pieces, gathered = hashlib.sha256(), 0, list[bytes](), 0
        location: URL | None = None
        sending: asyncio.Future[URL] | None = None
        try:
            location = await self._begin(target, repository)
            async for chunk in chunks:
                await in_thread(hasher.update, chunk)
                pieces.append(chunk)
                gathered += len(chunk)
                if gathered >= CHUNK:
                    location = await sending if sending is not None else location
                    sending = asyncio.ensure_future(self._chunk(target, location, pieces, sent))
                    sent, pieces, gathered = sent + gathered, [], 0
            location = await sending if sending is not None else location
            if gathered:
                location = await self._chunk(target, location, pieces, sent)
            digest = Digest("sha256:" + hasher.hexdigest())
            await self._finish(target, location, digest, b"")
            return digest, sent + gathered
        except BaseException as error:
            if sending is not None:
                sending.cancel()
                await asyncio.wait([sending])
            if location is not None:
                await self._abandon(target, location)
            if isinstance(error, RegistryError):
                raise as_asked(error, "") from error
            raise

    async def _begin(self, target: Target, repository: str) -> URL:
        async with self._transport.open(
            "POST", target, f"{repository}/blobs/uploads/", data=b"", ok=(202,)
        ) as response:
            return _location(response)

    async def _chunk(self, target: Target, location: URL, pieces: Sequence[bytes], offset: int) -> URL:
        """Send one chunk; after a broken connection, send the rest."""
        done, size = 0, sum(map(len, pieces))
        for resumed in range(_RESUMES + 1):
            headers = {"Content-Type": _BINARY, "Content-Range": f"{offset + done}-{offset + size - 1}"}
            try:
                async with self._transport.open(
                    "PATCH", target, location, headers=headers, data=_behind(pieces, done), ok=(202, 204)
                ) as response:
                    return _location(response)
            except Failed:
                if resumed == _RESUMES:
                    raise
                location, received = await self._progress(target, location)
                done = received - offset
                if not 0 <= done <= size:
                    raise
                if done == size:
                    return location
        raise AssertionError("unreachable")

    async def _progress(self, target: Target, location: URL) -> tuple[URL, int]:
        """The number of bytes of an upload that have arrived."""
        async with self._transport.open("GET", target, location, ok=(204,)) as response:
            last = response.headers.get("Range", "").rpartition("-")[2]
            return _location(response), int(last) + 1 if last.isdecimal() and last != "0" else 0

    async def _finish(self, target: Target, location: URL, digest: Digest, body: bytes) -> None:
        headers = {"Content-Type": _BINARY}
        async with self._transport.open(
            "PUT", target, location.update_query(digest=digest), headers=headers, data=body, ok=(201, 204)
        ):
            return

    async def _abandon(self, target: Target, location: URL) -> None:
        """Delete an upload, with a short timeout: the caller may be cancelled. Best effort."""
        try:
            async with asyncio.timeout(_ABANDON_S):
                async with self._transport.open("DELETE", target, location, ok=(202, 204, 404)):
                    return
        except (HavreError, TimeoutError) as error:
            log.info("upload %s is left to the registry to clean up: %s", location.path, error)


def _behind(pieces: Sequence[bytes], skip: int) -> list[bytes]:
    """`pieces` without their first `skip` bytes."""
    left = []
    for piece in pieces:
        if skip < len(piece):
            left.append(piece[skip:])
        skip = max(skip - len(piece), 0)
    return left


def _location(response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location")
    if location is None:
        raise Failed("registry accepts an upload but does not say where")
    return response.url.join(parse_url(location, encoded=True))
