"""Space on the data root's file system reserved for removals.

Deleting a row writes, so on a disk filled to the last block nothing could be removed. Three reserves are kept, each
sufficient for a removal on a full disk:

    the log         SQLite's WAL, preallocated to a megabyte and not truncated: commits overwrite it in place
    free pages      in the database: a checkpoint of the WAL writes into them
    a file          removed when the above do not help (copy-on-write file systems)

    file allocated --- disk full, a removal must be recorded ---> removed, its space used
          ^                                                              |
          '--------------- space for several of it again <---------------'

Only writes that free space, or record what has already happened, may use them (`db.Table`). Blocking.
Source: sqlite.org/wal.html, "Avoiding Excessively Large WAL Files"; sqlite.org/c3ref/c_dbconfig_defensive.html.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path

from havre.linux.room import free_bytes

log = logging.getLogger(__name__)

RESERVE_BYTES = 4 << 20
_LOG_BYTES = 1 << 20
_SPARE = 2  # free space required to allocate the reserve, in multiples of its size


class Reserve:
    """The reserve file `path` of `size` bytes, present or not."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    def restore(self) -> None:
        """Allocate the file if it is missing and there is enough space; no-op on file systems without fallocate(2)."""
        with suppress(OSError):
            if self._path.exists() or not self._has_room():
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
        """Remove the file; returns False when it was removed before."""
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("%s is full: the reserve of %d bytes is released for removals", self._path.parent, self._size)
        return True

    def stock(self, connection: sqlite3.Connection, log_path: Path) -> None:
        """Preallocate the WAL and free pages in the database, if they are missing and there is enough space."""
        connection.execute("DROP TABLE IF EXISTS reserve")  # left by a daemon killed meanwhile
        pages = _LOG_BYTES // int(connection.execute("PRAGMA page_size").fetchone()[0])
        stocked = int(connection.execute("PRAGMA freelist_count").fetchone()[0]) >= pages // 2
        if (stocked and _size(log_path) >= _LOG_BYTES) or not self._has_room():
            return
        # Two transactions: pages created and dropped in one are not written. Random data: zeros may be compressed away.
        connection.execute("CREATE TABLE reserve (filling BLOB)")
        connection.execute(f"INSERT INTO reserve VALUES (randomblob({_LOG_BYTES}))")
        connection.execute("DROP TABLE reserve")
        fold(connection)

    def _has_room(self) -> bool:
        return free_bytes(self._path.parent) >= _SPARE * self._size


def keep_log(connection: sqlite3.Connection) -> None:
    """Keep the WAL when the database is closed. Not possible in Python 3.11, which then has only the file as a
    reserve."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)


def fold(connection: sqlite3.Connection) -> bool:
    """Checkpoint the WAL, so that the next commit restarts it; returns False when that fails."""
    try:
        busy, pages, folded = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    except sqlite3.Error:
        return False
    return not busy and pages == folded


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
