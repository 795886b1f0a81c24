"""A build context of the classic client: a tar in a request's body, or fetched by HTTP or git.

    tar --> a packed tree --> minus what .dockerignore excludes --> the Dockerfile, and the steps' sources

The classic client has no secrets and no named contexts.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from havre.aio import ahead, in_thread, to_its_end
from havre.builds import fetching
from havre.builds.contexts import read_file
from havre.builds.copying import Chosen, is_archive
from havre.builds.gitsource import Lender, clone, git_access, parse_git_address, shown_address
from havre.builds.intake import TarIntake
from havre.builds.packed import PackedTree
from havre.builds.request import DEFAULT_NAME, MAIN_CONTEXT, DockerfileBytes, Origin
from havre.builds.trees import DirectoryTree
from havre.dockerfile.ignore import IgnoreRules
from havre.dockerfile.syntax import MAX_BYTES
from havre.errors import InvalidInput, NotFound, Unsupported
from havre.linux import trees
from havre.oci.digest import Digest
from havre.registry import Auth

_MAX_IGNORE = 1 << 20
_PIECE = 1 << 20
_FETCHED = ".remote-context"


class SshAgents(Protocol):
    """SSH agents that a client forwards."""

    async def ssh(self, id: str) -> Path | None: ...


class UploadedContext:
    """The ContextSource of one classic build; must be closed. `directory` is empty. `credentials` are by registry.

    `agents` is set by APIs that forward SSH agents. `is_dockerfile` is set if the fetched file is a Dockerfile alone,
    whatever name the client requests.
    """

    def __init__(self, directory: Path, credentials: Mapping[str, Auth]) -> None:
        self._directory = directory
        self._tree: PackedTree | None = None
        self._credentials = credentials
        self.agents: SshAgents | None = None
        self.origin: Origin | None = None
        self.is_dockerfile = False

    @property
    def files(self) -> Path | PackedTree:
        """The files received."""
        return self._directory if self._tree is None else self._tree

    async def receive(self, chunks: AsyncIterator[bytes]) -> None:
        """Receive the tar, compressed or not. Raises `InvalidInput`."""
        intake = self._intake()
        async with aclosing(ahead(gathered(chunks))) as pieces:
            async for piece in pieces:
                await to_its_end(intake.write, piece)
        await to_its_end(intake.seal)

    def _intake(self) -> TarIntake:
        self._tree = PackedTree(self._directory)
        return TarIntake(self._tree)

    def close(self) -> None:
        """Release the disk space. Idempotent."""
        if self._tree is not None:
            self._tree.close()

    async def fetch(
        self,
        url: str,
        lender: Lender | None = None,
        *,
        keep_git: bool = False,
        checksum: str = "",
        name: str = DEFAULT_NAME,
        unpack: bool = True,
    ) -> None:
        """Fetch the context from a URL: a git repository (with credentials of `lender`), a tar, or a single Dockerfile.

        `name` is the name of the single file; without `unpack`, a tar is stored as a file, too.
        """
        if (address := parse_git_address(url)) is not None:
            address = replace(address, checksum=checksum or address.checksum)
            access = await git_access(address, lender or self)
            self._directory, commit = await clone(address, self._directory, access, keep_git=keep_git)
            self.origin = Origin(shown_address(url), commit)
            return
        if not fetching.is_url(url):
            raise Unsupported(f"the remote context {url} is not supported", "expected git, http:// or https://")
        path = self._directory / _FETCHED
        download = await fetching.fetch(url, self._directory, _FETCHED, checksum)
        self.origin = Origin(shown_address(url), download.digest)
        fetched = Chosen(DirectoryTree(self._directory), _FETCHED, _FETCHED, url, False)
        if not (unpack and await in_thread(is_archive, fetched)):
            path.rename(self._directory / name)
            self.is_dockerfile = True
            return
        await to_its_end(_unpack, self._intake(), path)
        path.unlink()

    async def dockerfile(self, path: str) -> DockerfileBytes:
        """The Dockerfile at `path`, with its ignore file."""
        return await find_dockerfile(self.files, DEFAULT_NAME if self.is_dockerfile else path)

    async def directory(self, name: str, wanted: Sequence[str], ignored: Sequence[str]) -> Path | PackedTree:
        """The files without ignored ones."""
        if ignored and self._tree is not None:
            return await to_its_end(self._tree.without, IgnoreRules(ignored))
        if ignored:
            await to_its_end(remove_ignored, self._directory, IgnoreRules(ignored))
        return self.files

    async def secret(self, id: str) -> bytes | None:
        """None: the classic client has no secrets."""
        return None

    async def ssh(self, id: str) -> Path | None:
        """The socket of an SSH agent that the client forwards, or None."""
        return None if self.agents is None else await self.agents.ssh(id)

    def blob(self, store: str, digest: Digest) -> AsyncGenerator[bytes, None]:
        """Raises `NotFound`: the classic client has no cache directories."""
        raise NotFound(f"the client has no cache {store}")

    async def credentials(self, registry: str) -> Auth | None:
        """The credentials that the client sent for this registry."""
        return credentials_for(self._credentials, registry)

    def origins(self) -> Mapping[str, Origin]:
        """The origin of the main context, if it was fetched."""
        return {} if self.origin is None else {MAIN_CONTEXT: self.origin}


async def gathered(chunks: AsyncIterator[bytes], first: bytes = b"") -> AsyncGenerator[bytes, None]:
    """`first` and the chunks after it, joined to pieces large enough for a call in a thread; the last may be empty."""
    pieces, size = [first], len(first)
    async for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield b"".join(pieces)
            pieces, size = [], 0
    yield b"".join(pieces)


def dockerfile_places(path: str) -> tuple[str, str, str]:
    """Paths of the Dockerfile and of its possible ignore files in a context."""
    inside = posixpath.normpath("/" + path).lstrip("/")
    return inside, f"{inside}.dockerignore", ".dockerignore"


def dockerfile_names(path: str) -> Sequence[str]:
    """Possible paths of a Dockerfile: the default name may also be in lower case."""
    above, name = posixpath.split(path)
    return (path, posixpath.join(above, name.lower())) if name == DEFAULT_NAME else (path,)


async def read_dockerfile(files: Path | PackedTree, path: str) -> bytes:
    """The text of the Dockerfile at `path`, under any of its names. Raises `NotFound`."""
    for name in dockerfile_names(path):
        with suppress(NotFound):
            return await in_thread(read_file, files, name, MAX_BYTES)
    raise NotFound(f"no such Dockerfile: {path}")


async def find_dockerfile(files: Path | PackedTree, path: str) -> DockerfileBytes:
    """The Dockerfile at `path` of a context, with its ignore file. Raises `InvalidInput` if it is missing."""
    inside, *ignoring = dockerfile_places(path)
    try:
        data = await read_dockerfile(files, inside)
    except NotFound:
        raise InvalidInput(
            f"Cannot locate specified Dockerfile: {path}", "it is named relative to the context"
        ) from None
    for name in ignoring:
        try:
            return DockerfileBytes(inside, data, await in_thread(read_file, files, name, _MAX_IGNORE))
        except NotFound:
            continue
    return DockerfileBytes(inside, data)


def credentials_for(known: Mapping[str, Auth], registry: str) -> Auth | None:
    """The credentials of a registry among those that the client sent under any of its names."""
    names = (registry, f"https://{registry}", f"https://{registry}/v1/", f"https://index.{registry}/v1/")
    return next((known[name] for name in names if name in known), None)


def _unpack(intake: TarIntake, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_PIECE):
            intake.write(chunk)
    intake.seal()


def remove_ignored(directory: Path, rules: IgnoreRules) -> None:
    """Remove the files that the rules exclude. Blocking."""
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
