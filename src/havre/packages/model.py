"""Values: a package, a distribution, and the inventory of a file system."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT_LIMIT = 4096
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff￾￿]+")


class Unreadable(Exception):
    """A record exists but cannot be read; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One package. `kind` is the type in its package URL: deb, apk, rpm, pypi, npm, golang.

    `namespace` precedes the name (npm's scope, a Go module's parent), `epoch` is rpm's. `source` is the source package,
    with
    its version where that differs. `licences` are as stated by the package, and apply together; `supplier` is text like
    `Name <address>`. `path` is where it was found, `record` the kind of file that describes it.
    """

    kind: str
    name: str
    version: str
    path: str = ""
    record: str = ""
    namespace: str = ""
    architecture: str = ""
    epoch: str = ""
    source: str = ""
    licences: tuple[str, ...] = ()
    supplier: str = ""
    homepage: str = ""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What os-release(5) says: `debian`, `12`, `Debian GNU/Linux 12 (bookworm)`."""

    id: str = ""
    version: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All packages, sorted; `gaps` are sentences about records that could not be read."""

    distribution: Distribution
    packages: tuple[Package, ...]
    gaps: tuple[str, ...] = ()


def clean(text: str) -> str:
    """Collapse a text to one line of limited length, without characters that JSON or terminals cannot show."""
    return _UNPRINTABLE.sub(" ", text[:_TEXT_LIMIT]).strip()
