"""Files of `Name: value` lines: stanzas of dpkg, headers of Python's metadata, assignments of os-release.

Lines are taken one by one, and of each a bounded part: a file without end costs time alone.

Source: deb-control(5), Python's "core metadata", os-release(5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from havre.packages.model import Distribution, clean

FOLDED = "\n"
_LINE_LIMIT = 1 << 16  # bytes


def lines(data: bytes) -> Iterator[str]:
    """The lines of a text, without what ends them; of a long one the beginning."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            end = len(data)
        yield data[start : min(end, start + _LINE_LIMIT)].removesuffix(b"\r").decode(errors="replace")
        start = end + 1


def stanzas(data: bytes, wanted: Collection[str]) -> Iterator[dict[str, str]]:
    """The records of a file, which empty lines part: what they have of `wanted`; the first of a name counts.

    Names are in lower case. Of a value that goes on in folded lines there is the first line.
    """
    found: dict[str, str] = {}
    for line in lines(data):
        if not line and found:
            yield found
            found = {}
        key, colon, value = line.partition(":")
        if colon and (name := key.lower()) in wanted:
            found.setdefault(name, value.strip())
    if found:
        yield found


def headers(data: bytes) -> Iterator[tuple[str, str]]:
    """The lines before the first empty one, names in lower case; a value that goes on in folded lines ends so."""
    name = value = ""
    for line in lines(data):
        if not line:
            break
        key, colon, rest = line.partition(":")
        if line[0] in " \t":
            value = value.removesuffix(FOLDED) + FOLDED
        elif colon:
            if name:
                yield name, value
            name, value = key.lower(), rest.strip()
    if name:
        yield name, value


def parse_os_release(data: bytes) -> Distribution:
    """The distribution that a file like /etc/os-release tells of."""
    pairs = (line.partition("=")[::2] for line in lines(data) if not line.startswith("#"))
    found: Mapping[str, str] = {key.strip(): clean(value.strip().strip("\"'")) for key, value in pairs}
    return Distribution(found.get("ID", ""), found.get("VERSION_ID", ""), found.get("PRETTY_NAME", ""))
