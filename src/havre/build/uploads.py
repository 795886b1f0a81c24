"""A build context that came as a tar in a request's body, or by HTTP: the classic client's.

    tar --> a directory of ours --> what .dockerignore names is removed --> the Dockerfile, and the steps' sources

The classic client has no secrets, no agents and no named contexts to offer.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from havre.aio import in_thread
from havre.build import fetching
from havre.build.contexts import open_intake, read_file, to_its_end
from havre.build.copying import Chosen, is_archive
from havre.build.dockerfile import MAX_BYTES
from havre.build.request import DEFAULT_NAME, DockerfileBytes
from havre.errors import InvalidInput, NotFound, Unsupported
from havre.linux import trees
from havre.oci.ignore import IgnoreRules
from havre.registry import Auth
from havre.storage.extract import Extractor

_MAX_IGNORE = 1 << 20
_PIECE = 1 << 20


class UploadedContext:
    """The ContextSource of one classic build; `directory` is empty at first. `credentials` are by registry."""

    def __init__(self, directory: Path, credentials: Mapping[str, Auth]) -> None:
        self._directory = directory
        self._credentials = credentials

    async def receive(self, chunks: AsyncIterator[bytes]) -> None:
        """Unpack the tar, compressed or not; `InvalidInput` for what is none."""
        intake = open_intake(self._directory)
        gathered = bytearray()
        try:
            async for chunk in chunks:
                gathered += chunk
                if len(gathered) >= _PIECE:  # what is worth a hop to a thread
                    await to_its_end(partial(intake.write, bytes(gathered)))
                    gathered.clear()
            await to_its_end(partial(intake.write, bytes(gathered)))
            await to_its_end(intake.seal)
        finally:
            intake.close()

    async def fetch(self, url: str) -> None:
        """Take the context from a URL: a tar, or a Dockerfile alone."""
        if not fetching.is_url(url):
            raise Unsupported(f"the remote context {url} is not supported", "clone it and build the directory")
        name = ".remote-context"
        path = await fetching.fetch(url, self._directory, name, "")
        if not await in_thread(is_archive, Chosen(self._directory, name, name, url, False)):
            path.rename(self._directory / DEFAULT_NAME)
            return
        intake = open_intake(self._directory)
        try:
            await to_its_end(partial(_unpack, intake, path))
        finally:
            intake.close()
        path.unlink()

    async def dockerfile(self, path: str) -> DockerfileBytes:
        """The Dockerfile at `path`, with what is to be ignored."""
        inside = posixpath.normpath("/" + path).lstrip("/")
        try:
            data = await in_thread(read_file, self._directory, inside, MAX_BYTES)
        except NotFound:
            raise InvalidInput(
                f"Cannot locate specified Dockerfile: {path}", "it is named relative to the context"
            ) from None
        for name in (f"{inside}.dockerignore", ".dockerignore"):
            try:
                ignore = await in_thread(read_file, self._directory, name, _MAX_IGNORE)
            except NotFound:
                continue
            return DockerfileBytes(inside, data, ignore)
        return DockerfileBytes(inside, data)

    async def directory(self, name: str, wanted: Sequence[str], ignored: Sequence[str]) -> Path:
        """The directory, without what is ignored."""
        if ignored:
            await to_its_end(partial(remove_ignored, self._directory, IgnoreRules(ignored)))
        return self._directory

    async def secret(self, id: str) -> bytes | None:
        """The classic client has none."""
        return None

    async def ssh(self, id: str) -> Path | None:
        """The classic client forwards none."""
        return None

    async def credentials(self, registry: str) -> Auth | None:
        """What the client sent for this registry."""
        names = (registry, f"https://{registry}", f"https://{registry}/v1/", f"https://index.{registry}/v1/")
        return next((self._credentials[name] for name in names if name in self._credentials), None)


def _unpack(intake: Extractor, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_PIECE):
            intake.write(chunk)
    intake.seal()


def remove_ignored(directory: Path, rules: IgnoreRules) -> None:
    """Remove what the rules leave out. Blocking."""
    root = trees.open_directory(directory)
    try:
        for entry in trees.walk(root):
            if not rules.ignores(entry.path):
                continue
            if not entry.is_directory:
                os.unlink(entry.name, dir_fd=entry.parent)
            elif not rules.may_take_back(entry.path):
                child = trees.open_directory(entry.name, entry.parent)
                try:
                    trees.empty_directory(child)
                finally:
                    os.close(child)
                os.rmdir(entry.name, dir_fd=entry.parent)
    finally:
        os.close(root)
