"""`--use-api-socket`: the container gets the daemon's socket, and the user's credentials for registries.

    before the creation   a bind mount onto /var/run/docker.sock; DOCKER_CONFIG=/run/secrets/docker in its environment
    after the creation    config.json with the credentials is copied there

A container that has DOCKER_CONFIG already keeps it and gets no credentials. The file stays in the container's layer
until the container is removed, as with docker.
"""

from __future__ import annotations

from havre.client.auth import base64, known_auths
from havre.client.endpoint import DEFAULT_SOCKET
from havre.errors import HavreError
from havre.golang.jsontext import encode
from havre.tar.headers import end, header, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from havre.cli.session import Session

_SOCKET = "/var/run/docker.sock"
_FOLDER = "/run/secrets/docker"


def mount_socket(session: Session, body: dict[str, Any]) -> Callable[[str], list[str]] | None:
    """Add the mount and the variable to the request; returns what copies the credentials into a container by its ID.

    None if there is nothing to copy. The copying returns warnings.
    """
    host = body["HostConfig"]
    host["Mounts"] = [*(host["Mounts"] or []), {"Type": "bind", "Source": _source(session), "Target": _SOCKET}]
    if any(variable.startswith("DOCKER_CONFIG=") for variable in body["Env"]):
        return None
    auths = {server: _entry(auth) for server, auth in known_auths(session.config).items()}
    if not auths:
        return None
    body["Env"] = [*body["Env"], f"DOCKER_CONFIG={_FOLDER}"]
    return lambda container: _give(session, container, encode({"auths": auths}, indent="\t").encode())


def _source(session: Session) -> str:
    """The path of the daemon's socket on the daemon's host."""
    endpoint = session.endpoint()
    if endpoint.scheme == "unix":
        return endpoint.address
    return DEFAULT_SOCKET if "havre" in session.client.server() else _SOCKET


def _entry(auth: dict[str, str]) -> dict[str, str]:
    login = base64(f"{auth.get('username', '')}:{auth.get('password', '')}".encode())
    return {"auth": login, **{name: auth[name] for name in ("identitytoken", "registrytoken") if auth.get(name)}}


def _give(session: Session, container: str, config: bytes) -> list[str]:
    head = header(f"{_FOLDER[1:]}/config.json".encode(), mode=0o600, size=len(config))
    archive = head + config + padding(len(config))
    sent = iter([archive, end(len(archive))])
    headers = {"Content-Type": "application/x-tar"}
    try:
        session.client.call(
            "PUT", f"/containers/{container}/archive", {"path": "/"}, raw_body=sent, headers=headers
        ).read()
    except HavreError as error:
        return [f"injecting docker config.json into container failed: {error}"]
    return []
