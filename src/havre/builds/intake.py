"""Fills and updates packed build contexts from what a client sends, hashing on receipt.

    PackUpdate   the list of files of a client that syncs:           want(entry)? --> write, seal;  finish
    TarIntake    a tar, compressed or not, in pieces:                write(chunk);  seal

All input is hostile. The tree changes at `finish` and at the tar's `seal`, or not at all. Blocking.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import closing

from havre.builds import copying
from havre.builds.packed import Node, Pack, PackedTree, join
from havre.errors import InvalidInput
from havre.linux.openat2 import resolve
from havre.tar.compress import Decompressor
from havre.tar.reader import MAX_NAME, MAX_PATH, Entry, Extent, TarParser

MAX_OPEN = 64  # files that a client may send concurrently; buildx sends 4
MAX_FILES = 2_000_000
_EMPTY = hashlib.sha256().digest()


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
            here = join(here, os.fsencode(part))
            node = self._nodes.get(here)
            if node is None:
                self._nodes[here] = Node(Entry(here, "dir", 0o755, 0, 0, int(time.time()), 0))
            elif node.entry.kind != "dir":
                raise InvalidInput(f"archive has members below {above!r}, which is not a directory")
        return join(here, name)

    def _link_target(self, path: str) -> str:
        node = self._nodes.get(os.fsencode(path))
        if node is None or node.entry.kind != "symlink":
            raise OSError(errno.EINVAL, "not a link", path)
        return os.fsdecode(node.entry.link)
