"""Credentials for registries, asked of the client over its session.

Source: moby/buildkit session/auth/auth.proto.
"""

from __future__ import annotations

from havre.api.buildkit.messages import CredentialsRequest, CredentialsResponse
from havre.api.buildkit.sessions import Session
from havre.registry import Auth

_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
_HUB = "registry-1.docker.io"  # the name under which clients know the credentials of docker.io


async def session_credentials(session: Session, registry: str) -> Auth | None:
    """What the client's configuration has for the registry (`docker.io`, `host:5000`)."""
    if not session.offers(_CREDENTIALS):
        return None
    host = _HUB if registry == "docker.io" else registry
    found = await session.ask(_CREDENTIALS, CredentialsRequest(host), CredentialsResponse)
    if not found.secret:
        return None
    if not found.username:
        return Auth(identity_token=found.secret, server_address=registry)
    return Auth(username=found.username, password=found.secret, server_address=registry)
