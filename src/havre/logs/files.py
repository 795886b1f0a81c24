"""The rotating files of a log: names, writing, and opening all of them.

    LOG            the current file
    LOG.1          the previous one; with `compress`, LOG.1.gz
    LOG.2 ...      up to max-file in total; older ones are removed; with max-file 1 the file is replaced
    LOG.new        temporarily, before it becomes LOG

Blocking; one writer at a time. The next writer completes a rotation interrupted by a kill:

    LOG.new made --note its inode--> older files shifted --> LOG.new renamed to LOG
       |                                       |
    LOG.new is not noted: removed              LOG.new is noted: rotation is completed
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from havre.logs.options import LogLimits

BLOCK = 256 << 10
MODE = 0o640

# A file must not be renamed between being found and being opened.
_names = threading.Lock()


def files_of(path: Path) -> list[Path]:
    """The existing files of the log at `path`, newest first."""
    found = [path] if path.exists() else []
    number = 1
    while (old := _numbered(path, number)) is not None:
        found.append(old)
        number += 1
    return found


def _numbered(path: Path, number: int) -> Path | None:
    for suffix in (f".{number}", f".{number}.gz"):
        if (file := path.with_name(path.name + suffix)).exists():
            return file
    return None


def shift(path: Path, max_files: int) -> None:
    """Free the name `path`: each file gets the next number, those beyond the limit are removed."""
    old = [file for file in files_of(path) if file != path]
    for number, file in reversed(list(enumerate(old, start=1))):
        if number + 1 >= max_files:
            file.unlink()
        else:
            file.rename(path.with_name(f"{path.name}.{number + 1}{'.gz' if file.suffix == '.gz' else ''}"))
    if max_files > 1 and path.exists():
        path.rename(path.with_name(path.name + ".1"))


def compress(file: Path) -> None:
    """Replace `file` by `file`.gz."""
    from isal import igzip  # imported late: most logs are never compressed

    fresh = file.with_name(file.name + ".new")
    with file.open("rb") as source, igzip.IGzipFile(fresh, "wb", compresslevel=2) as target:  # type: ignore[no-untyped-call]
        shutil.copyfileobj(source, target, BLOCK)
    fresh.chmod(MODE)
    with _names:
        fresh.rename(file.with_name(file.name + ".gz"))
        file.unlink()


def open_all(path: Path) -> list[int]:
    """Open all files of the log, oldest first, consistently even during a rotation."""
    with _names:
        return [_open(file) for file in reversed(files_of(path))]


def close_all(files: Iterable[int]) -> None:
    """Close descriptors that `open_all` has returned."""
    for file in files:
        os.close(file)


def _open(file: Path) -> int:
    if file.suffix != ".gz":
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    from isal import igzip

    with igzip.IGzipFile(file) as source, tempfile.TemporaryFile() as target:  # type: ignore[no-untyped-call]
        shutil.copyfileobj(source, target, BLOCK)
        target.flush()
        return os.dup(target.fileno())


class LogFile:
    """The current file, and its rotation.

    `note(inode, written)` is called before a rotation takes effect, with the inode of the new file and the number of
    bytes of
    the current `append` that are in older files.
    """

    def __init__(self, path: Path, limits: LogLimits, noted: int, note: Callable[[int, int], None]) -> None:
        """Open or create it. `noted` is the inode of the last note; an interrupted rotation is completed."""
        self.path = path
        self._limits = limits
        self._note = note
        self._fresh = path.with_name(path.name + ".new")
        self._finish_rotation(noted)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        self._rotated: list[int] = []

    @property
    def inode(self) -> int:
        """Inode of the current file."""
        return os.fstat(self._descriptor).st_ino

    @property
    def size(self) -> int:
        """Its size; other programs may have truncated it."""
        return os.fstat(self._descriptor).st_size

    def take_rotated(self) -> list[int]:
        """Descriptors of the files begun since the last call, for followers. The caller closes them."""
        taken, self._rotated = self._rotated, []
        return taken

    def append(self, data: bytes, before: int) -> None:
        """Write complete records, rotating at the limit; `before` bytes of their batch are already written.

        After an OSError a prefix has been written.
        """
        written, view = 0, memoryview(data)
        while written < len(data):
            room = len(data)
            if self._limits.max_size:
                if self.size >= self._limits.max_size:
                    self._rotate(before + written)
                room = self._limits.max_size - self.size
            end = min(written + room, len(data))
            if end < len(data):
                end = data.find(b"\n", end - 1) + 1 or len(data)
            while written < end:
                written += os.write(self._descriptor, view[written:end])

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        for descriptor in self.take_rotated():
            os.close(descriptor)

    def _rotate(self, written: int) -> None:
        self._fresh.unlink(missing_ok=True)
        fresh = os.open(self._fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            self._note(os.fstat(fresh).st_ino, written)
            self._take_place()
        except BaseException:
            os.close(fresh)
            raise
        os.close(self._descriptor)
        self._descriptor = fresh
        self._rotated.append(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        self._compress_old()

    def _take_place(self) -> None:
        with _names:
            if self.path.exists():  # it is missing if a kill came after the shift
                shift(self.path, self._limits.max_files)
            self._fresh.rename(self.path)

    def _compress_old(self) -> None:
        old = self.path.with_name(self.path.name + ".1")
        if self._limits.compress and old.exists():
            compress(old)

    def _finish_rotation(self, noted: int) -> None:
        if self._fresh.exists():
            if self._fresh.stat().st_ino == noted:
                self._take_place()
            else:
                self._fresh.unlink()
        self._compress_old()
