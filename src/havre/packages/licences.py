"""Licences as packages name them, made into SPDX's expressions.

    GPL-2+ AND BSD-3-clause  -->  GPL-2.0-or-later AND BSD-3-Clause
    GPLv2+ and Foo           -->  GPL-2.0-or-later AND LicenseRef-Foo       Foo is then told of as a licence not listed

What SPDX's list does not have becomes a `LicenseRef-`, of which the document keeps the text; so does a text that is no
expression, as a whole. The identifiers here are those that distributions use, not the whole list.

Source: SPDX 2.3, annex D "SPDX license expressions"; short names of Debian's copyright-format 1.0 and of older Fedoras.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from havre.packages.model import clean

NONE = "NOASSERTION"
_TOKENS = re.compile(r"\(|\)|[^\s()]+")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:/_~-]*\Z")
_LONGEST = 64  # tokens of an expression; longer ones are texts
_DEEPEST = 16
_OPERATORS = {"and": "AND", "or": "OR", "&": "AND", "|": "OR", "with": "WITH"}

_LISTED = """
0BSD AFL-2.1 AGPL-1.0-only AGPL-3.0-only AGPL-3.0-or-later Apache-1.0 Apache-1.1 Apache-2.0 APSL-2.0 Artistic-1.0
Artistic-1.0-Perl Artistic-2.0 Beerware Bitstream-Vera blessing BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause
BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-4-Clause BSD-4-Clause-UC
BSD-Source-Code BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDDL-1.0 CDDL-1.1
CECILL-2.1 CNRI-Python CPL-1.0 curl EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 FSFAP FSFUL FSFULLR FTL GFDL-1.1-only
GFDL-1.1-or-later GFDL-1.2-only GFDL-1.2-or-later GFDL-1.3-only GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-later
GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND HPND-sell-variant ICU IJG ImageMagick Info-ZIP
IPL-1.0 ISC JSON LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later
Libpng libpng-2.0 libtiff LPPL-1.3c MirOS MIT MIT-0 MIT-CMU MIT-Modern-Variant MPL-1.0 MPL-1.1 MPL-2.0 MS-PL NCSA
Naumen NTP OFL-1.0 OFL-1.1 OLDAP-2.8 OpenSSL PHP-3.0 PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 QPL-1.0
Ruby SGI-B-2.0 Sleepycat SMLNL SSH-OpenSSH SSH-short TCL TCP-wrappers Unicode-3.0 Unicode-DFS-2016 Unlicense UPL-1.0
Vim W3C WTFPL X11 Xnet Zlib zlib-acknowledgement ZPL-2.1
"""
_LISTED_EXCEPTIONS = """
Autoconf-exception-2.0 Autoconf-exception-3.0 Bison-exception-2.2 Classpath-exception-2.0 GCC-exception-2.0
GCC-exception-3.1 Libtool-exception Linux-syscall-note LLVM-exception OpenJDK-assembly-exception-1.0
openvpn-openssl-exception
"""
_ALIASES = """
expat=MIT mit/x11=MIT mit/expat=MIT apache=Apache-2.0 apache-2=Apache-2.0 asl2.0=Apache-2.0 boost=BSL-1.0
artistic=Artistic-1.0-Perl artistic-1=Artistic-1.0 artistic-2=Artistic-2.0 bsd-2=BSD-2-Clause bsd-3=BSD-3-Clause
bsd-4=BSD-4-Clause cc0=CC0-1.0 python=Python-2.0 psf=PSF-2.0 psfl=PSF-2.0 zpl=ZPL-2.1 mplv1.1=MPL-1.1 mplv2.0=MPL-2.0
mpl-2=MPL-2.0 ofl=OFL-1.1 openldap=OLDAP-2.8
"""
_BY_NAME = {name.lower(): name for name in _LISTED.split()} | dict(pair.split("=") for pair in _ALIASES.split())
_EXCEPTIONS = {name.lower(): name for name in _LISTED_EXCEPTIONS.split()}
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
    """An SPDX expression, and the texts of the references in it to licences that SPDX's list does not have."""

    expression: str = NONE
    unlisted: Mapping[str, str] = field(default_factory=dict)


