"""A client's build context as a list of files and one file, the pack, that has the content of all of them.

    pack     | bytes of a | first bytes of d/b | bytes of c | rest of d/b | ...            append-only
    nodes    path --> Node: the entry with its extents in the pack, the SHA-256 of the content

20,000 files are received with a few hundred writes, hashed on receipt, and read by COPY in the order of the pack; they
become files only if the context is mounted (`directory`). Unchanged files keep their extents and digests from the last
build.

`intake` fills and updates trees. A tree changes only when an update is finished: an interrupted one leaves unreferenced
bytes in the pack. Blocking. A pack has one update at a time, during which its tree has no readers; forks of the tree
may have some. Several threads may read a tree and call `directory`.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from havre.builds.trees import PIECE, Item
from havre.dockerfile.ignore import IgnoreRules
from havre.errors import InvalidInput, NotFound
from havre.linux import trees
from havre.linux.openat2 import resolve
from havre.tar.reader import Data, Entry, Extent
from havre.tar.tree import TreeWriter

_WINDOW = 256 << 10  # bytes of a read
_WASTE = 64 << 20  # unreferenced bytes, beyond as many as are referenced, before the pack is rewritten


class Node(NamedTuple):
    """A file of a context: its entry (never a hardlink), the digest of its content, `inode` if it has hard links."""

    entry: Entry
    digest: bytes = b""
    inode: bytes | None = None


class Pack:
    """An unnamed file on disk, deleted when all users have closed it.

    Extents are `Extent(start in the file, length, offset in the pack)`. One user appends at a time; flushed bytes may
    be read concurrently.
    """

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115
        self._waiting: list[bytes | memoryview] = []
        self._written = self._size = 0
        self._window = (0, b"")  # read-ahead buffer: its offset, and its bytes
        self._users = 1
        self._counting = threading.Lock()

    def share(self) -> Pack:
        """Add a user of the pack."""
        with self._counting:
            self._users += 1
        return self

    @property
    def size(self) -> int:
        """The bytes appended."""
        return self._size

    def append(self, data: bytes | memoryview) -> int:
        """Append bytes, which must not change afterwards. Returns their offset; readable after `flush`."""
        offset = self._size
        self._waiting.append(data)
        self._size += len(data)
        if self._size - self._written >= PIECE:
            self.flush()
        return offset

    def flush(self) -> None:
        """Write buffered bytes."""
        view = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        while view:
            done = self._file.write(view)
            self._written, view = self._written + done, view[done:]

    def pieces(self, extents: Sequence[Extent], size: int) -> Iterator[bytes]:
        """The content of a file, holes as zeros."""
        at = 0
        for extent in extents:
            yield from _zeros(extent.start - at)
            done = 0
            while done < extent.length:
                piece = self._read(extent.offset + done, min(PIECE, extent.length - done))
                yield piece
                done += len(piece)
            at = extent.start + extent.length
        yield from _zeros(size - at)

    def _read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes. Reads ahead if reads are sequential: most files are copied in order of arrival."""
        begin, window = self._window  # replaced atomically: several threads may read
        at = offset - begin
        if 0 <= at <= len(window) - length:
            return window[at : at + length]
        goes_on = 0 <= at <= len(window)
        found = os.pread(self._file.fileno(), max(length, _WINDOW) if goes_on else length, offset)
        if not found:
            raise OSError(errno.EIO, "the pack of a build context is truncated")
        self._window = (offset, found) if len(found) <= _WINDOW else (offset + len(found), b"")
        return found[:length]

    def close(self) -> None:
        """Remove a user; the last one deletes the file."""
        with self._counting:
            self._users -= 1
            if not self._users:
                self._file.close()


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, PIECE))
        count -= PIECE


