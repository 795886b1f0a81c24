"""Completes the model: defaults, absolute paths, implied networks and dependencies.

Source: the Compose specification; docker compose's `config` output.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from havre.compose.tree import Path, Rules, change
from havre.errors import InvalidInput
from havre.golang.scalars import go_text

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_SHARING = ("network_mode", "ipc", "pid", "uts", "cgroup")


def set_defaults(model: dict[str, Any]) -> dict[str, Any]:
    """The model with defaults that do not depend on other keys."""
    result: dict[str, Any] = change(model, _DEFAULTS)
    return result


def _build_default(value: Any, path: Path) -> Any:
    return {"context": ".", **value} if isinstance(value, dict) else value


def _secret_default(value: Any, path: Path) -> Any:
    return {"target": f"/run/secrets/{value.get('source')}", **value}


def _port_default(value: Any, path: Path) -> Any:
    return {"protocol": "tcp", "mode": "ingress", **value}


def _device_default(value: Any, path: Path) -> Any:
    return value if "count" in value or "device_ids" in value else {**value, "count": "all"}


_DEFAULTS = Rules(
    {
        "services.*.build": _build_default,
        "services.*.secrets.*": _secret_default,
        "services.*.ports.*": _port_default,
        "services.*.deploy.resources.reservations.devices.*": _device_default,
        "services.*.gpus.*": _device_default,
    }
)


def resolve_paths(model: dict[str, Any], folder: str) -> dict[str, Any]:
    """The model with paths of the user's machine resolved against `folder`. Raises InvalidInput."""

    def absolute(value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return [absolute(item, path) for item in value]
        return join(folder, value) if isinstance(value, str) and value else value

    def context(value: Any, path: Path) -> Any:
        plain = isinstance(value, str) and "://" not in value and not value.startswith(("service:", *_REMOTE))
        return absolute(value, path) if plain else value

    def link(value: Any, path: Path) -> Any:
        return os.path.realpath(absolute(value, path)) if os.path.isabs(folder) else absolute(value, path)

    def mount(value: Any, path: Path) -> Any:
        if not isinstance(value, dict) or value.get("type") != "bind":
            return value
        if "source" not in value:
            raise InvalidInput(
                f'services.{path[1]}.volumes: invalid mount config for type "bind": field Source must not be empty'
            )
        source = value["source"]
        return value if _WINDOWS.match(source) else {**value, "source": absolute(source, path)}

    def volume(value: Any, path: Path) -> Any:
        options = value.get("driver_opts") if isinstance(value, dict) else None
        if not options or value.get("driver") != "local" or options.get("o") != "bind" or "device" not in options:
            return value
        return {**value, "driver_opts": {**options, "device": absolute(options["device"], path)}}

    rules = Rules(
        {
            "services.*.build.context": context,
            "services.*.build.additional_contexts.*": context,
            "services.*.build.ssh.*": absolute,
            "services.*.env_file.*.path": absolute,
            "services.*.label_file.*": absolute,
            "services.*.extends.file": absolute,
            "services.*.develop.watch.*.path": link,
            "services.*.volumes.*": mount,
            "configs.*.file": absolute,
            "secrets.*.file": absolute,
            "volumes.*": volume,
        }
    )
    result: dict[str, Any] = change(model, rules)
    return result


def join(folder: str, path: str) -> str:
    """`path` relative to `folder`, without `.` and `..`; `~` is the user's home."""
    if path.startswith("~"):
        path = os.path.expanduser("~") + path[1:]
    return path if os.path.isabs(path) else posixpath.normpath(posixpath.join(folder, path))


def normalize(model: dict[str, Any], name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """The model with the implied default network, dependencies and names of a project called `name`."""
    services = {key: _service(service, variables) for key, service in (model.get("services") or {}).items()}
    result = {**model, "services": services} if "services" in model else dict(model)
    networks = dict(model.get("networks") or {})
    if any("default" in (service.get("networks") or {}) for service in services.values()):
        networks.setdefault("default", None)
    if networks:
        result["networks"] = networks
    result["name"] = name
    for kind in ("networks", "volumes", "configs", "secrets"):
        if kind in result:
            result[kind] = {key: _named(key, value, name) for key, value in (result[kind] or {}).items()}
    return result


def _named(key: str, value: Any, project: str) -> dict[str, Any]:
    resource = dict(value or {})
    if resource.get("name") is None:
        external = go_text(resource.get("external", False)).lower() in ("true", "1", "t")
        resource["name"] = key if external else f"{project}_{key}"
    return resource


def _service(service: Any, variables: Mapping[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = dict(service or {})
    if result.get("pull_policy") == "if_not_present":
        result["pull_policy"] = "missing"
    if not {"network_mode", "provider"} & result.keys() and not result.get("networks"):
        result["networks"] = {"default": None}
    if isinstance(result.get("build"), dict):
        result["build"] = _build(result["build"], variables)
    if "environment" in result:
        result["environment"] = _known(result["environment"], variables, keep=True)
    if "volumes" in result:
        result["volumes"] = [
            {**volume, "target": posixpath.normpath(volume["target"])} if volume.get("target") else volume
            for volume in result["volumes"]
        ]
    dependencies = _implied(result)
    if dependencies:
        result["depends_on"] = dependencies
    return result


def _build(build: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    result = {**build, "context": build.get("context") or "."}
    if build.get("dockerfile") is None and build.get("dockerfile_inline") is None:
        result["dockerfile"] = "Dockerfile"
    if "args" in build:
        result["args"] = _known(build["args"], variables, keep=False)
    return result


def _known(pairs: Any, variables: Mapping[str, str], *, keep: bool) -> Any:
    """Give names without a value the environment's; unset ones are kept or dropped."""
    if isinstance(pairs, dict):
        filled = {name: variables.get(name) if value is None else value for name, value in pairs.items()}
        return {name: value for name, value in filled.items() if keep or value is not None}
    result = []
    for entry in pairs:
        if "=" in entry or (keep and entry not in variables):
            result.append(entry)
        elif entry in variables:
            result.append(f"{entry}={variables[entry]}")
    return result


def _implied(service: dict[str, Any]) -> dict[str, Any]:
    """The dependencies, with those that links, shared namespaces and shared volumes imply."""
    dependencies = dict(service.get("depends_on") or {})

    def add(name: str, *, restart: bool) -> None:
        implied = {"condition": "service_started", "restart": restart, "required": True}
        dependencies.setdefault(name, implied)

    for link in service.get("links") or ():
        parts = link.split(":")
        add(parts[0] if len(parts) == 2 else link, restart=True)
    for key in _SHARING:
        reference = service.get(key) or ""
        if reference.startswith("service:"):
            add(reference.removeprefix("service:"), restart=True)
    for source in service.get("volumes_from") or ():
        if not source.startswith("container:"):
            add(source.partition(":")[0], restart=False)
    return dependencies
