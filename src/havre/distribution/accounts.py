"""Accounts: a file of htpasswd lines, `user:$2y$...`, as `htpasswd -B` and Debian's docker-registry have it.

Only bcrypt is taken. The file is read again when it has changed; while it cannot be read or holds a bad line, what was
read before counts. An unknown user costs as much time as a known one, so the time of a refusal names nobody. Passwords
that were right are remembered in memory, under a hash with a key of this process, since bcrypt is slow by intent and a
push has dozens of requests.

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
_SIGNIFICANT = 72  # bytes of a password that bcrypt looks at
_AT_ONCE = 2  # checks that may keep a core busy

log = logging.getLogger(__name__)


class Accounts:
    """The accounts of `file`; `InvalidInput` for a bad line, `OSError` for a file that cannot be read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._hashes: dict[str, bytes] = {}
        self._right: dict[str, tuple[bytes, bytes]] = {}
        self._key = secrets.token_bytes(32)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._read()

    async def check(self, user: str, password: str) -> bool:
        """Whether this is the user's password."""
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
            log.warning("the accounts stay as they were: %s", error)

    def _read(self) -> None:
        status = self._file.stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._hashes = parse(self._file.read_text())
        self._decoy = max(self._hashes.values(), key=lambda stored: stored[4:6])


def parse(text: str) -> dict[str, bytes]:
    """The hash of each user; `InvalidInput` names the line that is none, or says that there is nobody."""
    hashes = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, stored = line.strip().partition(":")
        if not user or _BCRYPT.fullmatch(stored) is None:
            raise InvalidInput(
                f"line {number} of the accounts is no user with a bcrypt hash", "write it with `htpasswd -B`"
            )
        hashes[user] = stored.encode()
    if not hashes:
        raise InvalidInput("the file of accounts names nobody", "add somebody with `htpasswd -B`")
    return hashes


def _matches(password: str, stored: bytes) -> bool:
    import bcrypt  # heavy, and of use to those with accounts alone

    return bcrypt.checkpw(password.encode()[:_SIGNIFICANT], stored)
