"""Brings a database that an older havre wrote to today's version, before a table is read.

    havre.db, version N --copy, fsync--> havre.db.vN-before.tmp --rename, fsync--> havre.db.vN-before
                        --one transaction: rows of N+1, of N+2 ..., user_version--> havre.db, version M

Killed anywhere, the database is of version N or M, whole, and the next start goes on from there. The copy stays: with
it in the place of havre.db the older program works again. A row that is no JSON, or that a change cannot read, is left
as it is: its table then tells that it is damaged, as of any other.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from havre.failpoints import failpoint
from havre.linux.trees import sync_directory
from havre.storage.migrations import Change, Migration

log = logging.getLogger(__name__)


def copy_of(path: Path, version: int) -> Path:
    """Where the database `path` is kept as it was at `version`."""
    return path.with_name(f"{path.name}.v{version}-before")


def migrate(connection: sqlite3.Connection, path: Path, version: int, migrations: Sequence[Migration]) -> None:
    """Apply those migrations that lead beyond `version`, after a copy was kept. sqlite3.Error, OSError."""
    due = [migration for migration in migrations if migration.to > version]
    if not due:
        return
    _keep_copy(connection, copy_of(path, version))
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in due:
            for table, change in migration.tables.items():
                _change_rows(connection, table, change)
            connection.execute(f"PRAGMA user_version = {migration.to}")  # a part of the transaction
            failpoint("migration.step")
        failpoint("migration.commit")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    failpoint("migration.committed")
    log.info("%s is now of version %d; as it was at version %d it is kept in %s", path, due[-1].to, version,
             copy_of(path, version))  # fmt: skip


def _keep_copy(connection: sqlite3.Connection, kept: Path) -> None:
    """Copy the database with what its log has. An earlier copy is overwritten: somebody went back to it since."""
    half = kept.with_name(f"{kept.name}.tmp")
    half.unlink(missing_ok=True)
    try:
        copy = sqlite3.connect(half, isolation_level=None)
        try:
            connection.backup(copy)
        finally:
            copy.close()
        half.chmod(0o600)
        failpoint("migration.copying")
        descriptor = os.open(half, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        half.rename(kept)
        sync_directory(kept.parent)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    failpoint("migration.copied")


def _change_rows(connection: sqlite3.Connection, table: str, change: Change) -> None:
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)).fetchone() is None:
        return
    for key, value in connection.execute(f'SELECT key, value FROM "{table}"').fetchall():
        try:
            new = change(key, msgspec.json.decode(value, type=dict))
        except Exception as error:  # noqa: BLE001  # of a damaged row anything may be wrong
            log.error("row %r of table %s is damaged and left as it is: %s", key, table, error)
            continue
        if new is None:
            connection.execute(f'DELETE FROM "{table}" WHERE key = ?', (key,))
        else:
            connection.execute(f'UPDATE "{table}" SET value = ? WHERE key = ?', (msgspec.json.encode(new), key))
