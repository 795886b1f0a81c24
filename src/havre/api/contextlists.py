"""Build contexts from `havre build`: lists of files first, then only the files that the daemon lacks.

    client                                                            daemon
    POST /build, Content-Type: application/vnd.havre.context
    one line of JSON, `Head`                                     -->  compared with the contexts of the last build and
                                                                      the files that the Dockerfile uses (builds/wanted)
                                                                 <--  {"aux": {"Wanted": {"context": [3, 17]}}}
    for each file wanted, context by context in the head's order:
    its length in 8 bytes, its content                           -->  packed, hashed
                                                                 <--  lines of progress, as for any build

With `remote` in the query the daemon fetches the main context itself; the lists are additional contexts.

The classic endpoint takes a tar of everything. BuildKit's session transfers changes only, but over HTTP/2, whose
libraries cost the command line more than a cached build (docs/decisions/240). All input is untrusted.
"""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from havre.aio import ahead, in_thread, to_its_end
from havre.api.call import Call
from havre.builds.contexts import Contexts
from havre.builds.intake import PackUpdate
from havre.builds.packed import PackedTree
from havre.builds.request import MAIN_CONTEXT, DockerfileBytes, Origin
from havre.builds.uploads import SshAgents, UploadedContext, credentials_for, find_dockerfile, gathered
from havre.dockerfile.ignore import IgnoreRules
from havre.errors import InvalidInput, NotFound
from havre.images.progress import Progress, ProgressLine
from havre.oci.digest import Digest, hex_of, parse_digest
from havre.registry import Auth
from havre.tar.reader import MAX_SIZE, Entry

CACHE = "cache:"  # prefix of the names of contexts that are OCI layouts of caches
CONTENT_TYPE = "application/vnd.havre.context"
_MAX_HEAD = 512 << 20
_LENGTH = 8
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}


class Listed(NamedTuple):
    """A file: `path` and `link` are bytes, each a code point.

    `link` of a regular file is an earlier path (a hard link).
    """

    path: str
    mode: int
    size: int
    mtime_ns: int
    link: str = ""


class Listing(msgspec.Struct, rename="pascal"):
    """A context: `key` identifies it across builds."""

    key: str
    files: list[Listed]


class Head(msgspec.Struct, rename="pascal"):
    """The header before the contents. Bytes are base64.

    `dockerfile` is the text of the main context's Dockerfile. The files wanted are computed from it and it is what
    is built, even if the file changes while it is sent.
    """

    contexts: dict[str, Listing]
    secrets: dict[str, str] = {}
    dockerfile: bytes | None = None


class ListedContext:
    """The ContextSource of one build. `main` is the main context if the daemon fetched it.

    `text` is the Dockerfile's, None to read it from the file.
    """

    def __init__(
        self,
        trees: Mapping[str, PackedTree],
        secrets: Mapping[str, bytes],
        credentials: Mapping[str, Auth],
        text: bytes | None,
    ) -> None:
        self._trees = trees
        self._text = text
        self._secrets = secrets
        self._credentials = credentials
        self.agents: SshAgents | None = None
        self.main: UploadedContext | None = None

    @property
    def names(self) -> frozenset[str]:
        """The contexts except the main one and directories of caches."""
        return frozenset(name for name in self._trees if name != MAIN_CONTEXT and not name.startswith(CACHE))

    async def dockerfile(self, path: str) -> DockerfileBytes:
        """The Dockerfile of the main context."""
        if self.main is not None:
            return await self.main.dockerfile(path)
        found = await find_dockerfile(self._trees[MAIN_CONTEXT], path)
        return found if self._text is None else replace(found, data=self._text)

    async def directory(self, name: str, wanted: Sequence[str], ignored: Sequence[str]) -> Path | PackedTree:
        """A context. The client has omitted ignored files, except those that it has to send (the Dockerfile, ignore
        files)."""
        if self.main is not None and name == MAIN_CONTEXT:
            return await self.main.directory(name, wanted, ignored)
        tree = self._trees[name]
        return await to_its_end(tree.without, IgnoreRules(ignored)) if ignored else tree

    async def secret(self, id: str) -> bytes | None:
        """A secret of the head."""
        return self._secrets.get(id)

    async def ssh(self, id: str) -> Path | None:
        """A forwarded SSH agent."""
        return None if self.agents is None else await self.agents.ssh(id)

    async def blob(self, store: str, digest: Digest) -> AsyncGenerator[bytes, None]:
        """A blob of an OCI layout sent as a context."""
        tree, path = self._trees.get(store), f"blobs/sha256/{hex_of(parse_digest(digest))}"
        if tree is None or await in_thread(tree.locate, path) is None:
            raise NotFound(f"the cache {store} has no blob {digest}")
        pieces = tree.pieces(path)
        while piece := await in_thread(next, pieces, b""):
            yield piece

    async def credentials(self, registry: str) -> Auth | None:
        """The client's credentials for this registry."""
        return credentials_for(self._credentials, registry)

    def origins(self) -> Mapping[str, Origin]:
        """The origin of the main context, if it was fetched."""
        return {} if self.main is None else self.main.origins()


Wanted: TypeAlias = Callable[[bytes, Collection[str]], Awaitable[Mapping[str, Sequence[str]]]]


