"""Room on the data root's file system that is kept for removals.

A row can only be deleted by writing, so a store that fills the disk to the last block could not be emptied any more.
Three things are kept, each enough for what is left to do on a full disk:

    the log         of SQLite, a megabyte long from the start, and not truncated: commits overwrite it in place
    free pages      in the database: what a fold of the log into it writes is there already
    a file          that is removed when the above does not help (file systems that copy on write)

    file allocated --- disk full, a removal must be recorded ---> removed, its room used
          ^                                                              |
          '--------------- room for several of it again <----------------'

Only what frees space, or tells what has happened already, may take them (`db.Table`). Blocking.
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
_SPARE = 2  # so many times the reserve must be free before it is taken (again)


class Reserve:
    """The file `path`, of `size` bytes, or its absence."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    def restore(self) -> None:
        """Allocate it where it is missing and there is plenty of room; a file system that cannot has none."""
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
        """Free its room; False where it has been given up before."""
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("%s is full: the reserve of %d bytes is given up for removals", self._path.parent, self._size)
        return True

    def stock(self, connection: sqlite3.Connection, log_path: Path) -> None:
        """Have a long log and free pages in the database, if there is plenty of room and they are not there."""
        connection.execute("DROP TABLE IF EXISTS reserve")  # of one who was killed meanwhile
        pages = _LOG_BYTES // int(connection.execute("PRAGMA page_size").fetchone()[0])
        stocked = int(connection.execute("PRAGMA freelist_count").fetchone()[0]) >= pages // 2
        if (stocked and _size(log_path) >= _LOG_BYTES) or not self._has_room():
            return
        # Two transactions, for what is made and dropped in one is not written. Random, for zeros may be compressed.
        connection.execute("CREATE TABLE reserve (filling BLOB)")
        connection.execute(f"INSERT INTO reserve VALUES (randomblob({_LOG_BYTES}))")
        connection.execute("DROP TABLE reserve")
        fold(connection)

    def _has_room(self) -> bool:
        return free_bytes(self._path.parent) >= _SPARE * self._size


def keep_log(connection: sqlite3.Connection) -> None:
    """Leave the log where it is when the database is closed. Python 3.11 cannot: it has the file alone."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)


def fold(connection: sqlite3.Connection) -> bool:
    """Write what the log has into the database, so that the next commit begins the log anew; False if that fails."""
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
