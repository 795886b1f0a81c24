"""A package that is installed, the distribution it is of, and all that was found in one file system."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT_LIMIT = 4096
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff￾￿]+")


class Unreadable(Exception):
    """A record is there, but not of a form that can be read; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """One package. `kind` is the type in its package URL: deb, apk, rpm, pypi, npm, golang.

    `namespace` is what stands before the name (npm's scope, a Go module's parent), `epoch` rpm's if there is one.
    `source` names the source package, with its version where that differs. `licences` are as the package itself names
    them, and apply together; `supplier` is a text like `Name <address>`. `path` is where it was found, `record` what
    kind of file tells of it.
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
    """All packages, sorted; `gaps` are sentences about what is there and could not be read."""

    distribution: Distribution
    packages: tuple[Package, ...]
    gaps: tuple[str, ...] = ()


def clean(text: str) -> str:
    """A text of a record on one line and of bounded length, without characters that JSON or terminals cannot show."""
    return _UNPRINTABLE.sub(" ", text[:_TEXT_LIMIT]).strip()
