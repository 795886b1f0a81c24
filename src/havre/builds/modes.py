"""Permission bits of `--chmod` of COPY and ADD: octal, or symbolic as for chmod(1). Pure.

    --chmod=755            absolute
    --chmod=u=rwX,go=rX    relative to the file's mode; X is x for directories and where any x is set

Source: the Dockerfile reference, "COPY --chmod"; chmod(1), "STANDARDS"; moby/buildkit applies no umask.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass

from havre.errors import InvalidInput

_ALL = 0o7777
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_CHANGE = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_WHO = {"u": stat.S_IRWXU | stat.S_ISUID, "g": stat.S_IRWXG | stat.S_ISGID, "o": stat.S_IRWXO | stat.S_ISVTX}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": stat.S_ISUID | stat.S_ISGID, "t": stat.S_ISVTX}
_SHIFTS = {"u": 6, "g": 3, "o": 0}


@dataclass(frozen=True)
class Mode:
    """Absolute bits, or changes: the classes as a mask, the operator (+, - or =), and the permissions as written."""

    bits: int | None = None
    changes: tuple[tuple[int, str, str], ...] = ()

    def of(self, mode: int, *, is_directory: bool = False) -> int:
        """The mode of a file whose mode was `mode`."""
        if self.bits is not None:
            return self.bits
        for who, how, what in self.changes:
            given = _given(what, mode, is_directory=is_directory) & who
            kept = mode & ~who if how == "=" else mode
            mode = kept & ~given if how == "-" else kept | given
        return mode & _ALL


def parse_mode(text: str) -> Mode | None:
    """The mode of a flag's value; None for an empty one. Raises `InvalidInput`."""
    if not text:
        return None
    if text.isdecimal():
        if set(text) <= set("01234567") and int(text, 8) <= _ALL:
            return Mode(int(text, 8))
        raise _invalid(text)
    changes: list[tuple[int, str, str]] = []
    for clause in text.split(","):
        if (found := _CLAUSE.fullmatch(clause)) is None:
            raise _invalid(text)
        named = [_WHO[each] for each in found[1] if each != "a"]
        who = 0
        for bits in named if found[1] and "a" not in found[1] else _WHO.values():
            who |= bits
        changes += [(who, how, what) for how, what in _CHANGE.findall(found[2])]
    return Mode(changes=tuple(changes))


def _given(what: str, mode: int, *, is_directory: bool) -> int:
    """The bits of the permissions, for all classes."""
    if what in _SHIFTS:
        return (mode >> _SHIFTS[what] & 7) * 0o111
    given = 0
    for each in what:
        if each == "X":
            given |= _BITS["x"] if is_directory or mode & 0o111 else 0
        else:
            given |= _BITS[each]
    return given


def _invalid(text: str) -> InvalidInput:
    return InvalidInput(
        f"invalid chmod parameter: '{text}'", "expected octal between 0 and 07777, or as in u=rwX,go=rX"
    )
