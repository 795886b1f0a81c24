"""Creates a layer locally: one thread writes and hashes its tar, another stores it.

    work(out) --> out.write  --> hash, pieces of 256 KiB --> at most 4 MiB queued --> own thread: write, index
                  out.member --> the members of a piece, which then need not be parsed

Python's threads take turns under the GIL, with waits of up to 5 ms. The writer therefore passes its members on: two
threads that write and parse headers would mostly wait for each other.

As with `ingest`, a failed or abandoned layer leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from havre.aio import in_thread, spawn
from havre.oci.digest import Digest
from havre.storage.ingest import Keeper, translated_disk_errors
from havre.storage.layerfiles import LayerWriter, Sealed
from havre.tar.compress import PIECE
from havre.tar.reader import Entry

_AHEAD = 16  # pieces that may be queued for the disk


class LayerOut(Protocol):
    """Where `work` writes the tar of a layer."""

    def write(self, data: bytes, /) -> int: ...

    def member(self, entry: Entry) -> None:
        """Describe a member as a reader of the tar would find it."""


async def make_layer(keeper: Keeper, work: Callable[[LayerOut], None], hold: Callable[[Digest], None]) -> Digest | None:
    """Store the layer whose tar `work` writes in a thread; None if it has no members. Raises the errors of `work`.

    `hold` is called with the diff ID while the layer still counts as arriving. When cancelled, the next write of `work`
    raises BrokenPipeError.
    """
    writer = keeper.new_writer()
    out = _Out(writer)
    arrived: Counter[Digest] = Counter()
    with translated_disk_errors("of a build", keeper.root):
        try:
            running = asyncio.ensure_future(in_thread(out.run, work))
            try:
                sealed = await asyncio.shield(running)
            except asyncio.CancelledError:
                out.abandon()
                await asyncio.wait([running])
                raise
            if sealed is None:
                return None
            arrived = Counter((sealed.diff_id,))
            keeper.arriving += arrived
            committing = spawn(keeper.commit(writer, sealed), f"commit layer {sealed.diff_id}")
            try:
                await asyncio.shield(committing)
            finally:
                await asyncio.wait([committing])  # a commit in progress completes: the layer is then stored completely
            hold(sealed.diff_id)
            return sealed.diff_id
        finally:
            await in_thread(writer.discard)
            keeper.arriving -= arrived


class _Out:
    """The output that `work` writes to."""

    def __init__(self, writer: LayerWriter) -> None:
        self._writer = writer
        self._hash = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._members: list[Entry] = []
        self._waiting = 0
        self._blank = True
        self._stored: deque[Future[None]] = deque()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="havre-layer")
        self._abandoned = threading.Event()

    def run(self, work: Callable[[LayerOut], None]) -> Sealed | None:
        """Run `work` and seal the layer."""
        try:
            work(self)
            self._pass_on()
            while self._stored:
                self._stored.popleft().result()
            return None if self._blank else self._writer.seal(Digest(f"sha256:{self._hash.hexdigest()}"))
        finally:
            self._disk.shutdown(wait=True, cancel_futures=True)

    def abandon(self) -> None:
        """Make further writes fail: the caller was cancelled."""
        self._abandoned.set()

    def write(self, data: bytes) -> int:
        self._gathered.append(data)
        self._waiting += len(data)
        if self._waiting >= PIECE:
            self._pass_on()
        return len(data)

    def member(self, entry: Entry) -> None:
        self._members.append(entry)

    def _pass_on(self) -> None:
        if self._abandoned.is_set():
            raise BrokenPipeError("the layer was abandoned")
        piece = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        members, self._gathered, self._members, self._waiting = self._members, [], [], 0
        self._blank = self._blank and not members
        self._hash.update(piece)
        while len(self._stored) >= _AHEAD:
            self._stored.popleft().result()
        self._stored.append(self._disk.submit(self._writer.write, piece, members))
