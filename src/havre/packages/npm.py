"""Node packages, from their package.json.

Source: docs.npmjs.com, "package.json".
"""

from __future__ import annotations

from typing import Any

import msgspec

from havre.packages.model import Package, Unreadable, clean

_LICENCES_LIMIT = 100


def parse_package(data: bytes, path: str) -> Package | None:
    """The package of a package.json below node_modules; None without a name, `Unreadable` if it is not JSON."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"it is not JSON: {clean(str(error))}") from error
    if not isinstance(found, dict):
        return None
    scope, _, name = _text(found.get("name")).rpartition("/")
    version = _text(found.get("version"))
    if not name or not version:
        return None
    return Package(
        kind="npm",
        name=name,
        version=version,
        path=path,
        record="its package.json",
        namespace=scope,
        licences=(_licence(found),),
        supplier=_person(found.get("author")),
        homepage=_text(found.get("homepage")),
    )


def _licence(found: dict[str, Any]) -> str:
    """`license` as text or in the older object form, or the older list `licenses`."""
    given = found.get("license") or found.get("licenses") or ""
    several = given[:_LICENCES_LIMIT] if isinstance(given, list) else [given]
    names = [_text(each.get("type")) if isinstance(each, dict) else _text(each) for each in several]
    names = [name for name in names if name]
    return names[0] if len(names) == 1 else clean(" OR ".join(f"({name})" for name in names))


def _person(given: object) -> str:
    if not isinstance(given, dict):
        return _text(given).partition(" (")[0]
    name, address = _text(given.get("name")), _text(given.get("email"))
    return f"{name} <{address}>" if name and address else name or address


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""
