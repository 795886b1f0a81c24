"""The engine's state of a project: containers by docker compose's labels, networks and volumes by name, images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from havre.client.api import Client
from havre.compose import labels as label
from havre.compose.project import Project, images_of
from havre.errors import NotFound
from havre.golang.jsontext import encode


class Container(NamedTuple):
    """An entry of the container list."""

    row: dict[str, Any]

    @property
    def id(self) -> str:
        """The full ID."""
        return str(self.row["Id"])

    @property
    def name(self) -> str:
        """The name, without slash."""
        return str(next((n for n in self.row["Names"] if n.count("/") == 1), self.row["Names"][0])).lstrip("/")

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return self.row.get("Labels") or {}

    @property
    def service(self) -> str:
        """The service's name."""
        return self.labels.get(label.SERVICE, "")

    @property
    def number(self) -> int:
        """The container's number within the service; 0 without a label."""
        text = self.labels.get(label.NUMBER, "")
        return int(text) if text.isdigit() else 0

    @property
    def one_off(self) -> bool:
        """Report whether `run` created it."""
        return self.labels.get(label.ONE_OFF, "False") == "True"

    @property
    def state(self) -> str:
        """created, running, paused, restarting, exited ..."""
        return str(self.row["State"])


class State(NamedTuple):
    """The state; `images` has the inspected images by the names that services use, `hooks` the containers of failed
    `pre_start` hooks.
    """

    containers: tuple[Container, ...] = ()
    networks: dict[str, dict[str, Any]] = {}
    volumes: dict[str, dict[str, Any]] = {}
    images: dict[str, dict[str, Any]] = {}
    hooks: tuple[Container, ...] = ()

    def of(self, service: str) -> list[Container]:
        """The service's own containers, by number."""
        own = (c for c in self.containers if c.service == service and not c.one_off)
        return sorted(own, key=lambda container: (container.number, container.name))

    def disturbed(self, service: str) -> set[str]:
        """The IDs of containers of an interrupted rollout and of those they were to replace: which of them has the
        service's
        names and ports is unknown.
        """
        own = self.of(service)
        followed = {container.labels.get(label.FOLLOWS): container.id for container in own}
        return {id for old in own if old.id in followed for id in (old.id, followed[old.id])}


def list_containers(client: Client, project: str, *, all: bool = True) -> tuple[Container, ...]:
    """The project's containers."""
    filters = encode({"label": [f"{label.PROJECT}={project}", label.CONFIG_HASH]})
    query: dict[str, str | list[str]] = {"filters": filters, **({"all": "1"} if all else {})}
    return tuple(sorted((Container(row) for row in client.get("/containers/json", query)), key=lambda c: c.name))


def list_hooks(client: Client, project: str) -> tuple[Container, ...]:
    """The containers of the project's `pre_start` hooks that failed."""
    filters = encode({"label": [f"{label.PROJECT}={project}", f"{label.HOOK}=pre_start"]})
    rows = client.get("/containers/json", {"filters": filters, "all": "1"})
    return tuple(sorted((Container(row) for row in rows), key=lambda container: container.name))


def observe(client: Client, project: Project) -> State:
    """Read the state of a project."""
    networks = {row["Name"]: row for row in client.get("/networks")} if project.networks else {}
    volumes = {row["Name"]: row for row in client.get("/volumes")["Volumes"] or ()} if project.volumes else {}
    images = inspect_images(client, used_images(project))
    prepares = any(service.get("pre_start") for service in project.services.values())
    hooks = list_hooks(client, project.name) if prepares else ()
    return State(list_containers(client, project.name), networks, volumes, images, hooks)


def used_images(project: Project) -> list[str]:
    """The names of the images that the project's services use."""
    services = project.services.items()
    return sorted({image for name, service in services for image in images_of(service, name, project.name)})


def inspect_images(client: Client, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Those of the images that the engine has, inspected."""
    found = {}
    for name in names:
        try:
            found[name] = client.get(f"/images/{name}/json")
        except NotFound:  # to be pulled or built
            continue
    return found
