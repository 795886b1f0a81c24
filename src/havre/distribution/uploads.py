"""Uploads under way: bytes appended in order to a file, hashed as they come, and made a blob at the end.

    POST -> [open] --PATCH, in order--> [open] --PUT, digest holds--> blob
                 \\--DELETE, a lie, an hour of silence--> gone

Uploads are known to this process alone; a restart forgets them, and clients begin again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from havre.aio import in_thread
from havre.distribution.repositories import RegistryRefusal, Repositories
from havre.oci.digest import Digest, algorithm_of, hex_of

MAX_BLOB = 1 << 40
_SILENCE_S = 3600.0
_GATHER = 1 << 20


@dataclass(slots=True)
class Upload:
    """One upload; `size` bytes have come."""

    id: str
    name: str
    file: Path
    size: int = 0
    touched_at: float = field(default_factory=time.monotonic)
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploads:
    """All uploads into `repositories`."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._open: dict[str, Upload] = {}

    def begin(self, name: str) -> Upload:
        """A new upload; those that nobody went on with are given up."""
        for upload in list(self._open.values()):
            if time.monotonic() - upload.touched_at > _SILENCE_S:
                self.cancel(upload)
        id = secrets.token_hex(16)
        upload = self._open[id] = Upload(id, name, self._repositories.uploads / id)
        return upload

    def find(self, name: str, id: str) -> Upload:
        """An upload that is under way in this repository."""
        upload = self._open.get(id)
        if upload is None or upload.name != name:
            raise RegistryRefusal(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return upload

    def cancel(self, upload: Upload) -> None:
        """Give an upload up."""
        self._open.pop(upload.id, None)
        upload.file.unlink(missing_ok=True)

    async def append(self, upload: Upload, chunks: AsyncIterator[bytes], start: int | None) -> None:
        """Add what comes; `start` is where its sender believes that it belongs. Breaks keep what has come."""
        async with upload.lock:
            if start is not None and start != upload.size:
                raise RegistryRefusal(416, "BLOB_UPLOAD_INVALID", f"chunk begins at {start}, not at {upload.size}")
            gathered: list[bytes] = []
            try:
                async for chunk in chunks:
                    gathered.append(chunk)
                    if sum(map(len, gathered)) >= _GATHER:
                        await self._store(upload, gathered)
                        gathered = []
            finally:
                await self._store(upload, gathered)

    async def finish(self, upload: Upload, digest: Digest) -> None:
        """Make the upload a blob of its repository if it is what it should be; otherwise it is gone."""
        async with upload.lock:
            if await self._hash(upload, algorithm_of(digest)) != hex_of(digest):
                self.cancel(upload)
                raise RegistryRefusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            async with self._repositories.turns.writing():
                await in_thread(self._keep, upload, digest)

    async def _hash(self, upload: Upload, algorithm: str) -> str:
        """What has come, hashed; by another algorithm than the usual one, which is known only now, from the file."""
        if algorithm == upload.hash.name:
            return upload.hash.hexdigest()
        return await in_thread(_hash_file, upload.file, algorithm)

    async def _store(self, upload: Upload, gathered: list[bytes]) -> None:
        data = b"".join(gathered)
        upload.size += len(data)
        upload.touched_at = time.monotonic()
        if upload.size > MAX_BLOB:
            self.cancel(upload)
            raise RegistryRefusal(413, "SIZE_INVALID", f"blobs of more than {MAX_BLOB} bytes are not taken")
        await in_thread(_append, upload, data)

    def _keep(self, upload: Upload, digest: Digest) -> None:
        upload.file.touch()
        self._repositories.blobs.adopt(upload.file, digest)
        self._repositories.link_blob(upload.name, digest)
        self._open.pop(upload.id, None)


def _hash_file(path: Path, algorithm: str) -> str:
    path.touch()  # nothing may have come
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _append(upload: Upload, data: bytes) -> None:
    upload.hash.update(data)
    with open(upload.file, "ab", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[os.write(file.fileno(), view) :]
