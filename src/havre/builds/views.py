"""The trees that steps copy from and mount: the client's contexts, and the files of stages and images.

A context is requested from the client once per build, with everything that the Dockerfile may read. Files of layers are
mounted as a snapshot, once per build for each set of layers.
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
    """The trees of one build; mounts are removed by `undo`."""

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
        """Report whether a name refers to a directory of the client; "" is the main context."""
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
        """The files of these layers. All sources of a COPY get the same tree, which identifies hard links."""
        return self._trees.setdefault(layers, DirectoryTree(await self.mounted(layers), layers))

    async def mounted(self, layers: tuple[Digest, ...], ids: IdRange | None = None) -> Path:
        """The mount of these layers, for `ids`; writes to it are discarded."""
        async with self._lock:
            if (layers, ids) not in self._mounted:
                id = secrets.token_hex(32)
                self._undo.push_async_callback(self._snapshots.remove, id)
                await self._snapshots.create(id, layers)
                self._mounted[layers, ids] = await self._snapshots.mount(id, ids)
            return self._mounted[layers, ids]
