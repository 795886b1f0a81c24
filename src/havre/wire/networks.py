"""Requests and answers about networks, but for the network itself. Source: Docker Engine API, "Networks"."""

from __future__ import annotations

from collections.abc import Sequence

from havre.wire.config import EndpointSettings
from havre.wire.values import Value


class ConnectRequest(Value):
    """The body of connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class DisconnectRequest(Value):
    """The body of disconnect."""

    container: str = ""
    force: bool = False


class NetworkCreated(Value):
    """The answer of create."""

    id: str
    warning: str = ""


class NetworksPruned(Value):
    """The answer of prune, by name."""

    networks_deleted: Sequence[str] | None
