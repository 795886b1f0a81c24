"""What dpkg has installed, and what the copyright files of Debian's packages say.

Source: dpkg-query(1), deb-control(5), "Machine-readable debian/copyright file" version 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from havre.packages.fields import stanzas
from havre.packages.model import Package, clean

_LICENCES_LIMIT = 100
_ABSENT = ("not-installed", "config-files")
_COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
_FORMAT = "copyright-format"


def parse_status(text: str, path: str) -> Iterator[Package]:
    """The packages of dpkg's status file, or of one of distroless' status.d, which tell no state."""
    for fields in stanzas(text):
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


def parse_copyright(text: str) -> tuple[str, ...]:
    """The licences that a copyright file names; of free text those of common-licenses it points to."""
    if _FORMAT not in text[:512]:
        return tuple(sorted(set(_COMMON.findall(text))))[:_LICENCES_LIMIT]
    names = {clean(fields.get("license", "")) for fields in stanzas(text)}
    return tuple(sorted(names - {""}))[:_LICENCES_LIMIT]
