"""Go modules, from the section .go.buildinfo that Go's linker writes into every ELF program.

    section   \\xff Go buildinf: | pointer size | flags | ... to byte 32 | version | modules      strings: length, bytes
    modules   16 bytes | path  mod  dep  =>  lines, fields separated by tabs | 16 bytes

Source: debug/buildinfo, runtime/debug.ParseBuildInfo; elf(5). Programs of Go before 1.18 have pointers instead.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from havre.packages.model import Package, Unreadable, clean

Read = Callable[[int, int], bytes]
"""Reads at most a number of bytes at an offset of the file: (offset, size)."""

_SECTION, _MAGIC = b".go.buildinfo", b"\xff Go buildinf:"
_INLINE, _STRINGS_AT, _SENTINEL = 2, 32, 16
_SECTIONS_LIMIT, _NAMES_LIMIT, _INFO_LIMIT = 1024, 1 << 20, 4 << 20
_RELEASE = re.compile(r"go(\d[\w.]*)")


def parse_program(read: Read, path: str) -> list[Package]:
    """The modules of a program, and Go's standard library; empty for any other file. `Unreadable` for Go before
    1.18."""
    info = _build_info(read)
    if not info.startswith(_MAGIC) or len(info) < _STRINGS_AT:
        return []
    if not info[15] & _INLINE:
        raise Unreadable("it was built by Go before 1.18, which is not supported")
    version, rest = _string(info[_STRINGS_AT:])
    modules, _ = _string(rest)
    found: dict[tuple[str, str], None] = {}
    if release := _RELEASE.match(version.decode(errors="replace")):
        found["stdlib", release[1]] = None
    last = ("", "")
    for line in modules[_SENTINEL:-_SENTINEL].decode(errors="replace").splitlines():
        kind, *fields = line.split("\t")
        if kind not in ("mod", "dep", "=>") or len(fields) < 2:
            continue
        if kind == "=>":
            found.pop(last, None)
        last = (clean(fields[0]), clean(fields[1]))
        if last[0] and last[1]:
            found[last] = None
    return [_package(name, version, path) for name, version in found]


def _package(module: str, version: str, path: str) -> Package:
    namespace, _, name = module.rpartition("/")
    return Package(
        kind="golang", namespace=namespace, name=name, version=version, path=path, record="the program's build info"
    )


def _build_info(read: Read) -> bytes:
    """The content of the section; empty without one."""
    head = read(0, 64)
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return b""
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 40 if wide else 32)
    entry_size, count, names_index = struct.unpack_from(order + "3H", head, 58 if wide else 46)
    form = struct.Struct(order + ("2I4Q2I2Q" if wide else "10I"))
    if entry_size != form.size or count > _SECTIONS_LIMIT or names_index >= count:
        return b""
    raw = read(table, entry_size * count)
    if len(raw) < entry_size * count:
        return b""
    sections = [(each[0], each[4], each[5]) for each in form.iter_unpack(raw)]
    _, names_at, names_size = sections[names_index]
    names = read(names_at, min(names_size, _NAMES_LIMIT))
    wanted = names.find(b"\0" + _SECTION + b"\0") + 1
    for name, offset, size in sections:
        if wanted and name == wanted:
            return read(offset, min(size, _INFO_LIMIT))
    return b""


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A string with its length as an unsigned LEB128 in front, and the rest."""
    length = shift = 0
    for index, byte in enumerate(data[:10]):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return data[index + 1 : index + 1 + length], data[index + 1 + length :]
    return b"", b""
