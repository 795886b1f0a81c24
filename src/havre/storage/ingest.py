"""Receives one layer: hashes, decompresses, hashes the tar and stores it as a pipeline while it arrives.

    loop          network --> write() --> about 2 MiB
    shared pool                             --> [ hash the stream, decompress ] --> pieces of 256 KiB
    own thread                                                                        --> [ hash the tar, write, index ]

The stages run concurrently, each at most a few MiB ahead of the next, so memory is bounded and a slow disk slows the
network down. A plain tar is hashed once. The pieces are small enough to stay in the processor's cache between stages.
The last stage has its own thread: the stage before waits for it, and with both in one bounded pool they could deadlock.

A rejected, truncated or abandoned stream leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Protocol, TypeVar

import msgspec

from havre.aio import in_thread, spawn
from havre.errors import Failed, InvalidInput
from havre.linux.room import hint_when_full, is_full
from havre.oci.digest import Digest
from havre.storage.layerfiles import LayerWriter, Sealed
from havre.tar.compress import Decompressor

_GATHER = 2 << 20  # compressed bytes gathered for one dispatch to a thread
_GROUP = 8  # pieces gathered for one
_AHEAD = 2  # groups that may be queued for the disk

P = ParamSpec("P")
T = TypeVar("T")


class Ingested(msgspec.Struct, frozen=True):
    """Digests and sizes of the uncompressed tar and of the stream as received."""

    diff_id: Digest
    digest: Digest
    size: int
    compressed_size: int


class Keeper(Protocol):
    """The store for layers: `Layers`."""

    root: Path
    arriving: Counter[Digest]
    layer_limit: int

    def new_writer(self) -> LayerWriter: ...
    async def commit(self, writer: LayerWriter, sealed: Sealed) -> None: ...


class LayerIngest:
    """Receives one layer: `async with` it, `write` the chunks, `finish`. Without `finish` nothing is stored."""

    def __init__(self, keeper: Keeper, digest: Digest | None, diff_id: Digest | None) -> None:
        self._keeper = keeper
        self._wanted_digest = digest
        self._wanted_diff_id = diff_id
        self._name = digest or diff_id or "of unknown digest"
        self._stream_hash, self._tar_hash = hashlib.sha256(), hashlib.sha256()
        self._received = self._size = self._waiting = 0
        self._gathered: list[bytes | memoryview] = []
        self._decompressor = Decompressor()
        self._writer = keeper.new_writer()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="havre-layer")
        self._stored: deque[Future[None]] = deque()
        self._inflating: asyncio.Future[None] | None = None
        self._committing: asyncio.Future[None] | None = None
        self._arrived: list[Digest] = []

    async def __aenter__(self) -> LayerIngest:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A commit in progress completes even if the caller is cancelled: the layer is then stored completely.
        for running in (self._inflating, self._committing):
            if running is not None:
                await asyncio.wait([running])
                if not running.cancelled():
                    running.exception()  # marks it as retrieved: the first failure is being raised
        self._disk.shutdown(wait=False, cancel_futures=True)
        await in_thread(self._writer.discard)
        self._keeper.arriving -= Counter(self._arrived)

    async def write(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes of the stream as received. Raises `HavreError` as soon as an error is detected."""
        self._gathered.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= _GATHER:
            await self._pass_on()

    async def finish(self) -> Ingested:
        """End of the stream: returns once the layer is in the store."""
        await self._pass_on()
        await self._inflated()
        await self._in_thread(self._conclude)
        digest = Digest(f"sha256:{self._stream_hash.hexdigest()}")
        diff_id = Digest(f"sha256:{self._tar_hash.hexdigest()}") if self._decompressor.kind else digest
        _require(self._wanted_digest, digest)
        _require(self._wanted_diff_id, diff_id)
        sealed = await self._in_thread(self._writer.seal, diff_id)
        self._arrived.append(diff_id)
        self._keeper.arriving += Counter(self._arrived)
        self._committing = spawn(self._keeper.commit(self._writer, sealed), f"commit layer {sealed.diff_id}")
        with self._failures():
            await asyncio.shield(self._committing)
        return Ingested(sealed.diff_id, digest, sealed.size, self._received)

    async def _pass_on(self) -> None:
        """Dispatch the gathered bytes for decompression, once the batch before them is done."""
        await self._inflated()
        batch, self._gathered, self._waiting = self._gathered, [], 0
        self._inflating = asyncio.ensure_future(in_thread(self._inflate, batch))

    async def _inflated(self) -> None:
        if self._inflating is not None:
            with self._failures():
                await asyncio.shield(self._inflating)
            self._inflating = None

    # -- in threads

    def _inflate(self, batch: Sequence[bytes | memoryview]) -> None:
        data = batch[0] if len(batch) == 1 else b"".join(batch)
        self._received += len(data)
        self._stream_hash.update(data)
        self._decompressor.feed(data)
        pieces: list[bytes] = []
        while piece := self._decompressor.read():
            pieces.append(piece)
            if len(pieces) == _GROUP:
                self._hand_over(pieces)
                pieces = []
        self._hand_over(pieces)

    def _hand_over(self, pieces: Sequence[bytes]) -> None:
        """Queue pieces of the tar for the thread that stores them. Raises its error with earlier pieces."""
        while len(self._stored) >= _AHEAD:
            self._stored.popleft().result()
        self._stored.append(self._disk.submit(self._keep, pieces))

    def _keep(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._size += len(piece)
            if self._size > self._keeper.layer_limit:
                raise InvalidInput(
                    f"layer {self._name} unpacks to more than {self._keeper.layer_limit} bytes",
                    "raise layer-bytes of registry-limits in daemon.json if the image is to be trusted",
                )
            if self._decompressor.kind:
                self._tar_hash.update(piece)
            self._writer.write(piece)

    def _conclude(self) -> None:
        """Store the last bytes and wait until everything is stored."""
        self._hand_over([self._decompressor.finish()])
        while self._stored:
            self._stored.popleft().result()

    async def _in_thread(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._failures():
            return await in_thread(work, *args, **kwargs)

    def _failures(self) -> AbstractContextManager[None]:
        return translated_disk_errors(self._name, self._keeper.root)


@contextmanager
def translated_disk_errors(name: str, root: Path) -> Iterator[None]:
    """Translate disk errors into `Failed`, naming the layer."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise Failed(f"no space left on device while writing layer {name}", hint_when_full(error, root)) from error
        named = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        raise Failed(f"writing layer {name}: {error.strerror}{named}") from error


def _require(wanted: Digest | None, got: Digest) -> None:
    if wanted not in (None, got):
        raise Failed(f"layer {wanted} does not match: got {got}", "the registry or the archive is damaged; try again")
