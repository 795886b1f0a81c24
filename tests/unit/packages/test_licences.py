"""Licences as packages name them, as SPDX expressions."""

from __future__ import annotations

import re

import pytest

from havre.packages import npm, pypi
from havre.packages.licences import declare


@pytest.mark.parametrize(
    ("texts", "expression"),
    [
        ((), "NOASSERTION"),
        (("UNKNOWN",), "NOASSERTION"),
        (("The MIT License",), "MIT"),
        (("Expat", "GPL-2+"), "MIT AND GPL-2.0-or-later"),
        (("GPL-2+ or Artistic", "GPL-2+"), "(GPL-2.0-or-later OR Artistic-1.0-Perl) AND GPL-2.0-or-later"),
        (("GPLv2+ and LGPLv2",), "GPL-2.0-or-later AND LGPL-2.0-only"),
        (("(MIT OR Apache-2.0)",), "(MIT OR Apache-2.0)"),
        (("a AND (MIT OR b)", "ISC"), "(LicenseRef-a AND (MIT OR LicenseRef-b)) AND ISC"),
        (("Apache-2.0 WITH LLVM-exception",), "Apache-2.0 WITH LLVM-exception"),
        (("GPL-2+ with font-exception-2.0", "busl-1.1"), "GPL-2.0-or-later WITH Font-exception-2.0 AND BUSL-1.1"),
        (("MIT WITH (LLVM-exception)",), "LicenseRef-MIT-WITH-LLVM-exception-HASH"),
        (("MIT AND LicenseRef-own",), "MIT AND LicenseRef-own"),
        (("GPL-2+ with own-exception",), "LicenseRef-GPL-2-WITH-own-exception-HASH"),
        (("see the file (COPYING",), "LicenseRef-see-the-file-COPYING-HASH"),
        (("LLVM-exception",), "LicenseRef-LLVM-exception"),
        ((" AND ".join(["MIT"] * 60),), "LicenseRef-" + "MIT-AND-" * 8 + "HASH"),
    ],
)
def test_licences(texts: tuple[str, ...], expression: str) -> None:
    found = declare(tuple(texts))
    assert re.sub(r"-[0-9a-f]{8}\b", "-HASH", found.expression) == expression
    assert set(found.unlisted) == {word.strip("()") for word in found.expression.split() if "LicenseRef-" in word}


def test_licences_without_end_are_cut() -> None:
    many = b'{"name": "a", "version": "1", "licenses": [%s]}' % b",".join([b'"%s"' % (b"(" * 4000)] * 200)
    package = npm.parse_package(many, "/p")
    assert package is not None
    assert len(package.licences[0]) <= 4096
    found = declare(("(" * 100_000,))
    assert [len(text) for text in found.unlisted.values()] == [4096]
    classifiers = b"".join(b"Classifier: License :: OSI Approved :: %d\n" % number for number in range(1000))
    python = pypi.parse_metadata(b"Name: a\nVersion: 1\n" + classifiers, "/m")
    assert python is not None
    assert len(python.licences) == 100
