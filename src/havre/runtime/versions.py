"""What the programs that containers rest upon say of themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from havre.errors import Failed
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
        self._features: dict[tuple[Path, int], str] = {}

    async def of(self, program: Path) -> Release:
        """What `PROGRAM --version` says; nothing of a program that is gone or fails."""
        try:
            key = (program, program.stat().st_mtime_ns)
            if key not in self._known:
                self._known[key] = parse_release((await spawn.run([str(program), "--version"])).stdout)
        except OSError:
            return Release("", "")
        return self._known[key]

    async def features(self, program: Path) -> str:
        """What `RUNTIME features` says, as one line of JSON (OCI runtime specification, features.md); "" if nothing."""
        try:
            key = (program, program.stat().st_mtime_ns)
            if key not in self._features:
                self._features[key] = parse_features((await spawn.run([str(program), "features"])).stdout)
        except (OSError, Failed):
            return ""
        return self._features[key]


def parse_features(text: str) -> str:
    """The features of an OCI runtime without white space; "" for what is none, such as a runtime's complaint."""
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    return json.dumps(found, separators=(",", ":")) if isinstance(found, dict) else ""


def knows_mount_option(features: str, option: str) -> bool:
    """Whether an OCI runtime with these features says that it knows a mount option."""
    options = json.loads(features or "{}").get("mountOptions")
    return isinstance(options, list) and option in options


def parse_release(text: str) -> Release:
    """`crun version 1.21`, `commit: 1026...` and the like of runc, conmon, tini and catatonit."""
    version, commit = _VERSION.search(text), _COMMIT.search(text)
    return Release(version[1] if version else "", commit[1] if commit else "")
