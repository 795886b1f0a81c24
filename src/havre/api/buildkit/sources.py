"""Files of a git repository or URL that a client reads beside its build: `LLBBridge.Solve` of a source.

    Solve(definition) --> a reference           nothing is fetched
    StatFile, ReadFile, Evaluate(reference)     fetched once, with the session's credentials; deleted with the job

Source: moby/buildkit frontend/gateway/pb/gateway.proto.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from havre.aio import in_thread, to_its_end
from havre.api.buildkit import messages as m
from havre.api.buildkit.filesync import render_entry
from havre.api.buildkit.llb import Source
from havre.builds.contexts import Contexts
from havre.builds.gitsource import Lender, shown_address
from havre.builds.packed import PackedTree
from havre.builds.progress import BuildProgress, shown
from havre.builds.request import DEFAULT_NAME
from havre.builds.trees import DirectoryTree, Tree
from havre.builds.uploads import UploadedContext
from havre.errors import InvalidInput, NotFound

MAX_BYTES = 8 << 20  # maximum size of a file read; a message may have twice as many


class SourceFiles:
    """One source, fetched at first use; its resources are added to `stack`."""

    def __init__(
        self, source: Source, lender: Lender, contexts: Contexts, stack: AsyncExitStack, progress: BuildProgress
    ) -> None:
        self._source = source
        self._lender = lender
        self._contexts = contexts
        self._stack = stack
        self._progress = progress
        self._lock = asyncio.Lock()
        self._tree: Tree | None = None

    async def tree(self) -> Tree:
        """The files, fetched if necessary."""
        async with self._lock:
            if self._tree is None:
                self._tree = await self._fetch()
            return self._tree

    async def _fetch(self) -> Tree:
        source = self._source
        directory = await self._stack.enter_async_context(self._contexts.borrow())
        uploaded = UploadedContext(directory, {})
        self._stack.callback(uploaded.close)
        with shown(f"[internal] load {shown_address(source.url)}", self._progress):
            await uploaded.fetch(
                source.url,
                self._lender,
                keep_git=source.keep_git,
                checksum=source.checksum,
                name=source.filename or DEFAULT_NAME,
                unpack=source.unpacked,
            )
        files = uploaded.files
        return files if isinstance(files, PackedTree) else DirectoryTree(files)

    async def stat(self, path: str) -> m.Stat:
        """The attributes of `path`; `NotFound` with Go's message, which clients match."""
        tree = await self.tree()
        return await in_thread(_stat, tree, path)

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """A file's bytes from `offset`, at most `length` (0: all); `InvalidInput` above the limit."""
        tree = await self.tree()
        return await to_its_end(_read, tree, path, offset, length)


def _stat(tree: Tree, path: str) -> m.Stat:
    name = path.strip("/")
    found = tree.locate(name or ".")
    if found is None:
        raise NotFound(f"stat {path}: no such file or directory")
    return render_entry(tree.item(found[0].strip("/.") and found[0]).entry)


def _read(tree: Tree, path: str, offset: int, length: int) -> bytes:
    found = tree.locate(path.strip("/") or ".")
    if found is None or found[1]:
        raise NotFound(f"open {path}: " + ("is a directory" if found else "no such file or directory"))
    if tree.item(found[0]).entry.kind != "file":
        raise InvalidInput(f"open {path}: not a regular file")
    at, gathered = 0, bytearray()
    for piece in tree.pieces(found[0]):
        gathered += piece[max(0, offset - at) :]
        at += len(piece)
        if length and len(gathered) >= length:
            break
        if len(gathered) > MAX_BYTES:
            raise InvalidInput(f"{path} is larger than {MAX_BYTES} bytes", "ask for a range of it")
    return bytes(gathered[:length] if length else gathered)
