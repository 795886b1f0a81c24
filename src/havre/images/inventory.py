"""Finds installed packages in an image's file system, which is untrusted input.

Paths are resolved inside that root (openat2(2), RESOLVE_IN_ROOT) and only regular files are opened: symbolic links
cannot leave the root, devices and FIFOs are not opened, a loop of links counts as a missing file. Bytes per file,
lines in total and the size of the result are bounded.

    fixed places    dpkg, apk, rpm, os-release, copyright files of Debian's packages
    one walk        *.dist-info, *.egg-info, node_modules/*/package.json, Go programs
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path

from havre.linux.openat2 import openat_in_root
from havre.linux.trees import open_directory
from havre.packages import apk, dpkg, golang, npm, pypi, rpm
from havre.packages.fields import parse_os_release
from havre.packages.model import Distribution, Inventory, Package, Unreadable, clean

_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_STATUS, _STATUS_PARTS = "var/lib/dpkg/status", "var/lib/dpkg/status.d"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = ("usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm")
_OLDER_RPM = {"Packages": "Berkeley DB", "Packages.db": "rpm's ndb"}
_OF_KERNEL = frozenset(("proc", "sys", "dev"))
_NODE_PACKAGE = re.compile(r"(?:.*/)?node_modules/(?:@[^/]+/)?[^/]+/package\.json\Z", re.DOTALL)
_EGG = ".egg-info"
_ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG))

_DATABASE_LIMIT, _TEXT_DATABASE_LIMIT, _TEXT_LIMIT, _TOTAL_LIMIT = 128 << 20, 32 << 20, 1 << 20, 512 << 20
_LINES_LIMIT = 4_000_000  # in total; a desktop's package records have a million
_PROGRAM_LEAST = 256 << 10  # bytes; Go programs have at least a megabyte
_ENTRIES_LIMIT, _WAITING_LIMIT = 4_000_000, 64 << 20  # the latter in characters of queued paths
_PACKAGES_LIMIT, _WORDS_LIMIT = 50_000, 16 << 20  # the latter in characters of package metadata
_GAPS_LIMIT, _GAPS_NOTED = 100, 10_000


def take_inventory(root: Path) -> Inventory:
    """The packages installed in the file system at `root`. Blocking. OSError for `root`, and on disk errors."""
    directory = open_directory(root)
    try:
        search = _Search(directory)
        with search.noted():
            search.distribution()
            search.databases()
            search.walk()
    finally:
        os.close(directory)
    gaps = sorted(search.gaps)
    more = [f"and {len(gaps) - _GAPS_LIMIT} more"] if len(gaps) > _GAPS_LIMIT else []
    return Inventory(search.found_distribution, tuple(sorted(search.packages)), (*gaps[:_GAPS_LIMIT], *more))


class _Enough(Unreadable):
    """A limit of the search was reached."""


class _Search:
    """The state of a search below an open directory."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._databases: set[tuple[int, int]] = set()
        self._bytes_left = _TOTAL_LIMIT
        self._lines_left = _LINES_LIMIT
        self._words_left = _WORDS_LIMIT
        self.found_distribution = Distribution()
        self.packages: set[Package] = set()
        self.gaps: set[str] = set()

    def distribution(self) -> None:
        """Read os-release."""
        for path in _OS_RELEASE:
            if text := self._text(path):
                self.found_distribution = parse_os_release(text)
                return

    def databases(self) -> None:
        """Read the databases of the distributions' package managers."""
        parts = [f"{_STATUS_PARTS}/{name}" for name in self._names(_STATUS_PARTS) if not name.endswith(".md5sums")]
        for path in (_STATUS, *parts):
            found = dpkg.parse_status(self._text_database(path), _shown(path))
            self._add(replace(package, licences=self._copyright(package.name)) for package in found)
        for path in _APK:
            self._add(apk.parse_installed(self._text_database(path), _shown(path)))
        for folder in _RPM:
            self._rpm(folder)

    def _rpm(self, folder: str) -> None:
        path = f"{folder}/rpmdb.sqlite"
        if data := self._database(path, _DATABASE_LIMIT):
            with self.noted(path):
                self._add(rpm.parse_database(data, _shown(path)))
            if self._status(f"{path}-wal"):
                self._miss(f"{path}-wal", "rpm's newest changes are in a write-ahead log, which is not read")
        for name, form in _OLDER_RPM.items():
            if self._status(f"{folder}/{name}"):
                self._miss(f"{folder}/{name}", f"rpm databases in {form} format are not supported")

    def _copyright(self, package: str) -> tuple[str, ...]:
        text = self._text(f"usr/share/doc/{package}/copyright") if "/" not in package else b""
        return dpkg.parse_copyright(text)

    def walk(self) -> None:
        """Walk the tree once for everything else."""
        left, waiting, entries = [""], 0, 0
        while left:
            directory = left.pop()
            waiting -= len(directory)
            for entry in self._entries(directory):
                entries += 1
                path = directory + entry.name
                if entries > _ENTRIES_LIMIT or waiting > _WAITING_LIMIT:
                    raise _Enough(f"the image has more than {_ENTRIES_LIMIT} files, or too long paths")
                if entry.is_dir(follow_symlinks=False):
                    if path not in _OF_KERNEL:
                        left.append(f"{path}/")
                        waiting += len(path) + 1
                    self._look_at_directory(path)
                elif entry.is_file(follow_symlinks=False):
                    self._look_at_file(path, entry)

    def _entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        opened = -1
        try:
            opened = openat_in_root(self._root, directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            with os.scandir(opened) as entries:
                yield from entries
        except OSError as error:
            self._miss(directory, f"it cannot be read: {os.strerror(error.errno or 0)}")
        finally:
            if opened >= 0:
                os.close(opened)

    def _look_at_directory(self, path: str) -> None:
        if path.endswith(".dist-info"):
            self._python(f"{path}/METADATA")
        elif path.endswith(_EGG):
            self._python(f"{path}/PKG-INFO")

    def _look_at_file(self, path: str, entry: os.DirEntry[str]) -> None:
        if path.endswith(_EGG):
            self._python(path)
        elif entry.name == "package.json":
            if _NODE_PACKAGE.match(path):
                self._node(path)
        else:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_mode & 0o111 and status.st_size >= _PROGRAM_LEAST:
                    self._program(path)

    def _python(self, path: str) -> None:
        self._add(filter(None, [pypi.parse_metadata(self._text(path), _shown(path))]))

    def _node(self, path: str) -> None:
        if data := self._read(path, _TEXT_LIMIT):
            with self.noted(path):
                self._add(filter(None, [npm.parse_package(data, _shown(path))]))

    def _program(self, path: str) -> None:
        with self._opened(path) as file, self.noted(path):
            if file is not None:
                read = partial(self._pread, file)
                self._add(golang.parse_program(lambda offset, size: read(size, offset), _shown(path)))

    def _add(self, packages: Iterable[Package]) -> None:
        for package in packages:
            if package in self.packages:
                continue
            self._words_left -= sum(map(len, map(str, astuple(package))))
            if len(self.packages) == _PACKAGES_LIMIT or self._words_left < 0:
                raise _Enough(f"the image has more than {_PACKAGES_LIMIT} packages, or too much metadata of packages")
            self.packages.add(package)

    # -- reading

    @contextmanager
    def _opened(self, path: str) -> Iterator[int | None]:
        """A descriptor of the regular file at `path`; None if there is none."""
        try:
            pinned = openat_in_root(self._root, path, os.O_PATH)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            yield None
            return
        opened = None
        try:
            if stat.S_ISREG(os.fstat(pinned).st_mode):
                opened = os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
            yield opened
        finally:
            os.close(pinned)
            if opened is not None:
                os.close(opened)

    def _status(self, path: str) -> int:
        """The size of the regular file at `path`; 0 if there is none."""
        with self._opened(path) as file:
            return 0 if file is None else os.fstat(file).st_size

    def _read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file; empty if there is none."""
        with self._opened(path) as file:
            return b"" if file is None else self._pread(file, limit)

    def _text(self, path: str) -> bytes:
        return self._counted(self._read(path, _TEXT_LIMIT))

    def _text_database(self, path: str) -> bytes:
        return self._counted(self._database(path, _TEXT_DATABASE_LIMIT))

    def _counted(self, text: bytes) -> bytes:
        """`text`, after its lines were deducted from the budget for parsing."""
        self._lines_left -= text.count(b"\n")
        if self._lines_left < 0:
            raise _Enough(f"the package databases have more than {_LINES_LIMIT} lines")
        return text

    def _database(self, path: str, limit: int) -> bytes:
        """A whole file, read only once even if several paths lead to it; empty, with a gap recorded, if it is too
        large."""
        with self._opened(path) as file:
            if file is None:
                return b""
            status = os.fstat(file)
            inode = (status.st_dev, status.st_ino)
            if inode in self._databases:
                return b""
            self._databases.add(inode)
            if status.st_size > limit:
                self._miss(path, f"it has {status.st_size} bytes, of which at most {limit} are read")
                return b""
            return self._pread(file, status.st_size)

    def _names(self, path: str) -> Iterable[str]:
        try:
            opened = openat_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return ()
        try:
            return sorted(os.listdir(opened))
        finally:
            os.close(opened)

    def _pread(self, descriptor: int, size: int, offset: int = 0) -> bytes:
        """At most `size` bytes; empty for an invalid offset."""
        pieces = []
        with suppress(OverflowError):
            while size > 0 and (piece := os.pread(descriptor, size, offset)):
                pieces.append(piece)
                size, offset = size - len(piece), offset + len(piece)
                self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise _Enough(f"the package databases have more than {_TOTAL_LIMIT} bytes")
        return b"".join(pieces)

    @contextmanager
    def noted(self, path: str = "") -> Iterator[None]:
        """Record errors as a gap at `path`; a reached limit is recorded once, for the whole search."""
        try:
            yield
        except _Enough as error:
            if path:
                raise
            self._miss("", f"the search ended early: {error}")
        except Unreadable as error:
            self._miss(path, str(error))

    def _miss(self, path: str, why: str) -> None:
        if len(self.gaps) < _GAPS_NOTED:
            self.gaps.add(f"{_shown(path)}: {why}")


def _shown(path: str) -> str:
    return clean("/" + os.fsencode(path).decode(errors="replace"))
