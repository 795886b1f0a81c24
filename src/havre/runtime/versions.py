"""What the programs that containers rest upon say of themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from havre.runtime import spawn

_VERSION = re.compile(r"\bversion v?(\S+)")
_COMMIT = re.compile(r"^commit: (\S+)", re.MULTILINE)


class Release(NamedTuple):
    """A program's version and the commit it was made from, "" for what it does not say."""

    version: str
    commit: str


class Releases:
    """Asks each program once, and again when its file has been replaced."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int], Release] = {}

    async def of(self, program: Path) -> Release:
        """What `PROGRAM --version` says; nothing of a program that is gone or fails."""
        try:
            key = (program, program.stat().st_mtime_ns)
            if key not in self._known:
                self._known[key] = parse_release((await spawn.run([str(program), "--version"])).stdout)
        except OSError:
            return Release("", "")
        return self._known[key]


def parse_release(text: str) -> Release:
    """`crun version 1.21`, `commit: 1026...` and the like of runc, conmon, tini and catatonit."""
    version, commit = _VERSION.search(text), _COMMIT.search(text)
    return Release(version[1] if version else "", commit[1] if commit else "")
