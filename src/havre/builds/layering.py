"""Plans the layer of COPY, ADD or WORKDIR over the files below it, and writes it without a snapshot.

    files below (read-only), members --LayerPlan--> entries in order --write--> tar --> Layers

The layer equals the upper directory of an overlay after the same copy: the members, and their parent directories, as
they are below or, if missing, created for `owner`. Parent directories keep their times, so the same members on the same
files always give the same layer. Below a directory that is new in the layer, existing files are not looked up.

Hard links are resolved when all members are placed, in the order of the tar: of the names that nothing has replaced,
the first is the file and the others are links.

Source: OCI image specification "layer.md".
"""

from __future__ import annotations

import os
import posixpath
import stat
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from havre.builds.copying import Chosen, Member, Placement, members
from havre.builds.trees import DirectoryTree, entry_of
from havre.errors import InvalidInput
from havre.linux import trees
from havre.linux.openat2 import openat_in_root, resolve_in_root
from havre.storage.making import LayerOut
from havre.storage.whiteouts import PREFIX
from havre.tar.extract import Extractor
from havre.tar.reader import Entry
from havre.tar.writer import TarWriter


class _Planned(NamedTuple):
    entry: Entry
    content: Callable[[], Iterable[bytes]] | None = None
    inode: Hashable | None = None


class LayerPlan:
    """The layer over the files at `root`; parent directories that are created belong to `owner`."""

    def __init__(self, root: Path, owner: tuple[int, int] = (0, 0)) -> None:
        self._root = trees.open_directory(root)
        self._owner = owner
        self._planned: dict[bytes, _Planned] = {}
        self._fresh: set[bytes] = set()  # directories that have no files below the layer
        self._entered: set[bytes] = {b""}

    def close(self) -> None:
        """Close the files below. Idempotent."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def add(self, member: Member) -> None:
        """Add a member. Raises `InvalidInput` if it conflicts with a file of another type."""
        entry = member.entry
        content = partial(member.tree.pieces, member.path) if entry.kind == "file" and entry.size else None
        self._put(_Planned(entry, content, member.inode))

    def add_file(self, entry: Entry, content: bytes) -> None:
        """Add a file."""
        self._put(_Planned(entry, lambda: (content,)))

    def make_directory(self, path: str) -> None:
        """Add the directory `path` unless it exists below."""
        place = os.fsencode(path.strip("/"))
        status = self._status(place)
        if status is None or not stat.S_ISDIR(status.st_mode):
            self._enter(place)

    def write(self, out: LayerOut, newest_s: int | None = None) -> None:
        """Write the layer's tar, with times capped at `newest_s`. Writes nothing if the layer is empty."""
        if not self._planned:
            return
        tar = TarWriter(out, newest_s)  # type: ignore[arg-type]  # `put` only calls `out.write`
        for entry, content, _ in self._linked():
            out.member(tar.put(entry, () if content is None else content()))
        tar.finish()

    def write_into(self, root: Path) -> None:
        """Apply the layer to the files at `root`, a writable copy of those below it."""
        extractor = Extractor(trees.open_directory(root), "", None, no_overwrite=True)
        try:
            self.write(_Extracting(extractor))
            if self._planned:
                extractor.seal()
        finally:
            extractor.close()

    def _linked(self) -> Iterator[_Planned]:
        """All members in the order of the tar, hard links as links to the file's first name."""
        first: dict[Hashable, bytes] = {}
        for path in sorted(self._planned, key=_in_walking_order):
            planned = self._planned[path]
            if planned.inode is not None and (file := first.setdefault(planned.inode, path)) != path:
                planned = _Planned(planned.entry._replace(kind="hardlink", size=0, link=file))
            yield planned

    def _put(self, planned: _Planned) -> None:
        path, kind = planned.entry.path, planned.entry.kind
        above, _, name = path.rpartition(b"/")
        if name.startswith(PREFIX):
            raise InvalidInput(f"{os.fsdecode(path)!r} cannot be copied: names beginning with .wh. mean deletions")
        self._enter(above)
        there = self._kind_at(path, above)
        if kind == "dir":
            if there not in ("", "dir"):
                raise InvalidInput(f"cannot copy to non-directory: {os.fsdecode(path)!r}")
            if not there:
                self._fresh.add(path)
            self._entered.add(path)
        elif there == "dir":
            raise InvalidInput(f"cannot replace the directory {os.fsdecode(path)!r} with a file")
        self._planned[path] = planned

    def _kind_at(self, path: bytes, above: bytes) -> str:
        """The type of the file at `path` in the layer or below it; "" if there is none."""
        if (planned := self._planned.get(path)) is not None:
            return planned.entry.kind
        if above in self._fresh or (status := self._status(path)) is None:
            return ""
        return "dir" if stat.S_ISDIR(status.st_mode) else "file"

    def _enter(self, directory: bytes) -> None:
        """Add the parent directory of a member, and those above it, to the layer."""
        if directory in self._entered:
            return
        above, _, name = directory.rpartition(b"/")
        self._enter(above)
        kind = self._kind_at(directory, above)
        if kind not in ("", "dir"):
            raise InvalidInput(f"cannot copy to non-directory: {os.fsdecode(directory)!r}")
        if kind:
            entry = self._entry_below(directory, above, name)
        else:
            self._fresh.add(directory)
            entry = Entry(directory, "dir", 0o755, *self._owner, int(time.time()), 0)
        self._entered.add(directory)
        self._planned[directory] = _Planned(entry)

    def _entry_below(self, path: bytes, above: bytes, name: bytes) -> Entry:
        parent = openat_in_root(self._root, above, os.O_RDONLY | os.O_DIRECTORY)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            return entry_of(status, parent, os.fsdecode(name))._replace(path=path)
        finally:
            os.close(parent)

    def _status(self, path: bytes) -> os.stat_result | None:
        if not path:
            return os.fstat(self._root)
        try:
            descriptor = openat_in_root(self._root, path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)