@asynccontextmanager
async def receive(
    call: Call, contexts: Contexts, credentials: Mapping[str, Auth], progress: Progress, wanted: Wanted
) -> AsyncIterator[ListedContext]:
    """Receive the contexts of a request with our content type, for the duration of a block.

    `wanted` returns the files that the Dockerfile uses, by context; of contexts not in it, all files are wanted.
    """
    body = call.upload()
    head, rest = await _read_head(body)
    secrets = {id: _decode_secret(id, text) for id, text in head.secrets.items()}
    if MAIN_CONTEXT not in head.contexts and not call.text("remote"):
        raise InvalidInput(f"the list has no context named {MAIN_CONTEXT}")
    names = [name for name in head.contexts if not name.startswith(CACHE)]
    parts = {} if head.dockerfile is None else await wanted(head.dockerfile, names)
    async with AsyncExitStack() as stack:
        trees = {}
        intakes = []
        async with contexts.turn({listing.key for listing in head.contexts.values()}) as alone:
            for name, listing in head.contexts.items():
                trees[name] = await stack.enter_async_context(contexts.tree(listing.key, shared=alone))
                intakes.append((name, await in_thread(_compare, listing.files, trees[name], parts.get(name))))
            progress(ProgressLine(aux={"Wanted": {name: intake.numbers for name, intake in intakes}}))
            contents = _Contents([intake for _, intake in intakes])
            async with aclosing(ahead(gathered(body, rest))) as pieces:
                async for piece in pieces:
                    await to_its_end(contents.feed, piece)
            await to_its_end(contents.finish)
        yield ListedContext(trees, secrets, credentials, head.dockerfile)


async def _read_head(body: AsyncIterator[bytes]) -> tuple[Head, bytes]:
    gathered = bytearray()
    async for chunk in body:
        start = len(gathered)
        gathered += chunk
        if (end := gathered.find(b"\n", start)) >= 0:
            try:
                return await in_thread(msgspec.json.decode, bytes(gathered[:end]), type=Head), bytes(
                    gathered[end + 1 :]
                )
            except (msgspec.MsgspecError, RecursionError) as error:
                raise InvalidInput(f"the head of the build context is wrong: {error}") from error
        if len(gathered) > _MAX_HEAD:
            break
    raise InvalidInput("the build context has no head")


def _decode_secret(id: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidInput(f"the secret {id} is not base64") from error


class _Intake(NamedTuple):
    """A context being received: its wanted files, by number and as entries."""

    update: PackUpdate
    numbers: list[int]
    entries: list[Entry]


def _compare(files: Sequence[Listed], tree: PackedTree, sources: Sequence[str] | None) -> _Intake:
    """Compute which files of a context to request, of those in `sources`."""
    intake = _Intake(PackUpdate(tree), [], [])
    for number, listed in enumerate(files):
        entry = _entry_of(listed)
        if intake.update.want(entry):
            intake.numbers.append(number)
            intake.entries.append(entry)
    if sources is None:
        return intake
    unneeded = intake.update.narrow(sources)
    needed = [pair for pair in zip(intake.numbers, intake.entries, strict=True) if pair[1].path not in unneeded]
    return _Intake(intake.update, [number for number, _ in needed], [entry for _, entry in needed])


def _entry_of(listed: Listed) -> Entry:
    path, mode, size, mtime_ns, link = listed
    kind = _KINDS.get(stat.S_IFMT(mode))
    try:
        named, target = path.encode("latin-1"), link.encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidInput("a path of the build context is no bytes") from error
    if kind is None or not 0 <= size <= MAX_SIZE or not -(1 << 62) < mtime_ns < 1 << 62:
        raise InvalidInput(f"the build context lists {named[:200]!r}, which no context can have")
    if kind == "file" and target:
        kind = "hardlink"
    seconds, nanoseconds = divmod(mtime_ns, 10**9)
    if kind != "file":
        size = 0
    return Entry(named, kind, stat.S_IMODE(mode), 0, 0, seconds, nanoseconds, size, target)


class _Contents:
    """The contents of wanted files in sequence, received in arbitrary pieces."""

    def __init__(self, intakes: Sequence[_Intake]) -> None:
        self._updates = [intake.update for intake in intakes]
        self._coming = iter([(intake.update, entry) for intake in intakes for entry in intake.entries])
        self._current = next(self._coming, None)
        self._length = b""
        self._left = -1  # bytes of the current file still to come; -1: its length is not yet known

    def feed(self, data: bytes) -> None:
        """Process the next bytes."""
        view, at = memoryview(data), 0
        while at < len(data):
            if self._current is None:
                raise InvalidInput("the build context goes on after its last file")
            update, entry = self._current
            if self._left < 0:
                taken = data[at : at + _LENGTH - len(self._length)]
                self._length += taken
                at += len(taken)
                if len(self._length) < _LENGTH:
                    return
                self._left, self._length = int.from_bytes(self._length, "big"), b""
                if self._left > MAX_SIZE:
                    raise InvalidInput(f"the build context has a file of {self._left} bytes")
            piece = view[at : at + self._left]
            if piece:
                update.write(entry, piece)
            at += len(piece)
            self._left -= len(piece)
            if not self._left:
                update.seal(entry)
                self._current, self._left = next(self._coming, None), -1

    def finish(self) -> None:
        """Check that everything was received."""
        if self._current is not None:
            raise InvalidInput("the build context ends before its last file")
        for update in self._updates:
            update.finish()
