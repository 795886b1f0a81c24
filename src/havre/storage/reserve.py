"""Room on the data root's file system that is kept for removals: a file that is given up when the disk is full.

    open: reserve allocated --- disk full, a removal must be recorded ---> file removed, its room used
                ^                                                                    |
                '---------------- room for several of it again <--------------------'

A row can only be deleted by writing, so a store that fills the disk to the last block could not be emptied any more.
Only what frees space, or tells what has happened already, may take the reserve (`db.Table`). Blocking.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from havre.linux.room import free_bytes

log = logging.getLogger(__name__)

RESERVE_BYTES = 4 << 20
_SPARE = 2  # so many times the reserve must be free before it is taken (again)


class Reserve:
    """The file `path`, of `size` bytes, or its absence."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return self._path

    def restore(self) -> None:
        """Allocate it where it is missing and there is plenty of room; a file system that cannot has none."""
        with suppress(OSError):
            if self._path.exists() or free_bytes(self._path.parent) < _SPARE * self._size:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            except OSError:
                self._path.unlink()
                raise
            finally:
                os.close(descriptor)

    def give_up(self) -> bool:
        """Free its room; False where it has been given up before."""
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("%s is full: the reserve of %d bytes is given up for removals", self._path.parent, self._size)
        return True
