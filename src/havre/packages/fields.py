"""Files of `Name: value` lines: stanzas of dpkg, headers of Python's metadata, assignments of os-release.

Source: deb-control(5), Python's "core metadata", os-release(5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from havre.packages.model import Distribution, clean

FOLDED = "\n"


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The records of a file, which empty lines part; names in lower case, the first of a name counts.

    Of a value that goes on in folded lines there is the first line.
    """
    for block in text.replace("\r\n", "\n").split("\n\n"):
        found: dict[str, str] = {}
        for line in block.split("\n"):
            key, colon, value = line.partition(":")
            if colon and not key[:1].isspace():
                found.setdefault(key.lower(), value.strip())
        if found:
            yield found


def headers(text: str) -> list[tuple[str, str]]:
    """The lines before the first empty one, names in lower case; a value that goes on in folded lines ends so."""
    found: list[tuple[str, str]] = []
    for line in text.replace("\r\n", "\n").partition("\n\n")[0].split("\n"):
        key, colon, value = line.partition(":")
        if line[:1] in (" ", "\t"):
            if found and not found[-1][1].endswith(FOLDED):
                found[-1] = (found[-1][0], found[-1][1] + FOLDED)
        elif colon:
            found.append((key.lower(), value.strip()))
    return found


def parse_os_release(text: str) -> Distribution:
    """The distribution that a file like /etc/os-release tells of."""
    pairs = (line.partition("=")[::2] for line in text.splitlines() if not line.startswith("#"))
    found: Mapping[str, str] = {key.strip(): clean(value.strip().strip("\"'")) for key, value in pairs}
    return Distribution(found.get("ID", ""), found.get("VERSION_ID", ""), found.get("PRETTY_NAME", ""))
