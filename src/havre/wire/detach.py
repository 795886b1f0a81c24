"""The key sequence that detaches a terminal: `ctrl-p,ctrl-q` by default.

Source: Docker Engine API, "detachKeys"; moby's pkg term (ToBytes) and its escape proxy.
"""

from __future__ import annotations

import string

from havre.errors import InvalidInput

DEFAULT_KEYS = b"\x10\x11"

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31} | {
    letter: code for code, letter in enumerate(string.ascii_lowercase, 1)
}


def parse_keys(text: str) -> bytes:
    """`ctrl-p,a` as the bytes a terminal sends; empty text is the default."""
    if not text:
        return DEFAULT_KEYS
    keys = [_parse_key(key) for key in text.split(",")]
    known = bytes(key for key in keys if key is not None)
    if len(known) < len(keys):
        hint = "expected characters and ctrl- with one of a-z @ [ \\ ] ^ _, separated by commas"
        raise InvalidInput(f"Invalid detach keys ({text}) provided", hint)
    return known


def _parse_key(key: str) -> int | None:
    if len(key) == 1 and key.isascii():
        return ord(key)
    return _CONTROL.get(key.removeprefix("ctrl-")) if key.startswith("ctrl-") else None


class DetachScanner:
    """Finds the sequence in a terminal's input, which may arrive in pieces.

    A prefix of the sequence is withheld until it is complete or not.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes to forward, and whether the sequence is complete (what follows it is dropped)."""
        seen = self._held + data
        found = seen.find(self._keys)
        if found >= 0:
            self._held = b""
            return seen[:found], True
        held = next(
            (size for size in range(min(len(self._keys) - 1, len(seen)), 0, -1) if seen.endswith(self._keys[:size])), 0
        )
        self._held = seen[len(seen) - held :]
        return seen[: len(seen) - held], False
