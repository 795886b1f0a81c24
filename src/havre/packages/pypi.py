"""Python packages, from the metadata of wheels and eggs.

Source: packaging.python.org, "Core metadata specifications", "Recording installed projects".
"""

from __future__ import annotations

from havre.packages.fields import FOLDED, headers
from havre.packages.model import Package, clean

_LICENCES = "License :: OSI Approved :: "
_LICENCES_LIMIT = 100
_LONGEST_NAME = 40
_FIELDS = frozenset(
    (
        "name",
        "version",
        "author",
        "maintainer",
        "author-email",
        "maintainer-email",
        "home-page",
        "license",
        "license-expression",
    )
)
_UNKNOWN = ("UNKNOWN", "NONE")


def parse_metadata(data: bytes, path: str) -> Package | None:
    """The package of a METADATA or PKG-INFO file; None without a name."""
    fields: dict[str, str] = {}
    classified: set[str] = set()
    for key, value in headers(data):
        if key == "classifier" and value.startswith(_LICENCES) and len(classified) < _LICENCES_LIMIT:
            classified.add(clean(value.removeprefix(_LICENCES)))
        elif key in _FIELDS and value.upper() not in _UNKNOWN:
            fields.setdefault(key, value)
    name, version = clean(fields.get("name", "")), clean(fields.get("version", ""))
    if not name or not version:
        return None
    author = fields.get("author") or fields.get("maintainer") or ""
    address = fields.get("author-email") or fields.get("maintainer-email") or ""
    return Package(
        kind="pypi",
        name=name,
        version=version,
        path=path,
        record="its metadata",
        licences=_licences(fields, classified),
        supplier=clean(address if "<" in address or not author else f"{author} <{address}>" if address else author),
        homepage=clean(fields.get("home-page", "")),
    )


def _licences(fields: dict[str, str], classified: set[str]) -> tuple[str, ...]:
    """The license expression, else a short name, else the classifiers; a full license text is not a name."""
    if expression := fields.get("license-expression"):
        return (clean(expression),)
    name = fields.get("license", "")
    if name and FOLDED not in name and len(name) <= _LONGEST_NAME:
        return (clean(name),)
    return tuple(sorted(classified))
