"""The directories of `--mount=type=cache`, shared by steps across builds, and their records in the build cache.

    data_root/build/mounts/HEX            HEX is the mount's ID; the directory that steps see
                           private-HEX    of a step with sharing=private while another step uses HEX
                           HEX.new        being created from its `from=`
                           .gone-HEX      being removed

A directory in use by a step is never removed. Removal first renames the directory, on the event loop, so that the next
step creates a new one, and then deletes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from havre.aio import in_thread
from havre.builds.cache import CacheRecord
from havre.dockerfile.mounts import RunMount
from havre.linux import trees

CACHE_MOUNT = "exec.cachemount"
"""Type of their records, with BuildKit's name."""

_GONE, _NEW, _PRIVATE = ".gone-", ".new", "private-"


class CacheMounts:
    """All cache mounts. Users of a mount with sharing=locked wait for each other."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[str, asyncio.Lock] = {}
        self._making = asyncio.Lock()  # two stages may create the same directory concurrently
        self._used: Counter[Path] = Counter()  # number of steps that use it now
        self._last_used: dict[Path, float] = {}
        self._uses: Counter[Path] = Counter()

    def sweep(self) -> None:
        """Remove what an earlier daemon left half created or half removed. Blocking."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in self._root.iterdir():
            if directory.name.startswith(_GONE) or directory.name.endswith(_NEW):
                trees.remove_tree(directory)

    @asynccontextmanager
    async def borrow(self, id: str, mount: RunMount, seed: Path | None) -> AsyncIterator[Path]:
        """The directory of this ID; a new one is created from `seed`, if any, with the mount's mode and owner."""
        name = f"{_PRIVATE}{secrets.token_hex(8)}" if self._is_taken(id, mount) else _name(id)
        lock = self._locks.setdefault(id, asyncio.Lock()) if mount.sharing == "locked" else None
        if lock is not None:
            await lock.acquire()
        directory = self._root / name
        self._used[directory] += 1
        self._uses[directory] += 1
        try:
            async with self._making:
                await in_thread(_make_cache, directory, mount, seed)
            yield directory
        finally:
            self._used[directory] -= 1
            self._last_used[directory] = time.time()
            if lock is not None:
                lock.release()

    def _is_taken(self, id: str, mount: RunMount) -> bool:
        return mount.sharing == "private" and self._used[self._root / _name(id)] > 0

    async def records(self) -> list[CacheRecord]:
        """Records of all directories that are not in use; sizes in bytes."""
        found = await in_thread(self._look)
        return [self._record(directory, *facts) for directory, facts in found.items() if not self._used[directory]]

    def _look(self) -> dict[Path, tuple[int, float]]:
        found = {}
        for directory in sorted(self._root.iterdir()):
            if not directory.name.startswith(_GONE) and not directory.name.endswith(_NEW):
                found[directory] = trees.tree_size(directory), directory.stat().st_mtime
        return found

    def _record(self, directory: Path, size: int, changed_at: float) -> CacheRecord:
        return CacheRecord(
            id=_record_id(directory),
            keys=(),
            layer="",
            description=f"cache mount {_describe(directory.name)}",
            created_at=changed_at,
            last_used_at=max(changed_at, self._last_used.get(directory, 0.0)),
            uses=self._uses[directory],
            size=size,
            type=CACHE_MOUNT,
        )

    async def remove(self, id: str) -> int:
        """Remove the directory whose record has this ID, unless it is in use by now. Returns the bytes freed."""
        for directory in self._root.iterdir():
            if _record_id(directory) == id and not self._used[directory]:
                gone = self._root / f"{_GONE}{secrets.token_hex(8)}"
                directory.rename(gone)  # on the event loop: no step can start to use it before the rename
                self._last_used.pop(directory, None)
                self._uses.pop(directory, None)
                return await in_thread(_remove, gone)
        return 0


def _name(id: str) -> str:
    return id.encode().hex()[:200]


def _describe(name: str) -> str:
    try:
        return bytes.fromhex(name).decode(errors="replace")
    except ValueError:
        return f"({name})"


def _record_id(directory: Path) -> str:
    return hashlib.sha256(directory.name.encode()).hexdigest()[:32]


def _remove(directory: Path) -> int:
    size = trees.tree_size(directory)
    trees.remove_tree(directory)
    return size


def _make_cache(directory: Path, mount: RunMount, seed: Path | None) -> None:
    if directory.exists():
        return
    fresh = directory.with_name(f"{directory.name}{_NEW}")
    trees.remove_tree(fresh)
    fresh.mkdir(mode=0o700)
    if seed is not None:
        source, target = trees.open_directory(seed), trees.open_directory(fresh)
        try:
            trees.copy_tree(source, target)
        finally:
            os.close(source)
            os.close(target)
    os.chown(fresh, mount.uid, mount.gid)
    fresh.chmod(0o755 if mount.mode is None else mount.mode)
    fresh.rename(directory)
