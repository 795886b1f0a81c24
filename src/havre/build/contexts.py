"""Directories that hold clients' build contexts, kept between builds so that only what changed is sent again.

    borrow("app:1f3a") --> the directory of the last build of that name, if none uses it now; else an empty one
    TreeUpdate(directory): want(entry) for each file of the client's list --> is its content needed?
                           write, seal for the contents; finish() removes what the list did not name

A file is taken to be unchanged if its kind, size, owner, mode and modification time are: what is on the disk is the
record, there is no other. The time is set when all content has come, so what was cut off half-way is asked for again.

Nothing here survives the daemon: `Contexts.open` begins with an empty directory.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from havre.aio import in_thread, spawn
from havre.errors import Failed, InvalidInput, NotFound
from havre.linux import trees
from havre.linux.openat2 import open_in_root
from havre.storage.extract import Extractor
from havre.storage.tar import MAX_NAME, MAX_PATH, Entry
from havre.storage.treewriter import TreeWriter, describe, nanoseconds

T = TypeVar("T")

KEPT = 8  # contexts, besides those in use
MAX_OPEN = 64  # files that a client may send at the same time; buildx sends 4
MAX_FILES = 2_000_000
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Contexts:
    """The directories below `root`; `borrow` one for as long as a build needs it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._idle: OrderedDict[str, Path] = OrderedDict()  # the one used last comes last

    async def open(self) -> None:
        """Make the directory anew; what an earlier daemon left in it is removed in the background."""
        spawn(in_thread(trees.remove_tree, await in_thread(self._set_aside)), "remove old build contexts")

    def _set_aside(self) -> Path:
        stale = self._root.with_name(f"{self._root.name}.stale")
        stale.mkdir(mode=0o700, exist_ok=True)
        if self._root.exists():
            self._root.rename(stale / secrets.token_hex(8))
        self._root.mkdir(mode=0o700)
        return stale

    @asynccontextmanager
    async def borrow(self, key: str = "") -> AsyncIterator[Path]:
        """A directory for one user at a time: the one last used with `key`, or a new one; without key it is removed."""
        directory = self._idle.pop(key) if key in self._idle else await in_thread(self._make)
        try:
            yield directory
        finally:
            if (unwanted := self._put_back(key, directory)) is not None:
                await in_thread(trees.remove_tree, unwanted)

    def _make(self) -> Path:
        try:
            return Path(tempfile.mkdtemp(dir=self._root))
        except OSError as error:
            raise Failed(f"cannot make a directory for a build context: {error.strerror or error}") from error

    def _put_back(self, key: str, directory: Path) -> Path | None:
        """Keep `directory`; returns the one that must go for it."""
        if not key:
            return directory
        replaced = self._idle.pop(key, None)
        self._idle[key] = directory
        if replaced is None and len(self._idle) > KEPT:
            _, replaced = self._idle.popitem(last=False)
        return replaced

    async def drop(self) -> None:
        """Remove all that no build uses."""
        while self._idle:
            _, directory = self._idle.popitem()
            await in_thread(trees.remove_tree, directory)


