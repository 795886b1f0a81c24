"""Packages installed by Alpine's package manager: records of one-letter fields.

Source: Alpine's wiki, "Apk spec", installed database V2.
"""

from __future__ import annotations

from collections.abc import Iterator

from havre.packages.fields import lines
from havre.packages.model import Package, clean

_FIELDS = frozenset("PVALomU")


def parse_installed(data: bytes, path: str) -> Iterator[Package]:
    """The packages of lib/apk/db/installed."""
    for found in _records(data):
        name, version = found.get("P", ""), found.get("V", "")
        if not name or not version:
            continue
        origin = found.get("o", "")
        yield Package(
            kind="apk",
            name=name,
            version=version,
            path=path,
            record="apk's database",
            architecture=found.get("A", ""),
            source=origin if origin != name else "",
            licences=(found.get("L", ""),),
            supplier=found.get("m", ""),
            homepage=found.get("U", ""),
        )


def _records(data: bytes) -> Iterator[dict[str, str]]:
    found: dict[str, str] = {}
    for line in lines(data):
        if not line and found:
            yield found
            found = {}
        if line[:1] in _FIELDS and line[1:2] == ":":
            found.setdefault(line[0], clean(line[2:]))
    if found:
        yield found