class _Files:
    """The files of a tree at one time; immutable."""

    def __init__(self, nodes: dict[bytes, Node]) -> None:
        self.nodes = nodes

    @cached_property
    def names(self) -> dict[bytes, list[bytes]]:
        """The sorted names in each directory. Threads may compute it concurrently, with the same result."""
        below: dict[bytes, list[bytes]] = {}
        for each in sorted(self.nodes):
            above, _, name = each.rpartition(b"/")
            below.setdefault(above, []).append(name)
        return below

    def without(self, rules: IgnoreRules) -> dict[bytes, Node]:
        """The files that the rules do not ignore, and their parent directories."""
        ignored = {path for path in self.nodes if rules.ignores(os.fsdecode(path))}
        needed: set[bytes] = set()
        for path in self.nodes.keys() - ignored:
            while path := path.rpartition(b"/")[0]:
                needed.add(path)
        return {path: node for path, node in self.nodes.items() if path not in ignored or path in needed}


class PackedTree:
    """A context (`trees.Tree`). `directory` is created below `scratch` on first use.

    Takes ownership of `pack`; without one, creates its own.
    """

    identity = None  # digests of single files are known; caching those of whole trees would not pay

    def __init__(self, scratch: Path, pack: Pack | None = None) -> None:
        self._scratch = scratch
        self._pack = pack or Pack(scratch)
        self._files = _Files({})
        self._parts: list[PackedTree] = []
        self._directory: Path | None = None
        self._unpacking = threading.Lock()
        self._closed = False
        self.created_at = time.time()

    @property
    def count(self) -> int:
        """The number of files."""
        return len(self._files.nodes)

    def close(self) -> None:
        """Release the pack and the directory. Idempotent."""
        if not self._closed:
            self._closed = True
            self._pack.close()
            self._forget()

    def fork(self) -> PackedTree:
        """A tree with the same files and the same pack that changes independently. Must be closed."""
        return self._on_same_pack(self._files)

    def having(self, nodes: dict[bytes, Node]) -> PackedTree:
        """A tree of other files on the same pack. Must be closed."""
        return self._on_same_pack(_Files(nodes))

    def without(self, rules: IgnoreRules) -> PackedTree:
        """The tree of the files not ignored, on the same pack; closed when this tree changes or is closed."""
        part = self.having(self._files.without(rules))
        self._parts.append(part)
        return part

    def _on_same_pack(self, files: _Files) -> PackedTree:
        other = PackedTree(self._scratch, self._pack.share())
        other._files, other.created_at = files, self.created_at
        return other

    # -- as a Tree

    def locate(self, path: str) -> tuple[str, bool] | None:
        """See `Tree`."""
        try:
            resolved = resolve(path, self._read_link).strip("/")
        except OSError:
            return None
        if not resolved:
            return "", True
        node = self._files.nodes.get(os.fsencode(resolved))
        return None if node is None else (resolved, node.entry.kind == "dir")

    def _read_link(self, path: str) -> str:
        node = self._files.nodes.get(os.fsencode(path))
        if node is None or node.entry.kind != "symlink":
            raise OSError(errno.EINVAL, "not a link", path)
        return os.fsdecode(node.entry.link)

    def names(self, path: str) -> list[str]:
        """See `Tree`."""
        return [os.fsdecode(name) for name in self._files.names.get(os.fsencode(path), [])]

    def item(self, path: str) -> Item:
        """See `Tree`."""
        if not path:
            return Item("", "", Entry(b"", "dir", 0o755, 0, 0, 0, 0))
        node = self._files.nodes[os.fsencode(path)]
        return Item(path, "", node.entry, node.inode)

    def walk(self, path: str) -> Iterator[Item]:
        """See `Tree`."""
        files = self._files  # a snapshot: the tree may change meanwhile
        top = os.fsencode(path)
        cut = len(path) + 1 if path else 0
        waiting = [join(top, name) for name in reversed(files.names.get(top, []))]
        while waiting:
            here = waiting.pop()
            node = files.nodes[here]
            if node.entry.kind == "dir":
                waiting += [here + b"/" + name for name in reversed(files.names.get(here, []))]
            text = os.fsdecode(here)
            yield Item(text, text[cut:], node.entry, node.inode)

    def digest(self, path: str) -> bytes:
        """See `Tree`."""
        return self._files.nodes[os.fsencode(path)].digest

    def pieces(self, path: str) -> Iterator[bytes]:
        """See `Tree`."""
        entry = self._files.nodes[os.fsencode(path)].entry
        return self._pack.pieces(entry.extents, entry.size)

    def directory(self) -> Path:
        """See `Tree`. Removed when the tree changes or is closed; concurrent callers wait while it is created."""
        with self._unpacking:
            if self._directory is None:
                self._directory = self._unpack()
            return self._directory

    def _unpack(self) -> Path:
        made = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            with closing(_Unpacking(trees.open_directory(made))) as writer:
                for item in self.walk(""):
                    writer.put(item, self.pieces(item.path) if item.entry.kind == "file" else ())
                writer.finish()
        except BaseException:
            trees.remove_tree(made)
            raise
        return made

    def read(self, path: str, limit: int) -> bytes:
        """A file's content, links resolved. Raises `NotFound`, and `InvalidInput` above `limit` bytes."""
        found = self.locate(path)
        if found is None:
            raise NotFound(f"failed to read {path}: no such file or directory")
        if not found[0] or (node := self._files.nodes[os.fsencode(found[0])]).entry.kind != "file":
            raise NotFound(f"failed to read {path}: not a regular file")
        if node.entry.size > limit:
            raise InvalidInput(f"{path} is larger than {limit} bytes")
        return b"".join(self.pieces(found[0]))

    def _forget(self) -> None:
        """Close and remove what was derived from the previous files."""
        while self._parts:
            self._parts.pop().close()
        with self._unpacking:
            if self._directory is not None:
                trees.remove_tree(self._directory)
                self._directory = None

    # -- for updates

    def node(self, path: bytes) -> Node | None:
        """The node of a path, or None."""
        return self._files.nodes.get(path)

    @property
    def pack(self) -> Pack:
        """The pack with the files' content."""
        return self._pack

    def become(self, nodes: dict[bytes, Node]) -> None:
        """Replace the files; extents of `nodes` are in the pack."""
        self._pack.flush()
        self._forget()
        self._files = _Files(nodes)
        used = sum(node.entry.size for node in nodes.values())
        if self._pack.size > 2 * used + _WASTE:
            self._rewrite()

    def _rewrite(self) -> None:
        """Move referenced bytes to a new pack."""
        pack, moved = Pack(self._scratch), {}
        for path, node in self._files.nodes.items():
            if node.entry.extents:
                at = pack.size
                for piece in self._pack.pieces(node.entry.extents, node.entry.size):
                    pack.append(piece)
                extents = (Extent(0, node.entry.size, at),)
                node = node._replace(entry=node.entry._replace(extents=extents))
            moved[path] = node
        pack.flush()
        self._pack.close()
        self._pack, self._files = pack, _Files(moved)


class _Unpacking(TreeWriter):
    """Extracts a tree into a directory."""

    def __init__(self, root: int) -> None:
        super().__init__(root, "build context")
        self._first: dict[object, bytes] = {}

    def put(self, item: Item, content: Iterator[bytes] | tuple[()]) -> None:
        """Write one item with its content."""
        entry = item.entry
        if item.inode is not None and item.inode in self._first:
            entry = entry._replace(kind="hardlink", link=self._first[item.inode], extents=())
        elif item.inode is not None:
            self._first[item.inode] = entry.path
        if entry.kind == "file":
            # The content is written as one extent, independent of the extents in the pack.
            entry = entry._replace(extents=(Extent(0, entry.size, 0),) if entry.size else ())
        self.add(entry)
        at = 0
        for piece in content if entry.kind == "file" else ():
            self.data(Data(at, memoryview(piece)))
            at += len(piece)


def join(directory: bytes, name: bytes) -> bytes:
    """The path of a name in a directory, which is `b""` for the root."""
    return directory + b"/" + name if directory else name
