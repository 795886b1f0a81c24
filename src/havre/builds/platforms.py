"""Multi-platform builds: one build per platform, as many at a time as there are processors, reported as one build.

    --platform linux/amd64,linux/arm64     [linux/amd64 2/2] COPY ...     step 1 to n
                                           [linux/arm64 2/2] COPY ...     step n+1 to 2n

Steps that are the same for all platforms (stages FROM --platform=$BUILDPLATFORM, contexts) are done once, by the build
that starts them first; the others wait for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from havre.builds.progress import BuildEvent, BuildProgress, Vertex, Warned
from havre.builds.request import ContextSource, DockerfileBytes, Origin
from havre.builds.trees import Tree
from havre.errors import InvalidInput
from havre.oci.digest import Digest, digest_of
from havre.oci.platform import Platform, parse_platform
from havre.registry import Auth

MAX_PLATFORMS = 32
_AT_ONCE = max(2, os.cpu_count() or 1)
_INTERNAL = "[internal]"  # prefix of the names of steps that belong to no platform

T = TypeVar("T")


def split_platforms(text: str) -> list[str]:
    """The distinct platforms of a request, normalised. Raises `InvalidInput`."""
    found: list[Platform] = []
    for each in text.split(",") if text else ():
        platform = parse_platform(each.strip())
        if any(platform.same_as(other) for other in found):
            continue
        if len(found) == MAX_PLATFORMS:
            raise InvalidInput("a build for too many platforms", f"at most {MAX_PLATFORMS} can be built at once")
        found.append(platform)
    return [str(each) for each in found]


async def side_by_side(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results, in order. When one fails, cancels the others and raises its error."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(work: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await work()

    tasks = [asyncio.ensure_future(in_turn(work)) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = next((task for task in tasks if task in done and not task.cancelled() and task.exception()), None)
        return [task.result() for task in ([failed] if failed else tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SharedClient:
    """The client of a multi-platform build: its Dockerfile is requested once, contexts one at a time."""

    def __init__(self, client: ContextSource) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._dockerfile: DockerfileBytes | None = None

    async def dockerfile(self, path: str) -> DockerfileBytes:
        """The Dockerfile, requested once for all platforms."""
        async with self._lock:
            if self._dockerfile is None:
                self._dockerfile = await self._client.dockerfile(path)
            return self._dockerfile

    async def directory(self, name: str, wanted: Sequence[str], ignored: Sequence[str]) -> Path | Tree:
        """A context; platforms may request different files of it."""
        async with self._lock:
            return await self._client.directory(name, wanted, ignored)

    async def secret(self, id: str) -> bytes | None:
        """A secret of the client."""
        return await self._client.secret(id)

    async def ssh(self, id: str) -> Path | None:
        """The socket of an SSH agent."""
        return await self._client.ssh(id)

    def blob(self, store: str, digest: Digest) -> AsyncGenerator[bytes, None]:
        """A blob of a cache."""
        return self._client.blob(store, digest)

    async def credentials(self, registry: str) -> Auth | None:
        """Credentials for a registry."""
        return await self._client.credentials(registry)

    def origins(self) -> Mapping[str, Origin]:
        """Origins of fetched contexts."""
        return self._client.origins()


class PlatformsProgress:
    """Merges the progress of builds per platform; events that belong to no platform are reported once."""

    def __init__(self, tell: BuildProgress, count: int) -> None:
        self._tell = tell
        self._count = count
        self._warned: set[tuple[str, str, int]] = set()
        self._internal: set[tuple[type[BuildEvent], str]] = set()

    def of(self, platform: str, number: int) -> BuildProgress:
        """The progress callback of one platform; `number` counts from 0."""

        def tell(event: BuildEvent) -> None:
            if isinstance(event, Warned):
                warning = (event.rule, event.message, event.line)
                if warning in self._warned:
                    return
                self._warned.add(warning)
                self._tell(event)
            elif event.vertex.name.startswith(_INTERNAL):
                known = type(event), event.vertex.digest
                if known not in self._internal:
                    self._internal.add(known)
                    self._tell(event)
            else:
                self._tell(replace(event, vertex=self._place(event.vertex, platform, number)))

        return tell

    def _place(self, vertex: Vertex, platform: str, number: int) -> Vertex:
        name = f"[{platform} {vertex.name[1:]}" if vertex.name.startswith("[") else vertex.name
        return replace(
            vertex,
            digest=_digest(platform, vertex.digest),
            name=name,
            inputs=tuple(_digest(platform, digest) for digest in vertex.inputs),
            step=vertex.step + number * vertex.steps if vertex.step else 0,
            steps=vertex.steps * self._count,
        )


def _digest(platform: str, digest: str) -> str:
    return digest_of(f"{platform} {digest}".encode())
