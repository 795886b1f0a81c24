"""Access control of the registry: HTTP Basic authentication for accounts.

    client                            registry
      | GET /v2/                         |
      | -------------------------------> |
      | 401 WWW-Authenticate: Basic realm="havre"
      | <------------------------------- |
      | GET /v2/  (user and password)    |
      | -------------------------------> |

Every account has all permissions; `tokens` has the token gate. A `Scope` is what a request needs, in the terms of
Docker's token specification.

Source: RFC 7617 (Basic); distribution's "token scope documentation".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from havre.distribution.accounts import Accounts
from havre.distribution.repositories import RegistryRefusal

_ACTIONS = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}


@dataclass(frozen=True, slots=True)
class Scope:
    """Actions on a resource, such as pull and push on repository x; its `str` is used in challenges."""

    kind: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def of(cls, method: str, name: str) -> Scope:
        """The scope of a request to the repository `name`."""
        return cls("repository", name, _ACTIONS.get(method, ("pull", "push")))

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


BASIC = 'Basic realm="havre"'
CATALOG = Scope("registry", "catalog", ("*",))


class Gate(Protocol):
    """Decides which requests are allowed."""

    async def allows(self, request: web.BaseRequest, needed: Sequence[Scope]) -> bool:
        """Report whether the request has all scopes that it needs."""

    def challenge(self, request: web.BaseRequest, needed: Sequence[Scope]) -> str:
        """The `WWW-Authenticate` header of a refusal."""


class BasicGate:
    """Requires user and password with each request."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def allows(self, request: web.BaseRequest, needed: Sequence[Scope]) -> bool:
        """Report whether the request has an account's credentials."""
        return await account_of(request, self._accounts) is not None

    def challenge(self, request: web.BaseRequest, needed: Sequence[Scope]) -> str:
        """The Basic challenge, the same for every scope."""
        return BASIC


async def account_of(request: web.BaseRequest, accounts: Accounts) -> str | None:
    """The account whose credentials the request has, or None."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user if await accounts.check(user, password) else None


def refused(challenge: str) -> RegistryRefusal:
    """A 401 with the challenge."""
    return RegistryRefusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
