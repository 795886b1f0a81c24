"""Token authentication: a client sends its password only once in five minutes, to get a token for certain scopes.

    client                                 registry
      | GET /v2/x/manifests/1                 |
      | ------------------------------------> |
      | 401 Bearer realm=".../token",service="havre-registry",scope="repository:x:pull"
      | <------------------------------------ |
      | GET /token?service=..&scope=..        |
      |     (Basic user and password)         |
      | ------------------------------------> |
      | {"token": ..., "expires_in": 300}     |
      | <------------------------------------ |
      | GET /v2/x/manifests/1  (Bearer token) |
      | ------------------------------------> |

A token is random text; its scopes are stored here, in memory, until it expires. A restart invalidates all tokens, and
clients request new ones. A token grants only the scopes requested. The realm is on the host of the client's request.
There are no refresh tokens: clients keep the password.

Source: distribution's "token authentication specification" (where a token is opaque to the client); RFC 6750.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from havre.distribution.accounts import Accounts
from havre.distribution.gates import BASIC, Scope, account_of, refused
from havre.distribution.repositories import RegistryRefusal

TOKEN_PATH = "/token"
SERVICE = "havre-registry"
LIFE_S = 300
_HOST = re.compile(r"[A-Za-z0-9._-]+(?::\d+)?|\[[0-9a-fA-F:.]+\](?::\d+)?")
_SCOPE = re.compile(r"(repository|registry)(?:\([a-z0-9]+\))?:([^\s\"]+):([a-z*]+(?:,[a-z*]+)*)")


@dataclass(frozen=True, slots=True)
class _Grant:
    """A token's scopes, and its expiry on the gate's clock."""

    scopes: tuple[Scope, ...]
    until: float

    def covers(self, needed: Scope) -> bool:
        """Report whether one of the scopes includes `needed`."""
        return any(
            (one.kind, one.name) == (needed.kind, needed.name)
            and ("*" in one.actions or set(needed.actions) <= set(one.actions))
            for one in self.scopes
        )


class TokenGate:
    """Issues tokens to accounts, and requires them. Keeps at most `most` tokens: older ones are dropped."""

    def __init__(self, accounts: Accounts, clock: Callable[[], float] = time.monotonic, most: int = 4096) -> None:
        self._accounts = accounts
        self._clock = clock
        self._most = most
        self._nobody = secrets.token_urlsafe(32)
        self._grants: dict[str, _Grant] = {}  # oldest first: the first to expire

    async def allows(self, request: web.BaseRequest, needed: Sequence[Scope]) -> bool:
        """Report whether the request's token includes all scopes needed."""
        grant = self._grant(_token_of(request))
        return grant is not None and all(grant.covers(scope) for scope in needed)

    def challenge(self, request: web.BaseRequest, needed: Sequence[Scope]) -> str:
        """The Bearer challenge: where to get a token, with which scopes."""
        if _HOST.fullmatch(request.host) is None:
            raise RegistryRefusal(400, "UNSUPPORTED", "the Host header is not a host")
        words = [f'realm="{request.scheme}://{request.host}{TOKEN_PATH}"', f'service="{SERVICE}"']
        if needed:
            words.append(f'scope="{" ".join(map(str, needed))}"')
        if (token := _token_of(request)) is not None:
            known = token == self._nobody or self._grant(token) is not None
            words.append(f'error="{"insufficient_scope" if known else "invalid_token"}"')
        return "Bearer " + ",".join(words)

    async def issue(self, request: web.BaseRequest) -> dict[str, object]:
        """The answer of the token endpoint: for an account, the scopes requested; without credentials, a token without
        scopes
        (a 401 would make dockerd retry a push for a minute). Raises for a wrong password.
        """
        account = await account_of(request, self._accounts)
        if account is None and "Authorization" in request.headers:
            raise refused(BASIC)
        if request.query.get("service", SERVICE) != SERVICE:
            raise RegistryRefusal(400, "UNSUPPORTED", "tokens for other services are not issued here")
        token = self._nobody
        if account is not None:
            token = self._keep([scope for text in request.query.getall("scope", []) for scope in _scopes(text)])
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {"token": token, "access_token": token, "expires_in": LIFE_S, "issued_at": issued}

    def _keep(self, scopes: Sequence[Scope]) -> str:
        """Store a new token for these scopes."""
        now = self._clock()
        while oldest := next(iter(self._grants), None):
            if len(self._grants) < self._most and self._grants[oldest].until > now:
                break
            del self._grants[oldest]
        token = secrets.token_urlsafe(32)
        self._grants[token] = _Grant(tuple(scopes), now + LIFE_S)
        return token

    def _grant(self, token: str | None) -> _Grant | None:
        """The grant of a token, if it is valid. Looking up a dictionary key leaks, by timing, only hashes."""
        grant = self._grants.get(token or "")
        return grant if grant is not None and grant.until > self._clock() else None


def _token_of(request: web.BaseRequest) -> str | None:
    """The request's Bearer token, or None."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _scopes(text: str) -> list[Scope]:
    """Parse a `scope` parameter: scopes separated by spaces; invalid ones are ignored."""
    found = [match for word in text.split() if (match := _SCOPE.fullmatch(word))]
    return [Scope(kind, name, tuple(actions.split(","))) for kind, name, actions in (match.groups() for match in found)]
