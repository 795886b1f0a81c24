"""The files of a container's log: how they rotate, and how all of them are opened as one.

    ctr.log        what conmon writes now
    ctr.log.1      what it wrote before; with `compress`, ctr.log.1.gz
    ctr.log.2 ...  up to max-file in all; older ones are dropped

Rotation loses nothing: the file is renamed, conmon is told to open a new one, and what it writes meanwhile still goes
to the renamed file. A daemon killed in between finds no ctr.log when it takes the container over, and tells conmon
again. Nobody asks the disk over and over: every byte passes the container's fanout, whose alarm rings when the limit
may have been reached.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from havre.aio import in_thread, spawn
from havre.errors import Failed, InvalidInput
from havre.runtime import Process

log = logging.getLogger(__name__)

REOPEN_TIMEOUT_S = 5.0
#: A record is at most so many times as long as what it records: "x\n" is 2 bytes, its record 47.
LONGEST_RECORD = 32
FEWEST_BYTES = 512
BLOCK = 64 << 10
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)i?b?", re.IGNORECASE)
# A file must not get another name between being found and being opened.
_names = threading.Lock()
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How long a log may be: `max_size` bytes a file (0: no limit), `max_files` files, old ones maybe compressed."""

    max_size: int = 0
    max_files: int = 1
    compress: bool = False


UNLIMITED = LogLimits()
_LOCAL = LogLimits(max_size=20 << 20, max_files=5, compress=True)
_DEFAULTS = {"local": _LOCAL, "json-file": UNLIMITED}


def parse_limits(driver: str, options: Mapping[str, str]) -> LogLimits:
    """The limits that a driver's options ask for; InvalidInput in Docker's words. Pure."""
    default = _DEFAULTS.get(driver, _LOCAL)
    problem = "failed to initialize logging driver"
    size = _parse_size(options["max-size"]) if "max-size" in options else default.max_size
    try:
        files = int(options.get("max-file", default.max_files))
    except ValueError:
        raise InvalidInput(f"{problem}: invalid max-file: '{options['max-file']}'", "expected a number") from None
    if files < 1:
        raise InvalidInput(f"{problem}: max-file cannot be less than 1")
    if (asked := options.get("compress", str(default.compress)).lower()) not in _TRUE + _FALSE:
        raise InvalidInput(f"{problem}: invalid compress: '{asked}'", "expected true or false")
    compress = asked in _TRUE
    if compress and "compress" in options and (files < 2 or size == 0):
        raise InvalidInput(f"{problem}: compress cannot be true when max-file is less than 2 or max-size is not set")
    return LogLimits(size, files, compress and files > 1)


def _parse_size(text: str) -> int:
    """Bytes of a size such as 10m; -1 and 0 are no limit."""
    if text in ("-1", "0"):
        return 0
    if (match := _SIZE.fullmatch(text)) is None:
        raise InvalidInput(
            f"failed to initialize logging driver: invalid size: '{text}'", "expected a size such as 10m"
        )
    return int(float(match[1]) * (1 << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]))


# -- files


def files_of(path: Path) -> list[Path]:
    """The files of the log at `path` that exist, newest first. Blocking."""
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
    """Make room at `path`: each file gets the next number, those beyond the limit go. Blocking.

    The last file is kept as number 1 even where only one is allowed: it is still being written.
    """
    with _names:
        old = [file for file in files_of(path) if file != path]
        for number, file in reversed(list(enumerate(old, start=1))):
            if number + 1 >= max_files:
                file.unlink()
            else:
                file.rename(path.with_name(f"{path.name}.{number + 1}{'.gz' if file.suffix == '.gz' else ''}"))
        path.rename(path.with_name(path.name + ".1"))


def compress(file: Path) -> None:
    """Put `file`.gz in the place of `file`. Blocking."""
    fresh = file.with_name(file.name + ".new")
    with file.open("rb") as source, gzip.open(fresh, "wb", compresslevel=3) as target:
        shutil.copyfileobj(source, target, BLOCK)
    with _names:
        fresh.rename(file.with_name(file.name + ".gz"))
        file.unlink()


def open_all(path: Path) -> list[int]:
    """Descriptors of all files of the log, oldest first, even while it rotates. Blocking."""
    with _names:
        return _open_files(path)


def _open_files(path: Path) -> list[int]:
    return [_open(file) for file in reversed(files_of(path))]


def _open(file: Path) -> int:
    if file.suffix != ".gz":
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    with gzip.open(file) as source, tempfile.TemporaryFile() as target:
        shutil.copyfileobj(source, target, BLOCK)
        target.flush()
        return os.dup(target.fileno())


def open_newer(path: Path, descriptor: int) -> list[int]:
    """The files that came after the one behind `descriptor`, oldest first; [] while conmon writes that. Blocking."""
    with _names:
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return []
        candidates = _open_files(path)
    last = _stamp(os.pread(descriptor, BLOCK, max(0, os.fstat(descriptor).st_size - BLOCK)).rstrip(b"\n"), -1)
    newer = []
    for candidate in candidates:
        first = _stamp(os.pread(candidate, 64, 0), 0)
        if first and first <= last:
            os.close(candidate)
        else:
            newer.append(candidate)
    return newer


def _stamp(lines: bytes, which: int) -> bytes:
    return lines.split(b"\n")[which].partition(b" ")[0]


# -- rotation


class Rotation:
    """Keeps the log of one running container within its limits, as long as its process lives."""

    def __init__(self, process: Process, path: Path, limits: LogLimits) -> None:
        self._process = process
        self._path = path
        self._limits = limits

    def start(self) -> None:
        """Watch from now on; first, finish what a killed daemon has begun."""
        if not self._path.exists():
            spawn(self._reopen(), f"reopen {self._path}")
        if self._limits.max_size:
            self._arm()

    def _arm(self) -> None:
        room = max(0, self._limits.max_size - self._size())
        self._process.output.alarm(max(room // LONGEST_RECORD, FEWEST_BYTES), self._ring)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _ring(self) -> None:
        if self._size() < self._limits.max_size:
            self._arm()
        else:
            spawn(self._rotate(), f"rotate {self._path}")

    async def _rotate(self) -> None:
        try:
            await in_thread(shift, self._path, self._limits.max_files)
            await self._reopen()
            old = self._path.with_name(self._path.name + ".1")
            if self._limits.max_files == 1:
                await in_thread(old.unlink)
            elif self._limits.compress:
                await in_thread(compress, old)
        except (OSError, Failed) as error:
            if self._process.exited() is None:  # the disk is full, say: the log goes on where it is
                log.warning("the log %s was not rotated: %s", self._path, error)
        self._arm()

    async def _reopen(self) -> None:
        if self._process.exited() is not None:
            return
        await self._process.reopen_log()
        async with asyncio.timeout(REOPEN_TIMEOUT_S):
            while not self._path.exists() and self._process.exited() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # conmon tells nobody
