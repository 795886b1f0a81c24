"""References to other services' containers: shared namespaces, volumes and links.

docker compose replaces the service's name by the container's ID before it hashes the configuration; so does this, for
equal hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from havre.compose.project import Service
from havre.errors import NotFound

_NAMESPACES = {"network_mode": "network namespace", "ipc": "IPC namespace", "pid": "PID namespace"}


def shared(service: Service) -> list[str]:
    """The services whose containers must exist before this one's are created."""
    names = [
        service[key].removeprefix("service:") for key in _NAMESPACES if service.get(key, "").startswith("service:")
    ]
    names += [v.partition(":")[0] for v in service.get("volumes_from", ()) if not v.startswith("container:")]
    return names + [link.partition(":")[0] for link in service.get("links", ())]


def resolved(service: Service, id_of: Callable[[str], str | None]) -> Service:
    """The service with container IDs in place of service names. Raises NotFound where `id_of` has none."""

    def known(name: str, what: str) -> str:
        found = id_of(name)
        if found is None:
            raise NotFound(f"cannot share {what} with service {name}: container missing")
        return found

    result = dict(service)
    for key, noun in _NAMESPACES.items():
        if result.get(key, "").startswith("service:"):
            result[key] = f"container:{known(result[key].removeprefix('service:'), noun)}"
    if "volumes_from" in result:
        result["volumes_from"] = [
            source.removeprefix("container:") if source.startswith("container:") else
            known(source.partition(":")[0], "volume")
            for source in result["volumes_from"]
        ]  # fmt: skip
    return result


def link_names(project: str, service: Service, number: int, names_of: Mapping[str, list[str]]) -> list[str]:
    """`Links` of a container: each container of a linked service under its alias and its usual names."""
    links: list[Any] = []
    for link in service.get("links", ()):
        other, _, alias = link.partition(":")
        for container in names_of.get(other, ()):
            aliases = (alias or other, f"{other}-{number}", f"{project}-{other}-{number}")
            links += [f"{container}:{name}" for name in aliases]
    for link in service.get("external_links", ()):
        container, _, alias = link.partition(":")
        links.append(f"{container}:{alias or container}")
    return links
