"""COPY and ADD inside root file systems: choosing sources, digesting them, writing them. Blocking.

    patterns --choose--> Chosen, ... --members--> Member, ... --+--> digest_of_members   (the cache key)
                                                                +--> write_members       (into the step's snapshot)

Source and target trees are hostile. Sources are opened by openat2 inside their root and walked without following a
link; targets are written through `TreeWriter`, which resolves every parent inside its root. Both consumers see members
from one generator, so that nothing is copied that the key does not cover: path, kind, mode, owner, link, attributes,
content.

Source: the Dockerfile reference, "COPY", "ADD"; BuildKit's behaviour where that is silent.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from havre.errors import InvalidInput, NotFound
from havre.linux import trees
from havre.linux.openat2 import open_in_root, openat_in_root, resolve_in_root
from havre.oci.ignore import IgnoreRules, PathPattern, has_wildcards
from havre.storage.compress import Decompressor
from havre.storage.extract import Extractor
from havre.storage.tar import BLOCK, Entry, TarParser
from havre.storage.treewriter import TreeWriter, pinned

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
_PIECE = 1 << 20
_KEPT_XATTRS = ("user.", "security.capability")
_MAX_CHOSEN = 100_000


@dataclass(frozen=True)
class Chosen:
    """A source: `path` in `root` (no links in it), `name` what it is called in the target, `shown` as matched."""

    root: Path
    path: str
    name: str
    shown: str
    is_directory: bool


@dataclass(frozen=True)
class Member:
    """Something to copy: the entry as it is to be written, and where its content is read (`parent`, `name`)."""

    entry: Entry
    parent: int
    name: str


@dataclass(frozen=True)
class Placement:
    """Where and how sources are written; `owner` None keeps theirs, and so does `mode` None."""

    target: str
    into: bool
    owner: tuple[int, int] | None = None
    mode: int | None = None
    parents: bool = False
    excludes: tuple[str, ...] = ()


def choose(root: Path, patterns: Sequence[str]) -> list[Chosen]:
    """The sources that `patterns` mean in `root`; raises `NotFound` for one that means nothing."""
    found: list[Chosen] = []
    for pattern in patterns:
        clean = posixpath.normpath("/" + pattern).lstrip("/")
        some = _match(root, clean) if has_wildcards(clean) else _exact(root, clean)
        if not some:
            raise NotFound(f'"/{clean}": not found')
        found += some
    return found


def _exact(root: Path, path: str) -> list[Chosen]:
    try:
        resolved = resolve_in_root(root, path)
        descriptor = open_in_root(root, resolved.lstrip("/") or ".", os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    try:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    return [Chosen(root, resolved.lstrip("/"), posixpath.basename(path), path, is_directory)]


def _match(root: Path, pattern: str) -> list[Chosen]:
    """Walks only directories in which something can match."""
    wanted = PathPattern(pattern)
    found: list[Chosen] = []
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        try:
            descriptor = open_in_root(root, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue
            raise
        try:
            names = sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)
        below = []
        for name in names:
            path = f"{directory}/{name}" if directory else name
            if wanted.matches(path):
                found += _exact(root, path)
            elif wanted.may_cover_below(path) and _is_directory(root, path):
                below.append(path)
            if len(found) > _MAX_CHOSEN:
                raise InvalidInput(f"{pattern!r} means more than {_MAX_CHOSEN} files")
        waiting += reversed(below)
    return found


def _is_directory(root: Path, path: str) -> bool:
    return bool(found := _exact(root, path)) and found[0].is_directory


# -- members


def members(chosen: Sequence[Chosen], target: str, placement: Placement, *, many: bool) -> Iterator[Member]:
    """All that is to be written, in order; `target` is the resolved target, `many` that it must be a directory."""
    linked: dict[trees.Inode, bytes] = {}
    excluded = IgnoreRules(placement.excludes)
    for source in chosen:
        base = target
        if placement.parents:
            base = posixpath.join(target, source.shown if source.is_directory else posixpath.dirname(source.shown))
        if source.is_directory:
            yield from _directory_members(source, base, placement, excluded, linked)
        else:
            place = posixpath.join(base, source.name) if many or placement.parents else base
            if not excluded.ignores(source.name):
                yield from _file_member(source, place, placement, linked)


def _directory_members(
    source: Chosen,
    base: str,
    placement: Placement,
    excluded: IgnoreRules,
    linked: dict[trees.Inode, bytes],
) -> Iterator[Member]:
    directory = open_in_root(source.root, source.path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield Member(_entry(os.fstat(directory), base, directory, ".", placement, linked), directory, ".")
        skipped: list[str] = []
        for each in trees.walk(directory):
            if skipped and each.path.startswith(skipped[-1] + "/"):
                continue
            if placement.excludes and excluded.ignores(each.path):
                if each.is_directory and not excluded.may_take_back(each.path):
                    skipped = [each.path]
                if not each.is_directory or not excluded.may_take_back(each.path):
                    continue
            if stat.S_ISSOCK(each.stat.st_mode):
                continue
            place = posixpath.join(base, each.path)
            yield Member(_entry(each.stat, place, each.parent, each.name, placement, linked), each.parent, each.name)
    finally:
        os.close(directory)


def _file_member(
    source: Chosen, place: str, placement: Placement, linked: dict[trees.Inode, bytes]
) -> Iterator[Member]:
    above, _, name = source.path.rpartition("/")
    parent = open_in_root(source.root, above or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            raise InvalidInput(f'"/{source.shown}" is a socket and cannot be copied')
        yield Member(_entry(status, place, parent, name, placement, linked), parent, name)
    finally:
        os.close(parent)


def _entry(
    status: os.stat_result,
    place: str,
    parent: int,
    name: str,
    placement: Placement,
    linked: dict[trees.Inode, bytes],
) -> Entry:
    path = os.fsencode(place.strip("/"))
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    link = b""
    inode = (status.st_dev, status.st_ino)
    if kind == "symlink":
        link = os.fsencode(os.readlink(name, dir_fd=parent))
    elif kind != "dir" and status.st_nlink > 1:
        if inode in linked:
            kind, link = "hardlink", linked[inode]
        else:
            linked[inode] = path
    uid, gid = placement.owner or (status.st_uid, status.st_gid)
    mtime_s, mtime_ns = divmod(status.st_mtime_ns, 10**9)
    mode = stat.S_IMODE(status.st_mode)
    return Entry(
        path=path,
        kind=kind,
        mode=placement.mode if placement.mode is not None and kind != "symlink" else mode,
        uid=uid,
        gid=gid,
        mtime_s=mtime_s,
        mtime_ns=mtime_ns,
        size=status.st_size if kind == "file" else 0,
        link=link,
        rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        xattrs=_xattrs(parent, name) if kind in ("file", "dir") else {},
    )


def _xattrs(parent: int, name: str) -> dict[bytes, bytes]:
    with pinned(parent, os.fsencode(name)) as path:
        try:
            names = os.listxattr(path)
            return {os.fsencode(each): os.getxattr(path, each) for each in names if each.startswith(_KEPT_XATTRS)}
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENODATA):
                return {}
            raise


# -- digesting


def digest_of_members(found: Iterator[Member]) -> str:
    """A digest of all but times: of what is written, and of every byte of it."""
    whole = hashlib.sha256()
    for member in found:
        entry = msgspec.structs.replace(member.entry, mtime_s=0, mtime_ns=0)
        head = msgspec.json.encode(
            [
                entry.path.decode(errors="surrogateescape").encode(errors="backslashreplace").decode(),
                entry.kind,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.size,
                entry.link.hex(),
                entry.rdev,
                {key.hex(): value.hex() for key, value in sorted(entry.xattrs.items())},
            ]
        )
        whole.update(len(head).to_bytes(8, "big") + head)
        if entry.kind == "file":
            whole.update(_digest_of_file(member))
    return whole.hexdigest()


def _digest_of_file(member: Member) -> bytes:
    descriptor = _open_file(member)
    try:
        content = hashlib.sha256()
        while piece := os.read(descriptor, _PIECE):
            content.update(piece)
        return content.digest()
    finally:
        os.close(descriptor)


def _open_file(member: Member) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(member.name, flags, dir_fd=member.parent)


# -- writing


class Copier(TreeWriter):
    """Writes members below a root; directories made on the way belong to `owner`."""

    def __init__(self, root: int, owner: tuple[int, int]) -> None:
        super().__init__(root, "build context")
        self._owner = owner

    def put(self, member: Member) -> None:
        """Write one member with its content."""
        self.add(member.entry)
        if self._file is not None:
            source = _open_file(member)
            try:
                trees.copy_content(source, self._file[0])
            finally:
                os.close(source)

    def put_bytes(self, entry: Entry, content: bytes) -> None:
        """Write a file of this content."""
        self.add(entry)
        if self._file is not None:
            with open(self._file[0], "wb", closefd=False) as file:
                file.write(content)

    def _end_file(self) -> None:
        # The content is in place already, with its holes; extents are an archive's matter.
        if self._file is not None:
            self._file = (self._file[0], msgspec.structs.replace(self._file[1], size=os.fstat(self._file[0]).st_size))
        super()._end_file()

    def make_directory(self, path: str) -> None:
        """Make a directory and what is missing above it; `InvalidInput` where a file is in the way."""
        self._parent(os.fsencode(path.strip("/")))

    def _made_parent(self, path: bytes) -> None:
        descriptor = openat_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchown(descriptor, *self._owner)
        finally:
            os.close(descriptor)

    def _clear_way(self, parent: int, name: bytes, entry: Entry) -> None:
        is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        if is_directory:
            raise InvalidInput(f"cannot replace the directory {os.fsdecode(entry.path)!r} with a file")
        if entry.kind == "dir":
            raise InvalidInput(f"cannot copy to non-directory: {os.fsdecode(entry.path)!r}")
        super()._clear_way(parent, name, entry)


def resolve_target(root: Path, placement: Placement, *, many: bool) -> tuple[str, bool]:
    """Where the target leads in `root`, and whether it is, or will be, a directory that files go into."""
    try:
        resolved = resolve_in_root(root, placement.target)
    except OSError as error:
        raise InvalidInput(f'cannot copy to "{placement.target}": {error.strerror}') from error
    found = _exact(root, resolved)
    into = placement.into or (bool(found) and found[0].is_directory)
    if many and not into:
        raise InvalidInput(
            "When using COPY with more than one source file, the destination must be a directory and end with a /"
        )
    return resolved, into


def write_members(
    root: Path, chosen: Sequence[Chosen], inline: Sequence[tuple[str, bytes]], placement: Placement
) -> None:
    """Copy the sources, and files of the names and contents in `inline`, to their place in `root`."""
    many = len(chosen) + len(inline) > 1
    target, into = resolve_target(root, placement, many=many and not all(each.is_directory for each in chosen))
    copier = Copier(trees.open_directory(root), placement.owner or (0, 0))
    try:
        if into:
            copier.make_directory(target)
        keeps_target = bool(_exact(root, target))
        for member in members(chosen, target, placement, many=into):
            at_target = member.entry.kind == "dir" and member.entry.path == os.fsencode(target.strip("/"))
            if member.entry.path and not (at_target and keeps_target):
                copier.put(member)
        for name, content in inline:
            copier.put_bytes(
                _inline_entry(posixpath.join(target, name) if into else target, content, placement), content
            )
        copier.finish()
    finally:
        copier.close()


def _inline_entry(place: str, content: bytes, placement: Placement) -> Entry:
    uid, gid = placement.owner or (0, 0)
    mode = 0o644 if placement.mode is None else placement.mode
    path = os.fsencode(place.strip("/"))
    return Entry(path, "file", mode, uid, gid, int(time.time()), 0, size=len(content))


def make_directory(root: Path, path: str, owner: tuple[int, int] = (0, 0)) -> None:
    """Make the directory `path` in `root`, unless it is there."""
    copier = Copier(trees.open_directory(root), owner)
    try:
        copier.make_directory(resolve_in_root(root, path))
        copier.finish()
    finally:
        copier.close()


def extract_archive(root: Path, source: Chosen, target: str, owner: tuple[int, int] | None) -> None:
    """Unpack the archive `source` into the directory `target` of `root`."""
    extractor = Extractor(trees.open_directory(root), target, owner, no_overwrite=True)
    descriptor = open_in_root(source.root, source.path)
    try:
        while piece := os.read(descriptor, _PIECE):
            extractor.write(piece)
        extractor.seal()
    finally:
        os.close(descriptor)
        extractor.close()


def is_archive(source: Chosen) -> bool:
    """Whether a source is a tar, compressed or not: by its content, whatever its name."""
    if source.is_directory:
        return False
    descriptor = open_in_root(source.root, source.path)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        decompressor, parser = Decompressor(), TarParser()
        while piece := os.read(descriptor, 1 << 16):
            decompressor.feed(piece)
            if plain := decompressor.read():
                return next(parser.feed(plain[: 64 * BLOCK]), None) is not None
    except InvalidInput:
        return False
    finally:
        os.close(descriptor)
    return False
