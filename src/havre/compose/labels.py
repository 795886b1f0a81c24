"""The labels by which docker compose identifies a project's resources, and its naming scheme.

Why: docs/decisions/183.
"""

from __future__ import annotations

from typing import Any

from havre.compose import COMPOSE_VERSION
from havre.compose.project import Project, Service, service_hash

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
CONFIG_HASH = "com.docker.compose.config-hash"
NUMBER = "com.docker.compose.container-number"
VOLUME = "com.docker.compose.volume"
NETWORK = "com.docker.compose.network"
FOLDER = "com.docker.compose.project.working_dir"
FILES = "com.docker.compose.project.config_files"
ENV_FILES = "com.docker.compose.project.environment_file"
ONE_OFF = "com.docker.compose.oneoff"
SLUG = "com.docker.compose.slug"
IMAGE = "com.docker.compose.image"
DEPENDENCIES = "com.docker.compose.depends_on"
VERSION = "com.docker.compose.version"
HOOK = "com.docker.compose.hook"
"""On a hook's container; without `CONFIG_HASH` it is none of the service's containers."""
REPLACES = "com.docker.compose.replace"
FOLLOWS = "havre.compose.follows"
"""On a container created by a rollout: the ID of the one that it replaces."""


def container_labels(project: Project, name: str, service: Service, number: int, image_id: str) -> dict[str, str]:
    """All labels of a service's container: the user's, and docker compose's."""
    dependencies = service.get("depends_on", {})
    restarts = {key: "true" if how.get("restart") else "false" for key, how in dependencies.items()}
    labels = {
        **service.get("labels", {}),
        PROJECT: project.name,
        SERVICE: name,
        VERSION: COMPOSE_VERSION,
        FOLDER: project.folder,
        FILES: ",".join(project.files),
        ONE_OFF: "False",
        CONFIG_HASH: service_hash(service),
        NUMBER: str(number),
        DEPENDENCIES: ",".join(f"{key}:{dependencies[key]['condition']}:{restarts[key]}" for key in sorted(restarts)),
        IMAGE: image_id,
    }
    if project.env_files:
        labels[ENV_FILES] = ",".join(project.env_files)
    return labels


def resource_labels(project: Project, key: str, label: str, own: dict[str, str]) -> dict[str, str]:
    """All labels of a network or volume."""
    return {**own, label: key, PROJECT: project.name, VERSION: COMPOSE_VERSION}


def build_labels(project: Project, name: str) -> dict[str, str]:
    """All labels of the image that a service builds."""
    own = {PROJECT: project.name, SERVICE: name, VERSION: COMPOSE_VERSION}
    return {**project.services[name]["build"].get("labels", {}), **own}


def parse_dependencies(text: str) -> dict[str, dict[str, Any]]:
    """The dependencies in a container's label."""
    result = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition(":")
        condition, _, restart = rest.partition(":")
        result[name] = {"condition": condition or "service_started", "restart": restart == "true", "required": True}
    return result


def container_name(project: str, name: str, service: Service, number: int, separator: str = "-") -> str:
    """The name of a service's container."""
    return str(service.get("container_name") or separator.join((project, name, str(number))))
