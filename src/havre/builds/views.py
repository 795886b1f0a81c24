"""The trees that steps copy from and mount: the client's contexts, and the files of stages and images.

A context is asked of the client once in a build, for all that the Dockerfile can want of it. The files of layers are
shown by a snapshot of them, mounted once in a build for each set of layers, whoever asks.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack
from pathlib import Path

from havre.builds.progress import BuildProgress, Declared, Finished, Started, vertex_of_context
from havre.builds.request import MAIN_CONTEXT, BuildRequest, ContextSource
from havre.builds.trees import DirectoryTree, Tree
from havre.builds.wanted import Triggers, wanted_of
from havre.dockerfile.graph import Graph
from havre.dockerfile.ignore import read_ignore_file
from havre.errors import HavreError
from havre.linux.idmap import IdRange
from havre.oci.digest import Digest
from havre.storage import Snapshots


class BuildViews:
    """The trees of one build; what was mounted for them goes with `undo`."""

    def __init__(
        self,
        snapshots: Snapshots,
        request: BuildRequest,
        client: ContextSource,
        graph: Graph,
        triggers: Triggers,
        ignore: bytes | None,
        progress: BuildProgress,
        undo: AsyncExitStack,
    ) -> None:
        self._snapshots = snapshots
        self._request = request
        self._client = client
        self._graph = graph
        self._triggers = triggers
        self._ignored = read_ignore_file((ignore or b"").decode(errors="replace"))
        self._tell = progress
        self._undo = undo
        self._contexts: dict[str, Tree] = {}
        self._mounted: dict[tuple[tuple[Digest, ...], IdRange | None], Path] = {}
        self._trees: dict[tuple[Digest, ...], Tree] = {}
        self._lock = asyncio.Lock()

    def is_context(self, name: str) -> bool:
        """Whether a name stands for a directory of the client's; the empty one does."""
        return not name or name in self._request.local_contexts

    async def context(self, name: str) -> Tree:
        """The files of a context."""
        name = name or MAIN_CONTEXT
        async with self._lock:
            if name not in self._contexts:
                self._contexts[name] = await self._load(name)
            return self._contexts[name]

    async def _load(self, name: str) -> Tree:
        vertex = vertex_of_context(name)
        self._tell(Declared(vertex))
        self._tell(Started(vertex, time.time()))
        try:
            ignored = self._ignored if name == MAIN_CONTEXT else []
            wanted = await wanted_of(name, self._graph, self._request.local_contexts, self._triggers)
            found = await self._client.directory(name, wanted, ignored)
        except HavreError as error:
            self._tell(Finished(vertex, time.time(), error=str(error)))
            raise
        self._tell(Finished(vertex, time.time()))
        return DirectoryTree(found) if isinstance(found, Path) else found

    async def layers(self, layers: tuple[Digest, ...]) -> Tree:
        """The files of these layers: the same tree for all sources of a COPY, which tells hard links by it."""
        return self._trees.setdefault(layers, DirectoryTree(await self.mounted(layers), layers))

    async def mounted(self, layers: tuple[Digest, ...], ids: IdRange | None = None) -> Path:
        """Where the files of these layers are mounted, for `ids`; nothing that is written there is kept."""
        async with self._lock:
            if (layers, ids) not in self._mounted:
                id = secrets.token_hex(32)
                self._undo.push_async_callback(self._snapshots.remove, id)
                await self._snapshots.create(id, layers)
                self._mounted[layers, ids] = await self._snapshots.mount(id, ids)
            return self._mounted[layers, ids]