def declare(texts: tuple[str, ...]) -> Licence:
    """All the licences that a package names so, of each text what `clean` keeps; `NOASSERTION` for none."""
    unlisted: dict[str, str] = {}
    expressions = [expression for text in texts if (expression := _express(clean(text), unlisted))]
    if len(expressions) == 1:
        return Licence(expressions[0], unlisted)
    parts = (([f"({each})"] if " OR " in each or "(" in each else each.split(" AND ")) for each in expressions)
    return Licence(" AND ".join(dict.fromkeys(chain.from_iterable(parts))) or NONE, unlisted)


def _express(text: str, unlisted: dict[str, str]) -> str:
    """The expression for one text; empty for one that names none."""
    if text.upper() in ("", "NONE", "UNKNOWN", "N/A", NONE):
        return ""
    title = _ARTICLE.sub("", text.lower())
    if found := _TITLES.get(title) or _BY_NAME.get(title.removesuffix(" license")):
        return found
    told: dict[str, str] = {}
    try:
        expression = _Parser(_TOKENS.findall(text.replace(",", " AND "))[: _LONGEST + 1], told).parse()
    except _NoExpression:
        expression = _reference(text)
        told = {expression: text}
    unlisted |= told
    return expression


class _NoExpression(Exception):
    """The text is prose."""


class _Parser:
    """Recursive descent over `a AND (b OR c WITH d)`."""

    def __init__(self, tokens: list[str], unlisted: dict[str, str]) -> None:
        if len(tokens) > _LONGEST:
            raise _NoExpression
        self._tokens = tokens
        self._unlisted = unlisted
        self._at = 0

    def parse(self) -> str:
        found = self._several(0)
        if self._at < len(self._tokens):
            raise _NoExpression
        return found

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _operator(self) -> str:
        return _OPERATORS.get(self._next().lower(), "")

    def _several(self, depth: int) -> str:
        found = self._one(depth)
        while self._operator() in ("AND", "OR"):
            operator = self._operator()
            self._at += 1
            found += f" {operator} {self._one(depth)}"
        return found

    def _one(self, depth: int) -> str:
        token = self._next()
        self._at += 1
        if token == "(":
            if depth == _DEEPEST:
                raise _NoExpression
            inner = self._several(depth + 1)
            if self._next() != ")":
                raise _NoExpression
            self._at += 1
            return f"({inner})"
        if not _WORD.match(token) or token.lower() in _OPERATORS:
            raise _NoExpression
        if self._operator() != "WITH":
            return self._named(token)
        exception = self._tokens[self._at + 1] if self._at + 1 < len(self._tokens) else ""
        self._at += 2
        if not _WORD.match(exception):
            raise _NoExpression
        listed = _EXCEPTIONS.get(exception.lower(), "")
        if listed and not (own := _identify(token)).startswith("LicenseRef-"):
            return f"{own} WITH {listed}"
        return self._named(f"{token} WITH {exception}")

    def _named(self, name: str) -> str:
        found = _identify(name)
        if found.startswith("LicenseRef-"):
            self._unlisted[found] = name
        return found


def _identify(name: str) -> str:
    """SPDX's identifier of a licence, or a reference to it."""
    key = name.lower()
    if listed := _BY_NAME.get(key):
        return listed
    if match := _GNU.match(key):
        family, major, minor, later = match.groups()
        family = "GFDL" if family in ("gfdl", "fdl") else family.upper()
        found = f"{family}-{major}.{minor or 0}-{'or-later' if later in ('+', '-or-later') else 'only'}"
        if found in _BY_NAME.values():
            return found
    return _reference(name)


def _reference(text: str) -> str:
    """`LicenseRef-` with what identifiers may have; where that is not all, a hash tells the text from others."""
    text = text.removeprefix("LicenseRef-")
    kept = re.sub(r"[^A-Za-z0-9.-]+", "-", text)[:_LONGEST].strip("-.")
    told_apart = () if kept == text else (hashlib.sha256(text.encode()).hexdigest()[:8],)
    return "-".join(("LicenseRef", *filter(None, (kept, *told_apart))))
