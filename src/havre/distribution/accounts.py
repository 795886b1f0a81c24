"""Accounts: an htpasswd file with lines `user:$2y$...`, as `htpasswd -B` and Debian's docker-registry write it.

Only bcrypt is supported. The file is read again when it has changed; if it is then unreadable or invalid, the previous
accounts stay valid. Unknown users take as long to check as known ones, so that timing does not reveal names. Verified
passwords are cached in memory under a keyed hash, since bcrypt is slow by design and a push makes dozens of requests.

Why: docs/decisions/260.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from pathlib import Path

from havre.aio import in_thread
from havre.errors import HavreError, InvalidInput

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_SIGNIFICANT = 72  # bytes of a password that bcrypt uses
_AT_ONCE = 2  # concurrent checks, each of which keeps a core busy

log = logging.getLogger(__name__)


class Accounts:
    """The accounts of `file`. `InvalidInput` for an invalid line, `OSError` for an unreadable file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._hashes: dict[str, bytes] = {}
        self._right: dict[str, tuple[bytes, bytes]] = {}
        self._key = secrets.token_bytes(32)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._read()

    async def check(self, user: str, password: str) -> bool:
        """Report whether this is the user's password."""
        await in_thread(self._refresh)
        stored = self._hashes.get(user)
        given = hmac.digest(self._key, password.encode(), hashlib.sha256)
        if stored is not None and user in self._right:
            known, memory = self._right[user]
            if known == stored and hmac.compare_digest(memory, given):
                return True
        async with self._turns:
            right = await in_thread(_matches, password, stored or self._decoy)
        if stored is None or not right:
            return False
        self._right[user] = (stored, given)
        return True

    def _refresh(self) -> None:
        try:
            self._read()
        except (HavreError, OSError) as error:
            log.warning("the accounts cannot be reloaded, the previous ones stay valid: %s", error)

    def _read(self) -> None:
        status = self._file.stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._hashes = parse(self._file.read_text())
        self._decoy = max(self._hashes.values(), key=lambda stored: stored[4:6])


def parse(text: str) -> dict[str, bytes]:
    """Parse the file: hash by user. `InvalidInput` names the invalid line, or says that there are no accounts."""
    hashes = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, stored = line.strip().partition(":")
        if not user or _BCRYPT.fullmatch(stored) is None:
            raise InvalidInput(
                f"line {number} of the accounts is not a user with a bcrypt hash", "write it with `htpasswd -B`"
            )
        hashes[user] = stored.encode()
    if not hashes:
        raise InvalidInput("the accounts file has no accounts", "add one with `htpasswd -B`")
    return hashes


def _matches(password: str, stored: bytes) -> bool:
    import bcrypt  # imported late: slow, and only needed with accounts

    return bcrypt.checkpw(password.encode()[:_SIGNIFICANT], stored)