class _Extracting:
    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    def write(self, data: bytes) -> int:
        self._extractor.write(data)
        return len(data)

    def member(self, entry: Entry) -> None:
        """Ignored: the extractor parses the tar itself."""


def _in_walking_order(path: bytes) -> bytes:
    return path.replace(b"/", b"\0")


def resolve_target(root: Path, placement: Placement, *, many: bool) -> tuple[str, bool, bool]:
    """Resolve the target in `root`: the path, whether it is a directory to copy into, and whether it exists."""
    try:
        resolved = resolve_in_root(root, placement.target)
    except OSError as error:
        raise InvalidInput(f'cannot copy to "{placement.target}": {error.strerror}') from error
    found = DirectoryTree(root).locate(resolved)
    into = placement.into or (found is not None and found[1])
    if many and not into:
        raise InvalidInput(
            "When using COPY with more than one source file, the destination must be a directory and end with a /"
        )
    return resolved, into, found is not None


def plan_layer(
    root: Path, chosen: Sequence[Chosen], inline: Sequence[tuple[str, bytes]], placement: Placement
) -> LayerPlan:
    """The layer of copying the sources, and `inline` files (name, content). Must be closed."""
    many = len(chosen) + len(inline) > 1
    all_directories = all(each.is_directory for each in chosen)
    target, into, exists = resolve_target(root, placement, many=many and not all_directories)
    plan = LayerPlan(root, placement.owner or (0, 0))
    try:
        if into:
            plan.make_directory(target)
        for member in members(chosen, target, placement, many=into):
            at_target = member.entry.kind == "dir" and member.entry.path == os.fsencode(target.strip("/"))
            if member.entry.path and not (at_target and (exists or into)):
                plan.add(member)
        for name, content in inline:
            place = posixpath.join(target, name) if into else target
            plan.add_file(_inline_entry(place, content, placement), content)
    except BaseException:
        plan.close()
        raise
    return plan


def _inline_entry(place: str, content: bytes, placement: Placement) -> Entry:
    uid, gid = placement.owner or (0, 0)
    mode = 0o644 if placement.mode is None else placement.mode.of(0o644)
    path = os.fsencode(place.strip("/"))
    return Entry(path, "file", mode, uid, gid, int(time.time()), 0, size=len(content))
