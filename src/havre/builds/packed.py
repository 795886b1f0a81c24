"""A client's build context as a list of files and one file, the pack, that has the content of all of them.

    pack     | bytes of a | first bytes of d/b | bytes of c | rest of d/b | ...            append-only
    nodes    path --> Node: the entry with its extents in the pack, the SHA-256 of the content

20,000 files are received with a few hundred writes, hashed on receipt, and read by COPY in the order of the pack; they
become files only if the context is mounted (`directory`). Unchanged files keep their extents and digests from the last
build.

    PackUpdate   the list of files of a client that syncs:           want(entry)? --> write, seal;  finish
    TarIntake    a tar, compressed or not, in pieces:                write(chunk);  seal

All input is hostile. A tree changes only when an update is finished: an interrupted one leaves unreferenced bytes in
the pack. Blocking. A pack has one update at a time, during which its tree has no readers; forks of the tree may have
some. Several threads may read a tree and call `directory`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from havre.builds import copying
from havre.builds.trees import PIECE, Item
from havre.dockerfile.ignore import IgnoreRules
from havre.errors import InvalidInput, NotFound
from havre.linux import trees
from havre.linux.openat2 import resolve
from havre.tar.compress import Decompressor
from havre.tar.reader import MAX_NAME, MAX_PATH, Data, Entry, Extent, TarParser
from havre.tar.tree import TreeWriter

MAX_OPEN = 64  # files that a client may send concurrently; buildx sends 4
MAX_FILES = 2_000_000
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
        waiting = [_join(top, name) for name in reversed(files.names.get(top, []))]
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


class _Arriving:
    """A file whose content is being received."""

    __slots__ = ("digest", "extents", "size")

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.extents: list[Extent] = []
        self.size = 0

    def add(self, pack: Pack, data: bytes | memoryview) -> None:
        """Append received bytes."""
        self.digest.update(data)
        offset = pack.append(data)
        last = self.extents[-1] if self.extents else None
        if last is not None and last.offset + last.length == offset:
            self.extents[-1] = Extent(last.start, last.length + len(data), last.offset)
        else:
            self.extents.append(Extent(self.size, len(data), offset))
        self.size += len(data)

    def node(self, entry: Entry) -> Node:
        """The node of the file, with the size received."""
        entry = entry._replace(size=self.size, extents=tuple(self.extents))
        return Node(entry, self.digest.digest())


_EMPTY = hashlib.sha256().digest()


class PackUpdate:
    """Updates `tree` to a client's list of files, in which every directory precedes its content.

    Raises `InvalidInput` for an invalid list, `OSError` for disk errors.
    """

    def __init__(self, tree: PackedTree) -> None:
        self._tree = tree
        self._nodes: dict[bytes, Node] = {}
        self._wanted: set[bytes] = set()
        self._arriving: dict[bytes, _Arriving] = {}
        self._links: list[Entry] = []

    def want(self, entry: Entry) -> bool:
        """Add `entry`. Returns whether its content must be sent, with `write` and `seal`."""
        self._check(entry)
        if entry.kind == "hardlink":
            self._links.append(entry)
        if entry.kind != "file":
            self._nodes[entry.path] = Node(entry)
            return False
        known = self._tree.node(entry.path)
        if known is not None and _looks_same(known.entry, entry):
            kept = entry._replace(extents=known.entry.extents)
            self._nodes[entry.path] = Node(kept, known.digest)
            return False
        self._nodes[entry.path] = Node(entry, _EMPTY)
        if entry.size:
            self._wanted.add(entry.path)
        return entry.size > 0

    def narrow(self, sources: Sequence[str]) -> set[bytes]:
        """After the list: give up requested content of files that are not among `sources` (patterns of COPY).

        They are not part of the tree unless their content arrives. Returns their paths.
        """
        with closing(self._tree.having(self._nodes)) as listed:
            needed = {os.fsencode(path) for path in copying.meant(listed, sources)}
        for entry in reversed(self._links):
            if entry.path in needed:
                needed.add(entry.link)
        unneeded = self._wanted - needed
        for entry in self._links:
            if entry.link in unneeded:
                unneeded.add(entry.path)
        self._wanted -= unneeded
        self._links = [entry for entry in self._links if entry.path not in unneeded]
        for path in unneeded:
            del self._nodes[path]
        return unneeded

    def write(self, entry: Entry, data: bytes | memoryview) -> None:
        """Append to the content of a requested file."""
        arriving = self._arriving.get(entry.path)
        if arriving is None:
            if len(self._arriving) == MAX_OPEN:
                raise InvalidInput(f"the client sends more than {MAX_OPEN} files at the same time")
            arriving = self._arriving[entry.path] = _Arriving()
        arriving.add(self._tree.pack, data)

    def seal(self, entry: Entry) -> None:
        """End of the file's content."""
        self._nodes[entry.path] = self._arriving.pop(entry.path, _Arriving()).node(entry)
        self._wanted.discard(entry.path)

    def finish(self) -> None:
        """End of the list and of all content: apply the update. Raises `InvalidInput` if content is missing."""
        for path in self._wanted:
            raise InvalidInput(f"the client did not send the content of {path!r}")
        for entry in self._links:
            first = self._nodes[entry.link]
            shared = first._replace(inode=first.inode or entry.link)
            self._nodes[entry.link] = shared
            own = shared.entry._replace(path=entry.path)
            self._nodes[entry.path] = shared._replace(entry=own)
        self._tree.become(self._nodes)

    def close(self) -> None:
        """Holds nothing; does nothing."""

    def _check(self, entry: Entry) -> None:
        parts = entry.path.split(b"/")
        if any(part in (b"", b".", b"..") or len(part) > MAX_NAME for part in parts) or b"\0" in entry.path:
            raise InvalidInput(f"the build context has a file named {entry.path[:MAX_NAME]!r}")
        if len(entry.path) > MAX_PATH or len(entry.link) > MAX_PATH or b"\0" in entry.link:
            raise InvalidInput(f"the build context has a name that is too long: {entry.path[:MAX_NAME]!r}")
        if entry.path in self._nodes:
            raise InvalidInput(f"the build context lists {entry.path!r} twice")
        above = entry.path.rpartition(b"/")[0]
        if above and ((parent := self._nodes.get(above)) is None or parent.entry.kind != "dir"):
            raise InvalidInput(f"the build context lists {entry.path!r} before its directory")
        if entry.kind == "hardlink" and ((target := self._nodes.get(entry.link)) is None or target.entry.kind == "dir"):
            raise InvalidInput(f"the build context links {entry.path!r} to {entry.link!r}, which it does not list")
        if len(self._nodes) == MAX_FILES:
            raise InvalidInput(f"the build context has more than {MAX_FILES} files", "add a .dockerignore")


