"""Converts licenses as packages state them into SPDX expressions.

    GPL-2+ AND BSD-3-clause  -->  GPL-2.0-or-later AND BSD-3-Clause
    GPLv2+ and Foo           -->  GPL-2.0-or-later AND LicenseRef-Foo       Foo is then listed as an unlisted license

A name that is not on SPDX's list becomes a `LicenseRef-`, whose text the document includes; so does, as a whole, a text
that is not an expression. The grammar and the list are those of `packaging` (PEP 639); distributions' short names are
here.

Source: SPDX 2.3, annex D "SPDX license expressions"; short names of Debian's copyright-format 1.0 and of older Fedoras.
Why: docs/decisions/395.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from havre.packages.model import clean

NONE = "NOASSERTION"
_TERM = re.compile(r"[()]|([^\s()]+)(?:\s+with\s+([^\s()]+))?", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:/_~-]*\Z")
_LONGEST = 64  # limit of terms in an expression and characters in a reference; longer expressions count as text
_OPERATORS = {"and": "AND", "or": "OR", "&": "AND", "|": "OR", "with": "WITH"}

_ALIASES = """
expat=MIT mit/x11=MIT mit/expat=MIT apache=Apache-2.0 apache-2=Apache-2.0 asl2.0=Apache-2.0 boost=BSL-1.0
artistic=Artistic-1.0-Perl artistic-1=Artistic-1.0 artistic-2=Artistic-2.0 bsd-2=BSD-2-Clause bsd-3=BSD-3-Clause
bsd-4=BSD-4-Clause cc0=CC0-1.0 python=Python-2.0 psf=PSF-2.0 psfl=PSF-2.0 zpl=ZPL-2.1 mplv1.1=MPL-1.1 mplv2.0=MPL-2.0
mpl-2=MPL-2.0 ofl=OFL-1.1 openldap=OLDAP-2.8
"""
_SHORT_NAMES = dict(pair.split("=") for pair in _ALIASES.split())
_GNU = re.compile(r"(a?gpl|lgpl|gfdl|fdl)-?v?(\d)(?:\.(\d))?(?:\.0)?(\+|-or-later|-only)?\Z")
_ARTICLE = re.compile(r"\Athe ")
_TITLES = {
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation": "PSF-2.0",
}


@dataclass(frozen=True, slots=True)
class Licence:
    """An SPDX expression, and the texts of its references to unlisted licenses."""

    expression: str = NONE
    unlisted: Mapping[str, str] = field(default_factory=dict)


def declare(texts: tuple[str, ...]) -> Licence:
    """The conjunction of all licenses that a package states, each cleaned by `clean`; `NOASSERTION` for none."""
    unlisted: dict[str, str] = {}
    expressions = [expression for text in texts if (expression := _express(clean(text), unlisted))]
    if len(expressions) == 1:
        return Licence(expressions[0], unlisted)
    parts = (([f"({each})"] if " OR " in each or "(" in each else each.split(" AND ")) for each in expressions)
    return Licence(" AND ".join(dict.fromkeys(chain.from_iterable(parts))) or NONE, unlisted)


def _express(text: str, unlisted: dict[str, str]) -> str:
    """The expression of one text; empty without a license."""
    if text.upper() in ("", "NONE", "UNKNOWN", "N/A", NONE):
        return ""
    title = _ARTICLE.sub("", text.lower())
    if found := _TITLES.get(title) or _identify(title.removesuffix(" license")):
        return found
    custom: dict[str, str] = {}
    try:
        expression: str = canonicalize_license_expression(" ".join(_translate(text, custom)))
    except InvalidLicenseExpression:
        expression = _reference(text)
        custom = {expression: text}
    unlisted |= custom
    return expression


def _translate(text: str, unlisted: dict[str, str]) -> Iterator[str]:
    """Yield an expression's terms with names replaced by identifiers and references; `InvalidLicenseExpression` for
    prose."""
    for count, term in enumerate(_TERM.finditer(text.replace(",", " AND "))):
        name, exception = term.groups()
        if count == _LONGEST:
            raise InvalidLicenseExpression
        if name is None:
            yield term[0]
        elif name.lower() in _OPERATORS:
            yield f"{_OPERATORS[name.lower()]} WITH {exception}" if exception else _OPERATORS[name.lower()]
        elif not _WORD.match(name) or (exception and not _WORD.match(exception)):
            raise InvalidLicenseExpression
        elif found := _identify(name, exception):
            yield found
        else:
            own = f"{name} WITH {exception}" if exception else name
            unlisted[reference := _reference(own)] = own
            yield reference


def _identify(name: str, exception: str | None = None) -> str | None:
    """SPDX's identifier of a license, with its exception; None if either is not on the list."""
    if not _WORD.match(name):
        return None
    suffix = f" WITH {exception}" if exception else ""
    for known in filter(None, (_SHORT_NAMES.get(name.lower()), _gnu(name.lower()), name)):
        with suppress(InvalidLicenseExpression):
            if (found := canonicalize_license_expression(known + suffix)).startswith("LicenseRef-"):
                return None
            return found
    return None


def _gnu(name: str) -> str | None:
    """SPDX's identifier of a GNU license as Debian and Fedora write it: GPL-2+, LGPLv2.1."""
    if not (match := _GNU.match(name)):
        return None
    family, major, minor, later = match.groups()
    family = "GFDL" if family in ("gfdl", "fdl") else family.upper()
    return f"{family}-{major}.{minor or 0}-{'or-later' if later in ('+', '-or-later') else 'only'}"


def _reference(text: str) -> str:
    """`LicenseRef-` with the characters valid in identifiers; a hash is added if some were dropped."""
    text = text.removeprefix("LicenseRef-")
    kept = re.sub(r"[^A-Za-z0-9.-]+", "-", text)[:_LONGEST].strip("-.")
    told_apart = () if kept == text else (hashlib.sha256(text.encode()).hexdigest()[:8],)
    return "-".join(("LicenseRef", *filter(None, (kept, *told_apart))))
