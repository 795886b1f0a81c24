"""Unfinished uploads: bytes appended in order to a file, hashed as they arrive, and stored as a blob at the end.

    POST -> [open] --PATCH, in order--> [open] --PUT, digest matches--> blob
               \\--DELETE, wrong digest, an hour idle--> removed

Uploads exist in this process only; a restart forgets them, and clients start over.
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
    """One upload, of which `size` bytes have arrived."""

    id: str
    name: str
    file: Path
    size: int = 0
    touched_at: float = field(default_factory=time.monotonic)
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploads:
    """The unfinished uploads into `repositories`."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._open: dict[str, Upload] = {}

    def begin(self, name: str) -> Upload:
        """Begin an upload; removes idle ones."""
        for upload in list(self._open.values()):
            if time.monotonic() - upload.touched_at > _SILENCE_S:
                self.cancel(upload)
        id = secrets.token_hex(16)
        upload = self._open[id] = Upload(id, name, self._repositories.uploads / id)
        return upload

    def find(self, name: str, id: str) -> Upload:
        """The unfinished upload of this repository, or BLOB_UPLOAD_UNKNOWN."""
        upload = self._open.get(id)
        if upload is None or upload.name != name:
            raise RegistryRefusal(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return upload

    def cancel(self, upload: Upload) -> None:
        """Remove an upload."""
        self._open.pop(upload.id, None)
        upload.file.unlink(missing_ok=True)

    async def append(self, upload: Upload, chunks: AsyncIterator[bytes], start: int | None) -> None:
        """Append `chunks`; `start` is the offset that the client expects. Bytes received before a broken connection
        stay."""
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
        """Store the upload as a blob of its repository if the digest matches; otherwise remove it."""
        async with upload.lock:
            if await self._hash(upload, algorithm_of(digest)) != hex_of(digest):
                self.cancel(upload)
                raise RegistryRefusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            async with self._repositories.turns.writing():
                await in_thread(self._keep, upload, digest)

    async def _hash(self, upload: Upload, algorithm: str) -> str:
        """The hash of the upload; computed from the file for an algorithm other than the default, only known now."""
        if algorithm == upload.hash.name:
            return upload.hash.hexdigest()
        return await in_thread(_hash_file, upload.file, algorithm)

    async def _store(self, upload: Upload, gathered: list[bytes]) -> None:
        data = b"".join(gathered)
        upload.size += len(data)
        upload.touched_at = time.monotonic()
        if upload.size > MAX_BLOB:
            self.cancel(upload)
            raise RegistryRefusal(413, "SIZE_INVALID", f"blobs of more than {MAX_BLOB} bytes are not accepted")
        await in_thread(_append, upload, data)

    def _keep(self, upload: Upload, digest: Digest) -> None:
        upload.file.touch()
        self._repositories.blobs.adopt(upload.file, digest)
        self._repositories.link_blob(upload.name, digest)
        self._open.pop(upload.id, None)


def _hash_file(path: Path, algorithm: str) -> str:
    path.touch()  # the file is missing if no bytes have arrived
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _append(upload: Upload, data: bytes) -> None:
    upload.hash.update(data)
    with open(upload.file, "ab", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[os.write(file.fileno(), view) :]
