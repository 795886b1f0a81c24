"""Packages installed by rpm: the table of header blobs in rpmdb.sqlite.

    header    count of entries | bytes of data | entries | data          all big-endian
    entry     tag | type | offset in the data | count                    16 bytes

The database is opened in memory, so it cannot touch any file; its schema is hostile, too, so functions are disabled and
a
query is aborted after a limited number of steps.

Source: rpm's docs/manual, "format_header", "tags"; SQLite's "Defense against the dark arts".
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from havre.packages.model import Package, Unreadable, clean

_NAME, _VERSION, _RELEASE, _EPOCH, _VENDOR, _LICENCE, _URL = 1000, 1001, 1002, 1003, 1011, 1014, 1020
_ARCHITECTURE, _SOURCE = 1022, 1044
_TEXTS = frozenset((_NAME, _VERSION, _RELEASE, _VENDOR, _LICENCE, _URL, _ARCHITECTURE, _SOURCE))
_INT32, _STRING, _I18N = 4, 6, 9
_ENTRY = struct.Struct(">4I")
_SIZES = struct.Struct(">2I")
_ENTRY_LIMIT, _BLOB_LIMIT, _TEXT_LIMIT = 1 << 16, 16 << 20, 4096
_ROWS_LIMIT, _ROWS_BYTES = 100_000, 512 << 20
_STEPS_AT_ONCE, _TURNS = 100_000, 2_000
_SQLITE = b"SQLite format 3\0"
_VERSIONS_AT = 18  # of the file format; 2 is WAL, which an in-memory database cannot use


def parse_database(data: bytes, path: str) -> Iterator[Package]:
    """The packages of an rpmdb.sqlite; `Unreadable` if it is not one."""
    if not data.startswith(_SQLITE) or len(data) < 100:
        raise Unreadable("it is not an SQLite database")
    image = data[:_VERSIONS_AT] + b"\1\1" + data[_VERSIONS_AT + 2 :]
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(image)
            for blob in _blobs(database):
                yield from _parse_header(blob, path)
    # UnicodeDecodeError: an error message quotes the schema
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        raise Unreadable(f"SQLite says: {clean(str(error))}") from error


def _blobs(database: sqlite3.Connection) -> Iterator[bytes]:
    turns = iter(range(_TURNS))
    database.set_progress_handler(lambda: next(turns, None) is None, _STEPS_AT_ONCE)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _BLOB_LIMIT)
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    left = _ROWS_BYTES
    for (blob,) in islice(database.execute("SELECT blob FROM Packages"), _ROWS_LIMIT):
        if isinstance(blob, bytes):
            left -= len(blob)
            if left < 0:
                raise Unreadable(f"its headers have more than {_ROWS_BYTES} bytes")
            yield blob


def _parse_header(blob: bytes, path: str) -> Iterator[Package]:
    """The package of a header; nothing without a name, and for the keys that rpm stores as packages."""
    if len(blob) < _SIZES.size:
        return
    count, size = _SIZES.unpack_from(blob)
    start = _SIZES.size + count * _ENTRY.size
    if count > _ENTRY_LIMIT or start > len(blob):
        return
    data = blob[start : start + size]
    found: dict[int, str] = {}
    for tag, type, offset, _ in _ENTRY.iter_unpack(blob[_SIZES.size : start]):
        if tag in found:
            continue
        if tag in _TEXTS and type in (_STRING, _I18N):
            found[tag] = clean(data[offset : offset + _TEXT_LIMIT].partition(b"\0")[0].decode(errors="replace"))
        elif type == _INT32 and tag == _EPOCH and offset + 4 <= len(data):
            found[tag] = str(int.from_bytes(data[offset : offset + 4]))
    name, version, release = (found.get(tag, "") for tag in (_NAME, _VERSION, _RELEASE))
    if not name or not version or name == "gpg-pubkey":
        return
    yield Package(
        kind="rpm",
        name=name,
        version=f"{version}-{release}" if release else version,
        path=path,
        record="rpm's database",
        architecture=found.get(_ARCHITECTURE, ""),
        epoch=found.get(_EPOCH, ""),
        source=found.get(_SOURCE, ""),
        licences=(found.get(_LICENCE, ""),),
        supplier=found.get(_VENDOR, ""),
        homepage=found.get(_URL, ""),
    )
