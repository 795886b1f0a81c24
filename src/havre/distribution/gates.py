"""Who may do what: the registry's gate, for those who have an account.

    client                            registry
      | GET /v2/                         |
      | -------------------------------> |
      | 401 WWW-Authenticate: Basic realm="havre"
      | <------------------------------- |
      | GET /v2/  (user and password)    |
      | -------------------------------> |

Every account may do everything; `tokens` has the other gate. A `Scope` is what a request needs, in the words of
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
    """Actions on one thing, such as pull and push on repository x; `str` of it is what a challenge says."""

    kind: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def of(cls, method: str, name: str) -> Scope:
        """What a request to the repository `name` needs."""
        return cls("repository", name, _ACTIONS.get(method, ("pull", "push")))

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


BASIC = 'Basic realm="havre"'
CATALOG = Scope("registry", "catalog", ("*",))


class Gate(Protocol):
    """Knows whose requests are let in."""

    async def allows(self, request: web.BaseRequest, needed: Sequence[Scope]) -> bool:
        """Whether the request may have all that it needs."""

    def challenge(self, request: web.BaseRequest, needed: Sequence[Scope]) -> str:
        """How to be let in, for `WWW-Authenticate`."""


class BasicGate:
    """Asks for a user and password with each request."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def allows(self, request: web.BaseRequest, needed: Sequence[Scope]) -> bool:
        """True for somebody with an account."""
        return await account_of(request, self._accounts) is not None

    def challenge(self, request: web.BaseRequest, needed: Sequence[Scope]) -> str:
        """A user and password are wanted, whatever for."""
        return BASIC


async def account_of(request: web.BaseRequest, accounts: Accounts) -> str | None:
    """The account that the request's user and password open."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user if await accounts.check(user, password) else None


def refused(challenge: str) -> RegistryRefusal:
    """The refusal that tells how to be let in."""
    return RegistryRefusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
