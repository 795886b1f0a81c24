"""Content digests (OCI image specification, "Digests"): `sha256:` and 64 lower-case hexadecimal digits."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from havre.errors import InvalidInput

Digest = NewType("Digest", str)

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """The digest in `text`; raises `InvalidInput` for anything but a well-formed SHA-256 digest."""
    if _SHA256.fullmatch(text) is None:
        raise InvalidInput(f"invalid digest {text!r}", "expected sha256: and 64 hexadecimal digits")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """The SHA-256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest) -> str:
    """The hexadecimal part of `digest`, safe as a file name."""
    return digest.partition(":")[2]
