"""Versions and features reported by the programs that containers depend on."""

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
    """A program's version and source commit, "" where unknown."""

    version: str
    commit: str


class Releases:
    """Asks each program once, and again when its file has been replaced."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int], Release] = {}
        self._features: dict[tuple[Path, int], str] = {}

    async def of(self, program: Path) -> Release:
        """The output of `PROGRAM --version`; empty for a program that is missing or fails."""
        try:
            key = (program, program.stat().st_mtime_ns)
            if key not in self._known:
                self._known[key] = parse_release((await spawn.run([str(program), "--version"])).stdout)
        except OSError:
            return Release("", "")
        return self._known[key]

    async def features(self, program: Path) -> str:
        """The output of `RUNTIME features` as one line of JSON (OCI runtime specification, features.md); "" without
        any."""
        try:
            key = (program, program.stat().st_mtime_ns)
            if key not in self._features:
                self._features[key] = parse_features((await spawn.run([str(program), "features"])).stdout)
        except (OSError, Failed):
            return ""
        return self._features[key]


def parse_features(text: str) -> str:
    """An OCI runtime's features without white space; "" for other output, such as an error message."""
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    return json.dumps(found, separators=(",", ":")) if isinstance(found, dict) else ""


def knows_mount_option(features: str, option: str) -> bool:
    """Report whether an OCI runtime with these features supports a mount option."""
    options = json.loads(features or "{}").get("mountOptions")
    return isinstance(options, list) and option in options


def knows_time_namespaces(features: str) -> bool:
    """Report whether an OCI runtime with these features makes time namespaces; crun does without listing them."""
    report = json.loads(features or "{}")
    listed = (report.get("linux") or {}).get("namespaces") or ()
    return "time" in listed or "run.oci.crun.version" in (report.get("annotations") or {})


def parse_release(text: str) -> Release:
    """Parse `crun version 1.21`, `commit: 1026...` and the like of runc, conmon, tini and catatonit."""
    version, commit = _VERSION.search(text), _COMMIT.search(text)
    return Release(version[1] if version else "", commit[1] if commit else "")
