"""Results of builds as files: mounts their layers, to read them by file or as a tar.

Source: docker/buildx, "local and tar exporters".
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from havre.aio import in_thread, owned
from havre.linux import trees
from havre.linux.openat2 import open_regular_in_root
from havre.oci.digest import Digest
from havre.storage import Storage
from havre.storage.pipe import stream_from
from havre.tar.writer import TarWriter

_PIECE = 256 << 10


@dataclass(frozen=True)
class OutputFile:
    """A file of a tree. `link` is a symlink's target, or for a hard link the earlier path of the same inode."""

    path: str
    status: os.stat_result
    link: str = ""


class OutputTree:
    """Mounted trees combined into one: each in the directory that is its key in `roots`; "" for a single tree."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = roots

    def files(self) -> Generator[OutputFile, None, None]:
        """All files except sockets, by name, a directory before its content. Blocking; the generator must be closed."""
        first: dict[tuple[int, int], str] = {}
        for entry in self._entries():
            link = ""
            if stat.S_ISLNK(entry.stat.st_mode):
                link = os.readlink(entry.name, dir_fd=entry.parent)
            elif stat.S_ISREG(entry.stat.st_mode) and entry.stat.st_nlink > 1:
                inode = (entry.stat.st_dev, entry.stat.st_ino)
                link = first.get(inode, "")
                first.setdefault(inode, entry.path)
            yield OutputFile(entry.path, entry.stat, link)

    async def read(self, path: str) -> AsyncIterator[bytes]:
        """The content of the regular file at `path`, in pieces."""
        folder, _, inside = ("", "", path) if "" in self._roots else path.partition("/")
        opened = await owned(_close, open_regular_in_root, self._roots[folder], inside, follow=False)
        assert opened is not None, "asked for the regular files of `files` alone, in a tree that does not change"
        with io.FileIO(opened) as file:
            while piece := await in_thread(file.read, _PIECE):
                yield piece

    def tar(self) -> AsyncGenerator[bytes, None]:
        """The tree as a tar; must be closed if not consumed."""
        return stream_from(self._write_tar)

    def _write_tar(self, out: BinaryIO) -> None:
        tar = TarWriter(out)
        for entry in self._entries():
            tar.add(os.fsencode(entry.path), entry.stat, entry.parent, entry.name)
        tar.finish()

    def _entries(self) -> Iterator[trees.Entry]:
        for folder, root in sorted(self._roots.items()):
            directory = trees.open_directory(root)
            try:
                if folder:
                    yield trees.Entry(folder, ".", directory, os.fstat(directory))
                for entry in trees.walk(directory):
                    if not stat.S_ISSOCK(entry.stat.st_mode):
                        yield replace(entry, path=f"{folder}/{entry.path}") if folder else entry
            finally:
                os.close(directory)


class Outputs:
    """Mounts the layers of results."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @asynccontextmanager
    async def mounted(self, parts: Mapping[str, Sequence[Digest]]) -> AsyncIterator[OutputTree]:
        """Mount the values of `parts` (layers, base first) for the block, each in the directory that its key names."""
        async with AsyncExitStack() as stack:
            mounted = [await stack.enter_async_context(self._storage.mounted(layers)) for layers in parts.values()]
            yield OutputTree(dict(zip(parts, mounted, strict=True)))


def _close(opened: int | None) -> None:
    if opened is not None:
        os.close(opened)
