"""Content digests (OCI image specification, "Digests"): `sha256:` and 64 lower-case hexadecimal digits.

The engine itself uses only SHA-256. The registry also stores content under `sha512:` and 128 digits; there the number
of
digits determines the algorithm, as in its file names.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from havre.errors import InvalidInput

Digest = NewType("Digest", str)

SHA256, SHA512 = "sha256", "sha512"

_ANY = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Parse a SHA-256 digest. Raises `InvalidInput`."""
    if _SHA256.fullmatch(text) is None:
        raise InvalidInput(f"invalid digest {text!r}", "expected sha256: and 64 hexadecimal digits")
    return Digest(text)


def parse_any_digest(text: str) -> Digest:
    """Parse a SHA-256 or SHA-512 digest. Raises `InvalidInput`."""
    if _ANY.fullmatch(text) is None:
        raise InvalidInput(f"invalid digest {text!r}", "expected sha256: and 64, or sha512: and 128 hexadecimal digits")
    return Digest(text)


def digest_of(data: bytes, algorithm: str = SHA256) -> Digest:
    """The digest of `data`, by default SHA-256."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")


def algorithm_of(digest: Digest) -> str:
    """The name of a digest's algorithm, as hashlib knows it."""
    return digest.partition(":")[0]


def digest_named(hex: str) -> Digest:
    """The digest with the hexadecimal part in a file's name; the number of digits determines the algorithm."""
    return Digest(f"{SHA512 if len(hex) == 128 else SHA256}:{hex}")


def hex_of(digest: Digest) -> str:
    """The hexadecimal part of `digest`, safe as a file name."""
    return digest.partition(":")[2]
