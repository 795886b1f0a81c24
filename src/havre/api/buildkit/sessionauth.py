"""Registry credentials from the client, over its session.

Source: moby/buildkit session/auth/auth.proto.
"""

from __future__ import annotations

from functools import partial

from havre.api.buildkit.sessionmessages import (
    CredentialsRequest,
    CredentialsResponse,
    FetchTokenRequest,
    FetchTokenResponse,
)
from havre.api.buildkit.sessions import Session
from havre.registry import Auth, DelegatedAuth

_CREDENTIALS, _FETCH_TOKEN = "/moby.filesync.v1.Auth/Credentials", "/moby.filesync.v1.Auth/FetchToken"
_HUB = "registry-1.docker.io"  # the key of docker.io's credentials at clients


async def session_credentials(session: Session, registry: str) -> Auth | None:
    """The client's credentials for a registry (`docker.io`, `host:5000`). A client that keeps its secret may still
    fetch tokens itself.
    """
    host = _HUB if registry == "docker.io" else registry
    found = CredentialsResponse()
    if session.offers(_CREDENTIALS):
        found = await session.ask(_CREDENTIALS, CredentialsRequest(host), CredentialsResponse)
    if not found.secret:
        fetch = partial(_fetch_token, session, host)
        return DelegatedAuth(fetch=fetch, server_address=registry) if session.offers(_FETCH_TOKEN) else None
    if not found.username:
        return Auth(identity_token=found.secret, server_address=registry)
    return Auth(username=found.username, password=found.secret, server_address=registry)


async def _fetch_token(session: Session, host: str, realm: str, service: str, scope: str) -> tuple[str, float | None]:
    asked = FetchTokenRequest("havre", host, realm, service, scope.split())
    given = await session.ask(_FETCH_TOKEN, asked, FetchTokenResponse)
    return given.token, given.expires_in or None
