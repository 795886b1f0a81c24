"""Checks a model for contradictions between keys. Error texts follow docker compose's.

Source: the Compose specification; docker compose's error messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from havre.compose.project import Project, Service, scale_of
from havre.errors import InvalidInput

_TWICE = (("cpus", "limits", "cpus"), ("mem_limit", "limits", "memory"),
          ("mem_reservation", "reservations", "memory"), ("pids_limit", "limits", "pids"))  # fmt: skip
_DISTINCT = ("device_cgroup_rules", "external_links", "group_add", "security_opt", "volumes_from")
"""Lists whose entries must be distinct; other lists drop duplicates when files are merged."""
_FILES = {"configs": ("file", "environment", "content"), "secrets": ("file", "environment")}


class Inconsistent(InvalidInput):
    """The model contradicts itself."""


def check_external(model: dict[str, Any]) -> None:
    """Reject external volumes with other attributes, and configs and secrets without exactly one source. Raises
    Inconsistent."""
    for name, volume in (model.get("volumes") or {}).items():
        if volume and volume.get("external") is True:
            for key in volume:
                if key not in ("name", "external") and not key.startswith("x-"):
                    raise Inconsistent(f'volumes.{name}: conflicting parameters "external" and "{key}" specified')
    for kind, sources in _FILES.items():
        for name, value in (model.get(kind) or {}).items():
            given = [source for source in sources if source in (value or {})]
            if len(given) > 1:
                raise Inconsistent(f"{kind}.{name}: {'|'.join(sources)} attributes are mutually exclusive")
            if not given and not {"driver", "external"} & set(value or {}):
                raise Inconsistent(f"{kind}.{name}: one of {'|'.join(sources)} must be set")


def check_project(project: Project) -> None:
    """Reject an inconsistent project. Raises Inconsistent with the first contradiction."""
    for name in sorted(project.services):
        for problem in _service_problems(project, name, project.services[name]):
            raise Inconsistent(f"{problem}: invalid compose project")
    cycle = _cycle(project)
    if cycle:
        raise Inconsistent(f"dependency cycle detected: {' -> '.join(cycle)}: invalid compose project")


def _service_problems(project: Project, name: str, service: Service) -> Iterator[str]:
    if not ({"build", "provider"} & service.keys() or service.get("image")):
        yield f'service "{name}" has neither an image nor a build context specified'
    yield from _build_problems(project, name, service)
    if service.get("network_mode") and service.get("networks"):
        yield f"service {name} declares mutually exclusive `network_mode` and `networks`"
    test = service.get("healthcheck", {}).get("test")
    if test and test[0] not in ("CMD", "CMD-SHELL", "NONE"):
        yield 'healthcheck.test must start either by "CMD", "CMD-SHELL" or "NONE"'
    yield from _reference_problems(project, name, service)
    yield from _number_problems(name, service)
    for key in _DISTINCT:
        entries = service.get(key, ())
        if double := next((entry for index, entry in enumerate(entries) if entry in entries[:index]), None):
            yield f"services.{name}.{key}: entries must differ, {double} is there twice"
    for rule in service.get("develop", {}).get("watch", ()):
        if not rule.get("path"):
            yield f"services.{name}.develop.watch: value can't be blank"
        if not rule.get("target") and rule["action"] not in ("rebuild", "restart"):
            yield f"services.{name}.develop.watch: target is required for non-rebuild actions"


def _build_problems(project: Project, name: str, service: Service) -> Iterator[str]:
    build = service.get("build")
    if build is None:
        return
    if build.get("dockerfile_inline") and build.get("dockerfile"):
        yield f'service "{name}" declares mutualy exclusive dockerfile and dockerfile_inline'
    for key, context in build.get("additional_contexts", {}).items():
        target = context.removeprefix("service:")
        if target != context and target not in project.services:
            yield f'service "{name}" declares unknown service "{target}" as additional contexts {key}'
        elif target != context and "build" not in project.services[target]:
            yield f'service "{name}" declares non-buildable service "{target}" as additional contexts {key}'
    platforms = build.get("platforms")
    if platforms and service.get("platform") and service["platform"] not in platforms:
        yield f'service.build.platforms MUST include service.platform "{service["platform"]}"'
    for secret in build.get("secrets", ()):
        if secret["source"] not in project.secrets:
            yield f'service "{name}" refers to undefined build secret {secret["source"]}'


def _reference_problems(project: Project, name: str, service: Service) -> Iterator[str]:
    for network in service.get("networks") or ():
        if network not in project.networks:
            yield f'service "{name}" refers to undefined network {network}'
    for other, how in service.get("depends_on", {}).items():
        optional = other in project.disabled and not how.get("required")
        if other not in project.services and not optional:
            yield f'service "{name}" depends on undefined service "{other}"'
    mode = service.get("network_mode", "")
    if mode.startswith("service:") and mode.removeprefix("service:") not in project.services:
        target = mode.removeprefix("service:")
        yield f"service \"{target}\" not found for network_mode 'service:{target}'"
    for volume in service.get("volumes", ()):
        source = volume.get("source")
        if not volume.get("target"):
            yield f"services.{name}.volumes: a mount is missing its target"
        if volume.get("type") == "volume" and source and source not in project.volumes:
            yield f'service "{name}" refers to undefined volume {source}'
    for kind in ("configs", "secrets"):
        for file in service.get(kind, ()):
            if file.get("source") not in getattr(project, kind):
                yield f'service "{name}" refers to undefined {kind[:-1]} {file.get("source", "")}'
    for model in service.get("models", ()):
        if model not in project.models:
            yield f'service "{name}" refers to undefined model {model}'


def _number_problems(name: str, service: Service) -> Iterator[str]:
    deploy = service.get("deploy") or {}
    replicas = deploy.get("replicas")
    if "scale" in service and replicas is not None and service["scale"] != replicas:
        yield f"services.{name}: can't set distinct values on 'scale' and 'deploy.replicas'"
    resources = deploy.get("resources", {})
    for key, group, other in _TWICE:
        if service.get(key) and group in resources and resources[group].get(other, 0) != service[key]:
            yield f"services.{name}: can't set distinct values on '{key}' and 'deploy.resources.{group}.{other}'"
    for device in (*service.get("gpus", ()), *resources.get("reservations", {}).get("devices", ())):
        if "count" in device and "device_ids" in device:
            yield f'services.{name}: "count" and "device_ids" attributes are exclusive'
    if scale_of(service) > 1 and service.get("container_name"):
        key = "scale" if "scale" in service else "deploy.replicas"
        yield f"services.{name}: can't set container_name and {key} as container name must be unique"
    if scale_of(service) < 0:
        yield f"services.{name}: the number of containers cannot be negative"


def _cycle(project: Project) -> list[str]:
    done: set[str] = set()

    def walk(name: str, chain: tuple[str, ...]) -> list[str]:
        if name in chain:
            return [*chain[chain.index(name) :], name]
        if name in done or name not in project.services:
            return []
        for other in sorted(project.services[name].get("depends_on", {})):
            if found := walk(other, (*chain, name)):
                return found
        done.add(name)
        return []

    for name in sorted(project.services):
        if found := walk(name, ()):
            return found
    return []