async def to_its_end(work: Callable[[], T]) -> T:
    """Run blocking `work` in a thread; cancelled, wait for it all the same: its directory must not go before it."""
    running = asyncio.ensure_future(in_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def open_intake(directory: Path) -> Extractor:
    """A writer that unpacks a tar, compressed or not, into the empty `directory`."""
    return Extractor(trees.open_directory(directory), "", None, no_overwrite=False)


def read_file(root: Path, path: str, limit: int) -> bytes:
    """The file at `path`, links followed inside `root`; `NotFound` without one, `InvalidInput` beyond `limit` bytes."""
    try:
        descriptor = open_in_root(root, path)
    except OSError:
        raise NotFound(f"failed to read {path}: no such file or directory") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(f"failed to read {path}: not a regular file")
        if status.st_size > limit:
            raise InvalidInput(f"{path} is larger than {limit} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


class TreeUpdate(TreeWriter):
    """Makes the directory `root` say what a client's list of files says. Every directory is listed before its content.

    Blocking; `finish`, then `close`. Raises `InvalidInput` for what no list may say, `OSError` for the disk.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(trees.open_directory(root), "the build context")
        self._listed: set[bytes] = set()
        self._directories: set[bytes] = {b""}
        self._links: list[Entry] = []
        self._open: dict[bytes, int] = {}

    def want(self, entry: Entry) -> bool:
        """Take note of `entry`; true if its content is to be written, with `write` and `seal`."""
        self._check(entry)
        self._listed.add(entry.path)
        if entry.kind == "dir":
            self._directories.add(entry.path)
        elif entry.kind == "hardlink":
            self._links.append(entry)  # what it names may yet have to come
            return False
        elif self._is_unchanged(entry):
            return False
        elif entry.kind == "file" and entry.size:
            return True
        self.add(entry)
        return False

    def write(self, entry: Entry, data: bytes) -> None:
        """Append to the content of a file that was wanted."""
        view = memoryview(data)
        descriptor = self._open.get(entry.path)
        if descriptor is None:
            descriptor = self._create(entry)
        while view:
            view = view[os.write(descriptor, view) :]

    def seal(self, entry: Entry) -> None:
        """All content of the file has come."""
        if entry.path not in self._open:
            self._create(entry)
        descriptor = self._open.pop(entry.path)
        try:
            describe(descriptor, entry)
            os.utime(descriptor, ns=(nanoseconds(entry), nanoseconds(entry)))
        finally:
            os.close(descriptor)

    def finish(self) -> None:
        """Make the hard links, remove what was not listed, set the directories' times."""
        for entry in self._links:
            self.add(entry)
        for found in trees.walk(self._root):
            if os.fsencode(found.path) not in self._listed:
                self._remove(found.parent, os.fsencode(found.name))
        super().finish()

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        super().close()

    def _check(self, entry: Entry) -> None:
        parts = entry.path.split(b"/")
        if any(part in (b"", b".", b"..") or len(part) > MAX_NAME for part in parts) or b"\0" in entry.path:
            raise InvalidInput(f"the build context has a file named {entry.path[:MAX_NAME]!r}")
        if len(entry.path) > MAX_PATH or len(entry.link) > MAX_PATH or b"\0" in entry.link:
            raise InvalidInput(f"the build context has a name that is too long: {entry.path[:MAX_NAME]!r}")
        if entry.path in self._listed:
            raise InvalidInput(f"the build context lists {entry.path!r} twice")
        if entry.path.rpartition(b"/")[0] not in self._directories:
            raise InvalidInput(f"the build context lists {entry.path!r} before its directory")
        if entry.kind == "hardlink" and entry.link not in self._listed:
            raise InvalidInput(f"the build context links {entry.path!r} to {entry.link!r}, which it does not list")
        if len(self._listed) == MAX_FILES:
            raise InvalidInput(f"the build context has more than {MAX_FILES} files", "add a .dockerignore")

    def _is_unchanged(self, entry: Entry) -> bool:
        directory, _, name = entry.path.rpartition(b"/")
        if entry.kind != "file" or entry.xattrs:
            return False
        try:
            there = os.stat(name, dir_fd=self._parent(directory), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (
            stat.S_ISREG(there.st_mode)
            and there.st_nlink == 1
            and (there.st_size, there.st_mtime_ns) == (entry.size, nanoseconds(entry))
            and (stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid) == (entry.mode, entry.uid, entry.gid)
        )

    def _create(self, entry: Entry) -> int:
        if len(self._open) == MAX_OPEN:
            raise InvalidInput(f"the client sends more than {MAX_OPEN} files at the same time")
        self._begin_entry()
        directory, _, name = entry.path.rpartition(b"/")
        parent = self._parent(directory)
        self._remove(parent, name)
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
        self._open[entry.path] = descriptor
        return descriptor