def _looks_same(known: Entry, entry: Entry) -> bool:
    return known.kind == "file" and (known.size, known.mtime_s, known.mtime_ns) == (
        entry.size,
        entry.mtime_s,
        entry.mtime_ns,
    )


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


class TarIntake:
    """Fills the empty `tree` from a tar, compressed or not; later members replace earlier ones."""

    def __init__(self, tree: PackedTree) -> None:
        self._tree = tree
        self._nodes: dict[bytes, Node] = {}
        self._decompressor = Decompressor()
        self._parser = TarParser(data=True, rooted=True)
        self._current: tuple[Entry, _Arriving] | None = None

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises `InvalidInput` for an invalid tar or an invalid context."""
        self._decompressor.feed(chunk)
        while piece := self._decompressor.read():
            self._consume(piece)

    def seal(self) -> None:
        """End of the tar. Raises `InvalidInput` if it is truncated."""
        self._consume(self._decompressor.finish())
        self._parser.finish()
        self._end_file()
        self._tree.become(self._nodes)

    def _consume(self, piece: bytes) -> None:
        for event in self._parser.feed(piece):
            if isinstance(event, Entry):
                self._end_file()
                self._add(event)
            elif self._current is not None:
                self._current[1].add(self._tree.pack, event.view)

    def _add(self, entry: Entry) -> None:
        if not entry.path:
            return
        place = self._place(entry.path)
        if place != entry.path:
            entry = entry._replace(path=place)
        if entry.kind == "hardlink":
            self._link(entry)
            return
        there = self._nodes.get(place)
        if there is not None and there.entry.kind == "dir" and entry.kind != "dir":
            inside = place + b"/"
            for path in [path for path in self._nodes if path.startswith(inside)]:
                del self._nodes[path]
        if len(self._nodes) == MAX_FILES:
            raise InvalidInput(f"the build context has more than {MAX_FILES} files", "add a .dockerignore")
        self._nodes[place] = Node(entry, _EMPTY if entry.kind == "file" else b"")
        if entry.kind == "file" and entry.size:
            self._current = (entry, _Arriving())

    def _end_file(self) -> None:
        """Add the current file, whose content is complete. Sparse files: its extents map the content to offsets."""
        if self._current is None:
            return
        (entry, arriving), self._current = self._current, None
        node = arriving.node(entry)
        if len(entry.extents) != 1 or entry.extents[0].length != entry.size:
            self._tree.pack.flush()
            first = node.entry.extents[0].offset if node.entry.extents else 0
            begin = entry.extents[0].offset if entry.extents else 0
            extents = tuple(Extent(e.start, e.length, e.offset - begin + first) for e in entry.extents)
            digest = hashlib.sha256()
            for piece in self._tree.pack.pieces(extents, entry.size):
                digest.update(piece)
            node = Node(entry._replace(extents=extents), digest.digest())
        self._nodes[entry.path] = node

    def _link(self, entry: Entry) -> None:
        source = self._place(entry.link)
        first = self._nodes.get(source)
        if first is None or first.entry.kind == "dir":
            raise InvalidInput(
                f"hard link {entry.path!r} names {entry.link!r}, which is no earlier file of its archive"
            )
        if source != entry.path:
            shared = first._replace(inode=first.inode or source)
            self._nodes[source] = shared
            own = shared.entry._replace(path=entry.path)
            self._nodes[entry.path] = shared._replace(entry=own)

    def _place(self, path: bytes) -> bytes:
        """The path of a member with links in its directory resolved; missing parent directories are created."""
        above, _, name = path.rpartition(b"/")
        if not above or ((node := self._nodes.get(above)) is not None and node.entry.kind == "dir"):
            return path
        try:
            resolved = resolve(os.fsdecode(above), self._link_target)
        except OSError as error:
            raise InvalidInput(f"archive has members below {above!r}, a loop of links") from error
        here = b""
        for part in filter(None, resolved.split("/")):
            here = _join(here, os.fsencode(part))
            node = self._nodes.get(here)
            if node is None:
                self._nodes[here] = Node(Entry(here, "dir", 0o755, 0, 0, int(time.time()), 0))
            elif node.entry.kind != "dir":
                raise InvalidInput(f"archive has members below {above!r}, which is not a directory")
        return _join(here, name)

    def _link_target(self, path: str) -> str:
        node = self._nodes.get(os.fsencode(path))
        if node is None or node.entry.kind != "symlink":
            raise OSError(errno.EINVAL, "not a link", path)
        return os.fsdecode(node.entry.link)
