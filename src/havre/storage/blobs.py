"""The content store: documents and odd blobs under their digest.

    blobs/sha256/HEX      a whole, verified blob; never changed after it appeared
    blobs/sha512/HEX      one that its owner names so (in our registry alone)
    blobs/tmp/RANDOM      one being written; swept at start

A blob is written to a temporary name, fsynced, renamed: it is there whole or not at all. Reading verifies. Owns nothing
of what the bytes mean (manifests, configurations; a layer's compressed blob where someone wants it kept).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from havre.aio import in_thread
from havre.errors import Failed, InvalidInput, NotFound
from havre.linux.room import hint_when_full
from havre.linux.trees import sync_directory
from havre.oci.digest import SHA256, SHA512, Digest, algorithm_of, digest_named, digest_of, hex_of, parse_any_digest

_BUFFER_BYTES = 1 << 20


class Blobs:
    """The blobs under `root` (data_root/blobs). `scratch` is for files that are being written; it is swept at start."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / SHA256
        self.scratch = root / "tmp"
        for directory in (root, self._blobs, self.scratch):
            if not directory.exists():
                directory.mkdir(mode=0o700)
                sync_directory(directory.parent)
        for leftover in self.scratch.iterdir():
            leftover.unlink()

    def path(self, digest: Digest) -> Path:
        """Where the blob of `digest` is, or would be."""
        return self._root / algorithm_of(parse_any_digest(digest)) / hex_of(digest)

    def has(self, digest: Digest) -> bool:
        """Whether the blob is in the store."""
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Bytes of the blob; 0 if it is not in the store."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def all(self) -> list[Digest]:
        """The digest of every blob in the store."""
        other = self._root / SHA512
        return sorted(map(digest_named, [*os.listdir(self._blobs), *(os.listdir(other) if other.exists() else ())]))

    async def add(self, data: bytes, algorithm: str = SHA256) -> Digest:
        """Store `data`; a blob that is there already is left as it is."""
        digest = digest_of(data, algorithm)
        if not self.has(digest):
            await in_thread(self._write, digest, data)
        return digest

    async def add_stream(self, chunks: AsyncIterable[bytes], expected: Digest | None, size: int | None) -> Digest:
        """Store what `chunks` yield; `InvalidInput`, and nothing stored, unless it has the expected digest and size."""
        hasher, total = hashlib.sha256(), 0
        with self._temporary() as file:
            async for chunk in chunks:
                total += len(chunk)
                if size is not None and total > size:
                    raise InvalidInput(f"blob is longer than the {size} bytes announced")
                await in_thread(self._append, file, hasher, chunk)
            digest = Digest("sha256:" + hasher.hexdigest())
            if size is not None and total != size:
                raise InvalidInput(f"blob has {total} bytes where {size} were announced", "the transfer was cut short")
            if expected is not None and digest != expected:
                raise InvalidInput(f"blob has digest {digest} where {expected} was expected")
            await in_thread(self._keep, file, digest)
        return digest

    def adopt(self, path: Path, digest: Digest) -> None:
        """Make a complete file of the same file system, whose digest the caller has verified, a blob. Blocking."""
        with self._disk_errors():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self._place(path, digest)

    async def read(self, digest: Digest) -> bytes:
        """The blob's bytes, verified; `NotFound`, or `Failed` when they are not what they were."""
        try:
            data = await in_thread(self.path(digest).read_bytes)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in the store") from None
        if digest_of(data, algorithm_of(digest)) != digest:
            raise Failed(f"blob {digest} is damaged on disk", "remove its image and pull it again")
        return data

    async def remove(self, digest: Digest) -> int:
        """Remove the blob and return the bytes freed; 0 when it is not there."""
        return await in_thread(self._remove, self.path(digest))

    def _write(self, digest: Digest, data: bytes) -> None:
        with self._temporary() as file:
            with self._disk_errors():
                file.write(data)
            self._keep(file, digest)

    def _append(self, file: IO[bytes], hasher: hashlib._Hash, chunk: bytes) -> None:
        hasher.update(chunk)
        with self._disk_errors():
            file.write(chunk)

    def _keep(self, file: IO[bytes], digest: Digest) -> None:
        """Make the temporary `file` the blob of `digest`, durably."""
        with self._disk_errors():
            file.flush()
            os.fsync(file.fileno())
            self._place(Path(file.name), digest)

    def _place(self, file: Path, digest: Digest) -> None:
        """Give a complete file its name, durably."""
        path = self.path(digest)
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._root)
        os.rename(file, path)
        sync_directory(path.parent)

    @contextmanager
    def _temporary(self) -> Iterator[IO[bytes]]:
        """A file to write to that is gone afterwards unless it was renamed."""
        with self._disk_errors():
            descriptor, name = tempfile.mkstemp(dir=self.scratch)
            os.close(descriptor)
        file = open(name, "r+b", buffering=_BUFFER_BYTES)  # noqa: SIM115 - closed below, its last flush may fail
        try:
            yield file
        finally:
            Path(name).unlink(missing_ok=True)
            with suppress(OSError):  # what could not be flushed was reported by `_keep`, or is not wanted any more
                file.close()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = hint_when_full(error, self._blobs.parent)
            raise Failed(f"writing a blob below {self._blobs.parent}: {error.strerror}", hint) from error

    @staticmethod
    def _remove(path: Path) -> int:
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size
