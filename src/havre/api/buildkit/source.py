"""The client's files, secrets and credentials for a build, over its session: a `builds.request.ContextSource`.

    builder                       SessionSource                     client's session
    dockerfile("Dockerfile")  --> FileSync of "dockerfile"      --> Dockerfile, Dockerfile.dockerignore
                                  FileSync of "context"         --> .dockerignore
    directory("context", ..)  --> FileSync of "context"         --> changes since the last build
      or, for a tar on stdin  --> Upload/Pull                   --> the tar, unpacked once
    secret, ssh, credentials  --> Secrets, SSH, Auth

Directories are kept until `stack` closes at the end of the build.

Source: moby/buildkit session/*; frontend/dockerui; docker/buildx build/opt.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from havre.aio import in_thread
from havre.api.buildkit.contentstore import read_blob
from havre.api.buildkit.filesync import receive
from havre.api.buildkit.options import Options
from havre.api.buildkit.sessionauth import session_credentials
from havre.api.buildkit.sessionmessages import (
    BytesMessage,
    CheckAgentRequest,
    CheckAgentResponse,
    GetSecretRequest,
    GetSecretResponse,
)
from havre.api.buildkit.sessions import Session, Sessions
from havre.api.buildkit.shown import counted
from havre.api.buildkit.sshagent import forward_agent
from havre.builds.contexts import Contexts, read_file
from havre.builds.gitsource import shown_address
from havre.builds.packed import PackedTree
from havre.builds.progress import BuildProgress, Vertex, shown, vertex_of_context
from havre.builds.request import DEFAULT_NAME, MAIN_CONTEXT, DockerfileBytes, Origin
from havre.builds.uploads import UploadedContext, dockerfile_names, read_dockerfile
from havre.dockerfile.syntax import MAX_BYTES
from havre.errors import Failed, NotFound
from havre.oci.digest import Digest
from havre.registry import Auth

Files: TypeAlias = Path | PackedTree
T = TypeVar("T")

_IGNORE = ".dockerignore"
_TRANSFER = "transferring context:"
_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
_CHECK_AGENT, _PULL = "/moby.sshforward.v1.SSH/CheckAgent", "/moby.upload.v1.Upload/Pull"


class SessionSource:
    """The client of one build; with an empty session ID it offers nothing.

    `text` is the Dockerfile once read, for messages about its lines; `bodies` are tars received by HTTP.
    """

    def __init__(
        self,
        sessions: Sessions,
        session_id: str,
        options: Options,
        contexts: Contexts,
        stack: AsyncExitStack,
        progress: BuildProgress,
        bodies: Mapping[str, AsyncIterator[bytes]] | None = None,
    ) -> None:
        self._bodies = bodies or {}
        self._sessions = sessions
        self._session_id = session_id
        self._options = options
        self._contexts = contexts
        self._stack = stack
        self._progress = progress
        self._locks: dict[object, asyncio.Lock] = {}
        self._made: dict[object, Any] = {}
        self._origins: dict[str, Origin] = {}
        self._only_dockerfile = ""  # its name, if a URL gave a Dockerfile only, without a context
        self.text: DockerfileBytes | None = None

    async def dockerfile(self, path: str) -> DockerfileBytes:
        """The Dockerfile at `path` of its directory, with its own ignore file or the context's."""
        own, local = f"{path}{_IGNORE}", self._options.dockerfile_local
        with shown(f"[internal] load build definition from {path}", self._progress) as vertex:
            if local:
                follow = (*dockerfile_names(path), own)
                directory = await self._fetch(local, follow, (vertex, "transferring dockerfile:"))
            else:
                directory = await self._foreign_context()
            try:
                data = await read_dockerfile(directory, self._only_dockerfile or path)
            except NotFound:
                raise NotFound(f"failed to read dockerfile: open {path}: no such file or directory") from None
        ignore = await _optional(directory, own)
        if ignore is None:
            ignore = await self._ignore_of_context()
        self.text = DockerfileBytes(path, data, ignore)
        return self.text

    async def _ignore_of_context(self) -> bytes | None:
        with shown("[internal] load .dockerignore", self._progress) as vertex:
            if self._is_foreign:
                directory = await self._foreign_context()
            else:
                main = self._options.locals[MAIN_CONTEXT]
                directory = await self._fetch(main, (_IGNORE,), (vertex, _TRANSFER))
            return await _optional(directory, _IGNORE)

    async def directory(self, name: str, wanted: Sequence[str], ignored: Sequence[str]) -> Files:
        """A context's directory at the client, or the wanted part of it."""
        if name == MAIN_CONTEXT and self._is_foreign:
            return await self._foreign_context()
        if (remote := self._options.remotes.get(name)) is not None:
            return await self._once(("remote", name), lambda: self._fetched(remote, name))
        local = self._options.locals.get(name)
        if local is None:
            raise NotFound(f"the client has no context named {name}")
        if not wanted:
            return await self._once("nothing", self._borrow)
        follow = () if any(path.strip("/.") == "" for path in wanted) else tuple(path.lstrip("/") for path in wanted)
        told = (vertex_of_context(name), _TRANSFER)
        return await self._fetch(local, follow, told, exclude=tuple(ignored), kept=True)

    async def _fetch(
        self,
        local: str,
        follow: Sequence[str],
        told: tuple[Vertex, str],
        *,
        exclude: Sequence[str] = (),
        kept: bool = False,
    ) -> Files:
        """A directory of the client, transferred once for each distinct request; `kept` for its next build."""

        async def transfer() -> Files:
            session = await self._session()
            key = f"{session.shared_key}\0{local}" if kept and session.shared_key else ""
            tree = await self._stack.enter_async_context(self._contexts.tree(key))
            with counted(*told, self._progress) as moved:
                await receive(session, local, tree, moved, follow=follow, exclude=exclude)
            return tree

        return await self._once((local, follow, exclude), transfer)

    async def _once(self, key: object, make: Callable[[], Awaitable[T]]) -> T:
        """The result of `make`, called once for each `key`; concurrent callers wait for it."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._made:
                self._made[key] = await make()
            made: T = self._made[key]
            return made

    async def _borrow(self) -> Path:
        return await self._stack.enter_async_context(self._contexts.borrow())

    async def _session(self) -> Session:
        return await self._sessions.find(self._session_id)

    async def secret(self, id: str) -> bytes | None:
        """A secret of the client."""
        session = await self._session() if self._session_id else None
        if session is None or not session.offers(_SECRET):
            return None
        try:
            return (await session.ask(_SECRET, GetSecretRequest(id), GetSecretResponse)).data
        except NotFound:
            return None

    async def ssh(self, id: str) -> Path | None:
        """A socket of the client's SSH agent."""
        session = await self._session() if self._session_id else None
        if session is None or not session.offers(_CHECK_AGENT):
            return None
        try:
            await session.ask(_CHECK_AGENT, CheckAgentRequest(id), CheckAgentResponse)
        except Failed:  # the protocol has no other way to report a missing agent
            return None

        async def forward() -> Path:
            socket = await self._borrow() / "agent"
            await self._stack.enter_async_context(forward_agent(session, id, socket))
            return socket

        return await self._once(("ssh", id), forward)

    async def blob(self, store: str, digest: Digest) -> AsyncGenerator[bytes, None]:
        """A blob of the client's cache directory."""
        async with aclosing(read_blob(await self._session(), store, digest)) as pieces:
            async for piece in pieces:
                yield piece

    async def credentials(self, registry: str) -> Auth | None:
        """The client's credentials for a registry."""
        return await session_credentials(await self._session(), registry) if self._session_id else None

    def origins(self) -> Mapping[str, Origin]:
        """The origins of fetched contexts."""
        return self._origins

    @property
    def _is_foreign(self) -> bool:
        """Report whether the main context is not a directory of the client."""
        return bool(self._options.upload or self._options.remote)

    async def _foreign_context(self) -> Files:
        """The main context as a tar sent by the client, or from a URL."""

        async def unpack() -> Files:
            if self._options.remote:
                return await self._fetched(self._options.remote, MAIN_CONTEXT)
            uploaded = UploadedContext(await self._borrow(), {})
            self._stack.callback(uploaded.close)
            if (body := self._bodies.get(self._options.upload)) is not None:
                await uploaded.receive(body)
                return uploaded.files
            async with aclosing(self._pull()) as pieces:
                await uploaded.receive(pieces)
            return uploaded.files

        return await self._once("foreign", unpack)

    async def _fetched(self, url: str, name: str) -> Files:
        """A context from a URL."""
        uploaded = UploadedContext(await self._borrow(), {})
        self._stack.callback(uploaded.close)
        with shown(f"[internal] load remote build context {shown_address(url)}", self._progress):
            await uploaded.fetch(url, self, keep_git=self._options.keep_git)
        if uploaded.is_dockerfile and name == MAIN_CONTEXT:
            self._only_dockerfile = DEFAULT_NAME
        if uploaded.origin is not None:
            self._origins[name] = uploaded.origin
        return uploaded.files

    async def _pull(self) -> AsyncGenerator[bytes, None]:
        session = await self._session()
        path = [("urlpath", f"/{self._options.upload}")]
        async with session.converse(_PULL, path, BytesMessage, BytesMessage) as stream:
            await stream.send_request()
            await stream.end()
            async for piece in stream:
                yield piece.data


async def _optional(directory: Files, name: str) -> bytes | None:
    try:
        return await in_thread(read_file, directory, name, MAX_BYTES)
    except NotFound:
        return None
