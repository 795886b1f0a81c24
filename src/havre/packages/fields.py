"""Files of `Name: value` lines: stanzas of dpkg, headers of Python's metadata, assignments of os-release.

Lines are read one by one, each up to a limit: a huge file costs only time.

Source: deb-control(5), Python's "core metadata", os-release(5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from havre.packages.model import Distribution, clean

FOLDED = "\n"
_LINE_LIMIT = 1 << 16  # bytes


def lines(data: bytes) -> Iterator[str]:
    """Yield the lines of a text without line ends; long ones are truncated."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            end = len(data)
        yield data[start : min(end, start + _LINE_LIMIT)].removesuffix(b"\r").decode(errors="replace")
        start = end + 1


def stanzas(data: bytes, wanted: Collection[str]) -> Iterator[dict[str, str]]:
    """Yield the records of a file, separated by empty lines: their fields in `wanted`; the first of a name counts.

    Names are in lower case. Of a folded value only the first line is kept.
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
    """Yield the lines before the first empty one, names in lower case; of a folded value only the first line."""
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
    """The distribution described by a file like /etc/os-release."""
    pairs = (line.partition("=")[::2] for line in lines(data) if not line.startswith("#"))
    found: Mapping[str, str] = {key.strip(): clean(value.strip().strip("\"'")) for key, value in pairs}
    return Distribution(found.get("ID", ""), found.get("VERSION_ID", ""), found.get("PRETTY_NAME", ""))
