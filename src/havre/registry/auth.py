"""Credentials, challenges and tokens of registries.

    client                     registry                  token server ("realm")
      | GET /v2/x/manifests/1    |                             |
      | -----------------------> |                             |
      | 401 WWW-Authenticate:    |                             |
      | Bearer realm=..,service=..,scope=repository:x:pull     |
      | <----------------------- |                             |
      | GET realm?service=..&scope=..   (Basic credentials)    |
      | -----------------------------------------------------> |
      | {"token": ..., "expires_in": 300}                      |
      | <----------------------------------------------------- |
      | GET ... Authorization: Bearer ...                      |

Credentials belong to one registry. They are sent to it, and to a realm only if `may_send_credentials` trusts that
realm;
another realm gets an anonymous request (CVE-2020-15157, CVE-2024-3727). Tokens are cached in memory until they expire,
per registry, scope and user.

Source: distribution's "token authentication specification", RFC 9110 section 11, RFC 6749 section 6.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from yarl import URL

from havre.errors import InvalidInput
from havre.registry.endpoints import is_loopback

_DEFAULT_LIFE_S = 60.0
_EARLY_S = 10.0
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*({_TOKEN})(?=[\s,]|$)\s*")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_MAX_CHALLENGE = 16 << 10


class Auth(msgspec.Struct, frozen=True, rename=lambda name: name.replace("_", "")):
    """A user's credentials for one registry, in the form of Docker's `X-Registry-Auth`."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        """Omits secrets: values end up in logs and tracebacks."""
        return f"Auth({self.username!r}, {self.server_address!r})"

    @property
    def is_empty(self) -> bool:
        """Report whether there are no credentials."""
        return not (self.username or self.auth or self.identity_token or self.registry_token)

    def basic(self) -> str | None:
        """The value of a Basic `Authorization` header, or None."""
        if not self.username:
            return f"Basic {self.auth}" if _BASE64.fullmatch(self.auth) else None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class DelegatedAuth(Auth, frozen=True):
    """A client that fetches tokens itself: called with realm, service and scope, returns a token and its lifetime in
    seconds.

    `Failed` if it has none; then a token is requested without credentials.
    """

    fetch: Callable[[str, str, str], Awaitable[tuple[str, float | None]]] | None = None

    @property
    def is_empty(self) -> bool:
        """False: there may be tokens."""
        return False


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a 401: the scheme in lower case and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


class Token(msgspec.Struct):
    """A token server's answer; `expires_in` in seconds."""

    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float | None = None


class TokenCache:
    """Caches authorization headers by registry, scope and user, until shortly before they expire."""

    def __init__(self) -> None:
        self._headers: dict[tuple[str, str, Auth | None], tuple[str, float]] = {}

    def get(self, origin: URL, scope: str, auth: Auth | None) -> str | None:
        """A header that has not expired, or None."""
        header, expires = self._headers.get((str(origin), scope, auth), (None, 0.0))
        return header if time.monotonic() < expires else None

    def put(self, origin: URL, scope: str, auth: Auth | None, header: str, life_s: float | None) -> None:
        """Store `header` for `life_s` seconds, a minute if unknown."""
        now = time.monotonic()
        self._headers = {key: value for key, value in self._headers.items() if value[1] > now}
        life = _DEFAULT_LIFE_S if life_s is None else max(life_s, _DEFAULT_LIFE_S)
        self._headers[(str(origin), scope, auth)] = (header, now + life - _EARLY_S)

    def drop(self, origin: URL, scope: str, auth: Auth | None) -> None:
        """Remove a header that was rejected."""
        self._headers.pop((str(origin), scope, auth), None)


def parse_challenges(header: str) -> list[Challenge]:
    """Parse a `WWW-Authenticate` header. `InvalidInput` if it is malformed."""
    if len(header) > _MAX_CHALLENGE:
        raise InvalidInput("WWW-Authenticate header is too long")
    challenges: list[Challenge] = []
    at = 0
    while at < len(header):
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            raise InvalidInput(f"malformed WWW-Authenticate header {header[:200]!r}")
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (found := _PARAMETER.match(header, at)) is not None:
            quoted, plain = found.group(2), found.group(3)
            parameters[found.group(1).lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            at = found.end()
        challenges.append(Challenge(scheme.group(1).lower(), parameters))
        while at < len(header) and header[at] in " ,\t":
            at += 1
    return challenges


def may_send_credentials(registry: URL, realm: URL) -> bool:
    """Report whether credentials for `registry` may be sent to `realm`.

    It must use TLS (unless the registry does not), and be the same host or share a parent domain (`auth.docker.io` for
    `registry-1.docker.io`, `gitlab.com` for `registry.gitlab.com`). On loopback the port must be the same, too.
    """
    if realm.scheme not in ("https", registry.scheme) or not realm.host or not registry.host:
        return False
    if realm.host == registry.host:
        return not is_loopback(realm.host) or realm.port == registry.port
    return any(
        _is_organisation(domain) and (realm.host == domain or realm.host.endswith("." + domain))
        for domain in (registry.host, registry.host.partition(".")[2])
    )


def _is_organisation(domain: str) -> bool:
    """Heuristic: report whether a domain belongs to one organisation; not `com`, `co.uk`, `com.au` or an address."""
    labels = domain.split(".")
    if len(labels) < 2 or labels[-1].isdigit() or ":" in domain:
        return False
    return not (len(labels) == 2 and len(labels[-1]) == 2 and len(labels[0]) <= 3)
