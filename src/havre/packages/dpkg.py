"""Packages installed by dpkg, and licenses in the copyright files of Debian's packages.

Source: dpkg-query(1), deb-control(5), "Machine-readable debian/copyright file" version 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from havre.packages.fields import stanzas
from havre.packages.model import Package, clean

_LICENCES_LIMIT = 100
_FIELDS = frozenset(("package", "version", "status", "source", "architecture", "maintainer", "homepage"))
_ABSENT = ("not-installed", "config-files")
_COMMON = re.compile(rb"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
_FORMAT = b"copyright-format"


def parse_status(data: bytes, path: str) -> Iterator[Package]:
    """The packages of dpkg's status file, or of a file in distroless' status.d, which has no states."""
    for fields in stanzas(data, _FIELDS):
        name, version = clean(fields.get("package", "")), clean(fields.get("version", ""))
        state = fields.get("status", "install ok installed").split()
        if not name or not version or not state or state[-1] in _ABSENT:
            continue
        source, _, rest = clean(fields.get("source", "")).partition(" ")
        own = rest.strip("()")
        yield Package(
            kind="deb",
            name=name,
            version=version,
            path=path,
            record="dpkg's database",
            architecture=clean(fields.get("architecture", "")),
            source=f"{source}@{own}" if own else source,
            supplier=clean(fields.get("maintainer", "")),
            homepage=clean(fields.get("homepage", "")),
        )


def parse_copyright(data: bytes) -> tuple[str, ...]:
    """The licenses in a copyright file; of free text, those of common-licenses that it refers to."""
    if _FORMAT not in data[:512]:
        return tuple(sorted({each.decode() for each in _COMMON.findall(data)}))[:_LICENCES_LIMIT]
    names = {clean(fields["license"]) for fields in stanzas(data, ("license",))}
    return tuple(sorted(names - {""}))[:_LICENCES_LIMIT]
