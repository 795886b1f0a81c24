"""Tokens: the registry's gate that sees a password once in five minutes, and what was asked for with it.

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

A token is a JWT (HS256) whose key is this process's own: nobody else has to check it, and a restart makes all void:
clients ask anew. It opens what it names and nothing else. The realm is on the host that the client called us by.
No refresh tokens are given: clients keep the password.

Source: distribution's "token authentication specification" and "token authentication implementation"; RFC 7519, 6750.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import time
from collections.abc import Sequence

import msgspec
from aiohttp import web

from havre.distribution.accounts import Accounts
from havre.distribution.gates import BASIC, Scope, account_of, refused
from havre.distribution.repositories import RegistryRefusal

TOKEN_PATH = "/token"
SERVICE = "havre-registry"
LIFE_S = 300
_HEAD = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
_HOST = re.compile(r"[A-Za-z0-9._-]+(?::\d+)?|\[[0-9a-fA-F:.]+\](?::\d+)?")
_SCOPE = re.compile(r"(repository|registry)(?:\([a-z0-9]+\))?:([^\s\"]+):([a-z*]+(?:,[a-z*]+)*)")


class _Access(msgspec.Struct, frozen=True):
    """Actions on one thing, as a token has them."""

    type: str
    name: str
    actions: list[str]

    def covers(self, scope: Scope) -> bool:
        """Whether this is enough for `scope`."""
        same = (self.type, self.name) == (scope.kind, scope.name)
        return same and ("*" in self.actions or set(scope.actions) <= set(self.actions))


class _Claims(msgspec.Struct, frozen=True):
    """What a token says; times in seconds since 1970."""

    iss: str
    sub: str
    aud: str
    iat: int
    nbf: int
    exp: int
    jti: str
    access: list[_Access]


class TokenGate:
    """Issues tokens to accounts, and asks for them."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._key = secrets.token_bytes(32)

    async def allows(self, request: web.BaseRequest, needed: Sequence[Scope]) -> bool:
        """Whether the request's token covers all that it needs."""
        claims = self._claims(request)
        return (
            claims is not None
            and claims.sub != ""
            and all(any(one.covers(scope) for one in claims.access) for scope in needed)
        )

    def challenge(self, request: web.BaseRequest, needed: Sequence[Scope]) -> str:
        """Where to get a token, and for what."""
        if _HOST.fullmatch(request.host) is None:
            raise RegistryRefusal(400, "UNSUPPORTED", "the Host header is no host")
        words = [f'realm="{request.scheme}://{request.host}{TOKEN_PATH}"', f'service="{SERVICE}"']
        if needed:
            words.append(f'scope="{" ".join(map(str, needed))}"')
        if request.headers.get("Authorization", "").lower().startswith("bearer "):
            known = self._claims(request) is not None
            words.append(f'error="{"insufficient_scope" if known else "invalid_token"}"')
        return "Bearer " + ",".join(words)

    async def issue(self, request: web.BaseRequest) -> dict[str, object]:
        """The answer of the token endpoint: for an account, all that it asks for; for nobody in particular, a token
        that opens nothing (a 401 here would have dockerd push for a minute); refuses wrong passwords."""
        account = await account_of(request, self._accounts)
        if account is None and "Authorization" in request.headers:
            raise refused(BASIC)
        if request.query.get("service", SERVICE) != SERVICE:
            raise RegistryRefusal(400, "UNSUPPORTED", "tokens for other services are not issued here")
        scopes = request.query.getall("scope", []) if account is not None else []
        access = [one for text in scopes for one in _accesses(text)]
        now = int(time.time())
        claims = _Claims(SERVICE, account or "", SERVICE, now, now, now + LIFE_S, secrets.token_hex(8), access)
        token = self._sign(claims)
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return {"token": token, "access_token": token, "expires_in": LIFE_S, "issued_at": issued}

    def _sign(self, claims: _Claims) -> str:
        body = f"{_HEAD}.{_armoured(msgspec.json.encode(claims))}"
        return f"{body}.{self._signature(body)}"

    def _signature(self, body: str) -> str:
        return _armoured(hmac.digest(self._key, body.encode(), "sha256"))

    def _claims(self, request: web.BaseRequest) -> _Claims | None:
        """What the request's token says, if it is one of ours and in time. Nothing unsigned is parsed."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        body, _, signature = token.strip().rpartition(".")
        if scheme.lower() != "bearer" or not (body.isascii() and signature.isascii()):
            return None
        if not hmac.compare_digest(self._signature(body), signature):
            return None
        claims = msgspec.json.decode(_bare(body.partition(".")[2]), type=_Claims)
        return claims if claims.exp > time.time() else None


def _accesses(text: str) -> list[_Access]:
    """What a `scope` parameter asks for: scopes between spaces; what is no scope is granted to nobody."""
    found = [match for word in text.split() if (match := _SCOPE.fullmatch(word))]
    return [_Access(kind, name, actions.split(",")) for kind, name, actions in (match.groups() for match in found)]


def _armoured(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bare(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
