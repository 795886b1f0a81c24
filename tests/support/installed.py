"""Records of installed packages, as package managers and linkers write them."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

DPKG = """\
Package: libstdc++6
Status: install ok installed
Priority: optional
Maintainer: Debian GCC Maintainers <debian-gcc@lists.debian.org>
Architecture: amd64
Source: gcc-14 (14.2.0-18)
Version: 14.2.0-19
Description: GNU Standard C++ Library v3
 This package contains an additional runtime library.
Homepage: http://gcc.gnu.org/

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: half
Status: install reinstreq half-installed
Architecture: all
Version: 2:1~rc1
"""

APK = """\
C:Q1Rst1rEKbqhGM+Pyz7tnXwgsgq0I=
P:musl
V:1.2.4-r2
A:x86_64
S:383459
T:the musl c library (libc) implementation
U:https://musl.libc.org/
L:MIT
o:musl
m:Timo Teräs <timo.teras@iki.fi>
F:lib
R:ld-musl-x86_64.so.1

P:ssl_client
V:1.36.1-r2
A:x86_64
L:GPL-2.0-only
o:busybox
"""

RPM = {
    1000: "bash", 1001: "5.2.15", 1002: "3.fc38", 1003: 1, 1011: "Fedora Project", 1014: "GPLv3+ and MIT",
    1020: "https://www.gnu.org/software/bash", 1022: "x86_64", 1044: "bash-5.2.15-3.fc38.src.rpm",
}  # fmt: skip
_INT32, _STRING = 4, 6


def rpm_header(values: Mapping[int, str | int]) -> bytes:
    """A header blob: an index of tags, and their data."""
    entries, data = b"", b""
    for tag, value in sorted(values.items()):
        if isinstance(value, int):
            data += bytes(-len(data) % 4)
            entries += struct.pack(">4I", tag, _INT32, len(data), 1)
            data += value.to_bytes(4)
        else:
            entries += struct.pack(">4I", tag, _STRING, len(data), 1)
            data += value.encode() + b"\0"
    return struct.pack(">2I", len(values), len(data)) + entries + data


def rpm_database(path: Path, headers: Sequence[bytes]) -> bytes:
    """An rpmdb.sqlite with a write-ahead log, as rpm creates it."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def go_program(version: str, modules: str, *, flags: int = 2) -> bytes:
    """A 64-bit ELF file with only the section that Go's linker writes, and the string table."""
    texts = (version.encode(), b"0" * 16 + modules.encode() + b"1" * 16)
    info = b"\xff Go buildinf:" + bytes((8, flags)) + bytes(16) + b"".join(_length(len(t)) + t for t in texts)
    names = b"\0.go.buildinfo\0.shstrtab\0"
    sections = [(0, 0, 0), (1, 64, len(info)), (15, 64 + len(info), len(names))]
    table = b"".join(struct.pack("<2I4Q2I2Q", name, 1, 0, 0, at, size, 0, 0, 1, 0) for name, at, size in sections)
    tail = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64 + len(info) + len(names), 0, 64, 0, 0, 64, 3, 2)
    return b"\x7fELF\2\1\1" + bytes(9) + tail + info + names + table


def _length(number: int) -> bytes:
    """LEB128."""
    more, low = divmod(number, 128)
    return bytes((low | 128,)) + _length(more) if more else bytes((low,))
