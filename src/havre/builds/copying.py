"""COPY and ADD: selects sources in trees and places them in the target. Blocking.

    patterns --choose--> Chosen, ... --members--> Member, ... --+--> digest_of_members            (the cache key)
                                                                +--> layering.plan_layer, write   (the layer)

Both consumers use the same generator of members, so the key covers everything that is copied: path, kind, mode, owner,
link, extended attributes, content.

Source: the Dockerfile reference, "COPY", "ADD"; otherwise BuildKit's behaviour.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from havre.builds.modes import Mode
from havre.builds.trees import Item, Tree
from havre.dockerfile.ignore import IgnoreRules, PathPattern, has_wildcards
from havre.errors import InvalidInput, NotFound
from havre.linux import trees
from havre.tar.compress import Decompressor
from havre.tar.extract import Extractor
from havre.tar.headers import BLOCK
from havre.tar.reader import Entry, TarParser

_MAX_CHOSEN = 100_000


@dataclass(frozen=True)
class Chosen:
    """A source: `path` in `tree` (links resolved), `name` is its name in the target, `shown` the path that matched."""

    tree: Tree
    path: str
    name: str
    shown: str
    is_directory: bool


class Member(NamedTuple):
    """A file to copy: the entry to write, and the place of its content: `path` in `tree`.

    `entry.kind` is never hardlink: hard links to a file share `inode`, which is None for a file with a single name.
    """

    entry: Entry
    tree: Tree
    path: str
    inode: Hashable | None = None


@dataclass(frozen=True)
class Placement:
    """Target and options of a copy; an `owner` or `mode` of None keeps those of the sources."""

    target: str
    into: bool
    owner: tuple[int, int] | None = None
    mode: Mode | None = None
    parents: bool = False
    excludes: tuple[str, ...] = ()


def choose(tree: Tree, patterns: Sequence[str]) -> list[Chosen]:
    """The sources that match `patterns` in `tree`. Raises `NotFound` for a pattern without a match."""
    found: list[Chosen] = []
    for pattern in patterns:
        clean = posixpath.normpath("/" + pattern).lstrip("/")
        some = _match(tree, clean) if has_wildcards(clean) else _exact(tree, clean)
        if not some:
            raise NotFound(f'"/{clean}": not found')
        found += some
    return found


def meant(tree: Tree, sources: Sequence[str]) -> set[str]:
    """The paths of everything that a copy of `sources` reads; sources that do not exist are ignored."""
    found: set[str] = set()
    for source in sources:
        with suppress(NotFound):
            for each in choose(tree, [source]):
                found.add(each.path)
                if each.is_directory:
                    found.update(item.path for item in tree.walk(each.path))
    return found


def _exact(tree: Tree, path: str) -> list[Chosen]:
    if (located := tree.locate(path)) is None:
        return []
    return [Chosen(tree, located[0], posixpath.basename(path), path, located[1])]


def _match(tree: Tree, pattern: str) -> list[Chosen]:
    """Walk only directories in which something can match."""
    wanted = PathPattern(pattern)
    found: list[Chosen] = []
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        located = tree.locate(directory)
        if located is None or not located[1]:
            continue
        below = []
        for name in tree.names(located[0]):
            path = f"{directory}/{name}" if directory else name
            if wanted.matches(path):
                found += _exact(tree, path)
            elif wanted.may_cover_below(path):
                below.append(path)
            if len(found) > _MAX_CHOSEN:
                raise InvalidInput(f"{pattern!r} means more than {_MAX_CHOSEN} files")
        waiting += reversed(below)
    return found


# -- members


def members(chosen: Sequence[Chosen], target: str, placement: Placement, *, many: bool) -> Iterator[Member]:
    """Everything to write, in order; `target` is the resolved target, `many` if it must be a directory."""
    excluded = IgnoreRules(placement.excludes)
    for source in chosen:
        base = target
        if placement.parents:
            base = posixpath.join(target, source.shown if source.is_directory else posixpath.dirname(source.shown))
        if source.is_directory:
            for item in _items_below(source, placement, excluded):
                yield _placed(source.tree, item, posixpath.join(base, item.place), placement)
        elif not excluded.ignores(source.name):
            place = posixpath.join(base, source.name) if many or placement.parents else base
            item = source.tree.item(source.path)
            if item.entry.kind == "socket":
                raise InvalidInput(f'"/{source.shown}" is a socket and cannot be copied')
            yield _placed(source.tree, item, place, placement)


def _items_below(source: Chosen, placement: Placement, excluded: IgnoreRules) -> Iterator[Item]:
    """The directory itself, then everything below it except sockets and excluded files."""
    yield source.tree.item(source.path)
    skipped = "\0"
    for item in source.tree.walk(source.path):
        is_directory = item.entry.kind == "dir"
        if item.place.startswith(skipped):
            continue
        if placement.excludes and excluded.ignores(item.place):
            if is_directory and not excluded.may_take_back(item.place):
                skipped = item.place + "/"
            if not is_directory or not excluded.may_take_back(item.place):
                continue
        if item.entry.kind != "socket":
            yield item


def _placed(tree: Tree, item: Item, place: str, placement: Placement) -> Member:
    found = item.entry
    uid, gid = placement.owner or (found.uid, found.gid)
    entry = Entry(
        path=os.fsencode(place.strip("/")),
        kind=found.kind,
        mode=found.mode
        if placement.mode is None or found.kind == "symlink"
        else placement.mode.of(found.mode, is_directory=found.kind == "dir"),
        uid=uid,
        gid=gid,
        mtime_s=found.mtime_s,
        mtime_ns=found.mtime_ns,
        size=found.size if found.kind == "file" else 0,
        link=found.link,
        rdev=found.rdev,
        xattrs=found.xattrs,
    )
    return Member(entry, tree, item.path, None if item.inode is None else (tree, item.inode))


def digest_of_members(found: Iterator[Member]) -> str:
    """A digest of everything written except times, including all content.

    A hard link is identified by the number of the file's first name, because later sources may replace that path.
    """
    whole = hashlib.sha256()
    numbers: dict[Hashable, int] = {}
    for number, (entry, tree, path, inode) in enumerate(found):
        first = number if inode is None else numbers.setdefault(inode, number)
        xattrs = repr(sorted(entry.xattrs.items())) if entry.xattrs else ""
        facts = (entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.link, entry.rdev, xattrs)
        head = repr(facts if first == number else (*facts, first)).encode()
        whole.update(len(head).to_bytes(8, "big") + head)
        if entry.kind == "file" and first == number:
            whole.update(tree.digest(path))
    return whole.hexdigest()


class Digests:
    """Digests of sources; those of immutable trees are cached, up to `KEPT`."""

    KEPT = 1000

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, str] = OrderedDict()

    def of(self, sources: Sequence[Chosen], placement: Placement) -> str:
        """The digest of all members of the sources, independent of the target. Thread-safe."""
        named = tuple((each.tree.identity, each.path, each.name, each.shown, each.is_directory) for each in sources)
        key = None if any(name[0] is None for name in named) else (named, placement)
        if key is None or (found := self._known.get(key)) is None:
            found = digest_of_members(members(sources, "/", placement, many=True))
        if key is not None:
            self._known[key] = found
            self._known.move_to_end(key)
            while len(self._known) > self.KEPT:
                self._known.popitem(last=False)
        return found


# -- archives


def extract_archive(root: Path, source: Chosen, target: str, owner: tuple[int, int] | None) -> None:
    """Extract the archive `source` into the directory `target` of `root`."""
    extractor = Extractor(trees.open_directory(root), target, owner, no_overwrite=True)
    try:
        for piece in source.tree.pieces(source.path):
            extractor.write(piece)
        extractor.seal()
    finally:
        extractor.close()


def is_archive(source: Chosen) -> bool:
    """Report whether a source is a tar, compressed or not, by its content."""
    if source.is_directory or source.tree.item(source.path).entry.kind != "file":
        return False
    decompressor, parser = Decompressor(), TarParser()
    try:
        for piece in source.tree.pieces(source.path):
            decompressor.feed(piece)
            if plain := decompressor.read():
                return next(parser.feed(plain[: 64 * BLOCK]), None) is not None
    except InvalidInput:
        return False
    return False
