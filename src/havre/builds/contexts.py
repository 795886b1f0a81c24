"""Directories of clients' build contexts, kept between builds so that only changes are sent and hashed again.

    turn({"app:1f3a"}) --> excludes concurrent transfers with this key
    tree("app:1f3a")   --> the packed tree of the last build with this key, a fork of one in use, or an empty one
    borrow()           --> a directory, for contexts that arrive as files (git, a URL) and are used once

`packed` updates the trees. They do not survive a restart of the daemon: `Contexts.open` starts with an empty directory.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from havre.aio import finish, in_thread, spawn
from havre.builds.cache import LOCAL_SOURCE, CacheRecord
from havre.builds.packed import PackedTree
from havre.errors import Failed, InvalidInput, NotFound
from havre.linux import trees
from havre.linux.openat2 import open_regular_in_root
from havre.linux.room import hint_when_full, is_full

log = logging.getLogger(__name__)

PATIENCE_S = 30.0  # limit of waiting for a slow client that sends the same context
KEPT = 8  # idle contexts kept
KEPT_FILES = 200_000  # limit of files in all kept contexts; a single one may exceed it


class Contexts:
    """The contexts below the directory `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._idle: OrderedDict[str, PackedTree] = OrderedDict()  # in order of use
        self._busy: dict[str, list[PackedTree]] = {}  # trees in use that may be forked, newest last
        self._last_used: dict[str, float] = {}  # of the trees in `_idle`, in seconds since the epoch
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Create the directory. Leftovers of an earlier daemon are removed in the background."""
        spawn(in_thread(trees.remove_tree, await in_thread(self._set_aside)), "remove old build contexts")

    def _set_aside(self) -> Path:
        stale = self._root.with_name(f"{self._root.name}.stale")
        try:
            stale.mkdir(mode=0o700, exist_ok=True)
            if self._root.exists():
                self._root.rename(stale / secrets.token_hex(8))
            self._root.mkdir(mode=0o700)
        except OSError as error:
            if not is_full(error):
                raise
            log.warning("cannot rename old build contexts, removing them before starting: %s", error)
            trees.remove_tree(self._root)
            with suppress(OSError):  # builds will fail
                self._root.mkdir(mode=0o700)
        return stale

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Path]:
        """Create a directory for the duration of the block."""
        directory = await in_thread(self._make)
        try:
            yield directory
        finally:
            await finish(in_thread(trees.remove_tree, directory))

    @asynccontextmanager
    async def turn(self, keys: Collection[str]) -> AsyncIterator[bool]:
        """Hold exclusive locks of these keys during the block.

        Yields False, without locks, if another client keeps one for longer than PATIENCE_S.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    for key in sorted(keys):
                        await stack.enter_async_context(self._turns.setdefault(key, asyncio.Lock()))
            except TimeoutError:
                await stack.aclose()
                yield False
                return
            yield True

    @asynccontextmanager
    async def tree(self, key: str = "", *, shared: bool = False) -> AsyncIterator[PackedTree]:
        """A tree for exclusive use: the last one with `key`, or a new one. Without a key it is not kept.

        `shared` trees change only while their user holds `turn`; if in use, they are forked.
        """
        key = f"shared {key}" if shared else key  # a user without `turn` must not append to their packs
        busy = self._busy.get(key, [])
        with _errors_named("cannot make room for a build context"):
            if key in self._idle:
                tree = self._idle.pop(key)
            else:
                tree = busy[-1].fork() if busy else await in_thread(PackedTree, self._root)
        if shared:
            self._busy.setdefault(key, []).append(tree)
        try:
            yield tree
        finally:
            if shared:
                self._leave(key, tree)
            for unwanted in self._put_back(key, tree):
                await finish(in_thread(unwanted.close))

    def _leave(self, key: str, tree: PackedTree) -> None:
        left = [other for other in self._busy.pop(key) if other is not tree]
        if left:
            self._busy[key] = left

    def _make(self) -> Path:
        with _errors_named("cannot make a directory for a build context"):
            return Path(tempfile.mkdtemp(dir=self._root))

    def _put_back(self, key: str, tree: PackedTree) -> list[PackedTree]:
        """Keep `tree`. Returns the trees evicted for it."""
        if not key:
            return [tree]
        unwanted = [self._idle.pop(key)] if key in self._idle else []
        self._idle[key] = tree
        self._last_used[key] = time.time()
        while len(self._idle) > 1 and (
            len(self._idle) > KEPT or sum(each.count for each in self._idle.values()) > KEPT_FILES
        ):
            unwanted.append(self._idle.popitem(last=False)[1])
        self._last_used = {key: self._last_used[key] for key in self._idle}
        return unwanted

    def records(self) -> list[CacheRecord]:
        """Records of all idle trees; sizes in bytes."""
        return [_record(key, tree, self._last_used[key]) for key, tree in self._idle.items()]

    async def remove(self, id: str) -> int:
        """Remove the tree whose record has this ID, unless it is in use by now. Returns the bytes freed."""
        for key in self._idle:
            if _record_id(key) == id:
                tree = self._idle.pop(key)
                size = tree.pack.size
                await in_thread(tree.close)
                return size
        return 0


def _record_id(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]


def _record(key: str, tree: PackedTree, last_used_at: float) -> CacheRecord:
    description = f"local source for {key.removeprefix('shared ').replace(chr(0), ' ')}"
    size = tree.pack.size
    return CacheRecord(
        _record_id(key), (), "", description, tree.created_at, last_used_at, size=size, type=LOCAL_SOURCE
    )


@contextmanager
def _errors_named(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(f"{what}: {error.strerror or error}", hint_when_full(error)) from error


def read_file(root: Path | PackedTree, path: str, limit: int) -> bytes:
    """The file at `path`, links resolved inside `root`.

    Raises `NotFound`, and `InvalidInput` if it is larger than `limit` bytes.
    """
    if isinstance(root, PackedTree):
        return root.read(path, limit)
    try:
        descriptor = open_regular_in_root(root, path)
    except OSError:
        raise NotFound(f"failed to read {path}: no such file or directory") from None
    if descriptor is None:
        raise NotFound(f"failed to read {path}: not a regular file")
    try:
        if os.fstat(descriptor).st_size > limit:
            raise InvalidInput(f"{path} is larger than {limit} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)
