"""The content store: blobs by digest.

    blobs/sha256/HEX      a complete, verified blob; immutable
    blobs/sha512/HEX      a blob stored under a sha512 digest (by havre's registry only)
    blobs/tmp/RANDOM      a blob being written; removed at start

A blob is written to a temporary name, fsynced and renamed, so it exists completely or not at all. Reading verifies the
digest. The content (manifests, configurations, compressed layers) is opaque here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from havre.aio import in_thread
from havre.errors import Failed, NotFound
from havre.linux.room import hint_when_full
from havre.linux.trees import sync_directory
from havre.oci.digest import SHA256, SHA512, Digest, algorithm_of, digest_named, digest_of, hex_of, parse_any_digest

_BUFFER_BYTES = 1 << 20


class Blobs:
    """The blobs under `root` (data_root/blobs). `scratch` holds files being written and is emptied at start."""

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
        """The path of the blob of `digest`, which may not exist."""
        return self._root / algorithm_of(parse_any_digest(digest)) / hex_of(digest)

    def has(self, digest: Digest) -> bool:
        """Report whether the blob is in the store."""
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Bytes of the blob; 0 if it is not in the store."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def all(self) -> list[Digest]:
        """The digests of all blobs in the store."""
        other = self._root / SHA512
        return sorted(map(digest_named, [*os.listdir(self._blobs), *(os.listdir(other) if other.exists() else ())]))

    async def add(self, data: bytes, algorithm: str = SHA256) -> Digest:
        """Store `data` and return its digest. Idempotent."""
        digest = digest_of(data, algorithm)
        if not self.has(digest):
            await in_thread(self._write, digest, data)
        return digest

    def adopt(self, path: Path, digest: Digest) -> None:
        """Move a complete file of the same file system into the store. The caller has verified `digest`. Blocking."""
        with self._disk_errors():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self._place(path, digest)

    async def read(self, digest: Digest) -> bytes:
        """The verified bytes of a blob. `NotFound`, or `Failed` when they no longer match the digest."""
        try:
            data = await in_thread(self.path(digest).read_bytes)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in the store") from None
        if digest_of(data, algorithm_of(digest)) != digest:
            raise Failed(f"blob {digest} is damaged on disk", "remove its image and pull it again")
        return data

    async def remove(self, digest: Digest) -> int:
        """Remove the blob and return the bytes freed; 0 when there is none."""
        return await in_thread(self._remove, self.path(digest))

    def _write(self, digest: Digest, data: bytes) -> None:
        with self._temporary() as file:
            with self._disk_errors():
                file.write(data)
            self._keep(file, digest)

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
        """A temporary file, removed afterwards unless it was renamed."""
        with self._disk_errors():
            descriptor, name = tempfile.mkstemp(dir=self.scratch)
            os.close(descriptor)
        file = open(name, "r+b", buffering=_BUFFER_BYTES)  # noqa: SIM115 - closed below, its last flush may fail
        try:
            yield file
        finally:
            Path(name).unlink(missing_ok=True)
            with suppress(OSError):  # `_keep` has reported flush errors; otherwise the file is discarded
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
