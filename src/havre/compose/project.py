"""A project: the canonical model used after loading. Immutable.

Services, networks ... are plain mappings of canonical values, with the keys of `schema`; sizes are bytes, durations
nanoseconds. Also renders the output of `config` and the text that is hashed, from the same table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from havre.compose import yamlwrite
from havre.compose.dotenv import read_env_file
from havre.compose.kinds import JSON, YAML
from havre.compose.schema import PROJECT, SERVICE
from havre.errors import InvalidInput, NotFound
from havre.golang.jsontext import encode

Service = dict[str, Any]
Resources = dict[str, dict[str, Any]]


class Project(NamedTuple):
    """A project; `disabled` are services without an active profile."""

    name: str
    folder: str
    files: tuple[str, ...]
    variables: Mapping[str, str]
    services: dict[str, Service]
    networks: Resources = {}
    volumes: Resources = {}
    secrets: Resources = {}
    configs: Resources = {}
    models: Resources = {}
    disabled: dict[str, Service] = {}
    profiles: tuple[str, ...] = ()
    extensions: dict[str, Any] = {}
    env_files: tuple[str, ...] = ()

    def service(self, name: str) -> Service:
        """An enabled service. Raises NotFound."""
        if name not in self.services:
            raise NotFound(f"no such service: {name}" + (": service is disabled" if name in self.disabled else ""))
        return self.services[name]

    def enabling(self, names: Iterable[str]) -> Project:
        """The project with the profiles of the named services activated."""
        profiles = [p for name in names for p in self.disabled.get(name, {}).get("profiles", ())]
        if not profiles:
            return self
        everything = {**self.services, **self.disabled}
        active = (*self.profiles, *profiles)
        enabled = {name: service for name, service in everything.items() if has_profile(service, active)}
        disabled = {name: service for name, service in everything.items() if name not in enabled}
        return self._replace(services=enabled, disabled=disabled, profiles=active).with_environment()

    def selecting(self, names: Sequence[str], *, dependencies: bool = True) -> Project:
        """The project reduced to the named services (none: all) and, optionally, their dependencies. Raises
        NotFound."""
        if not names:
            return self
        wanted: dict[str, None] = {}
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in wanted:
                continue
            wanted[name] = None
            needed = self.service(name).get("depends_on", {}) if dependencies else {}
            todo += [other for other, how in needed.items() if other in self.services or how.get("required")]
        services = {
            name: {**service, "depends_on": {k: v for k, v in service.get("depends_on", {}).items() if k in wanted}}
            for name, service in self.services.items()
            if name in wanted
        }
        rest = {name: service for name, service in self.services.items() if name not in wanted}
        return self._replace(services=services, disabled={**self.disabled, **rest})

    def used_only(self) -> Project:
        """The project without networks, volumes, secrets and configs that no service uses."""
        used: dict[str, set[str]] = {"networks": set(), "volumes": set(), "secrets": set(), "configs": set()}
        for service in self.services.values():
            used["networks"].update(service.get("networks") or {})
            used["volumes"].update(v.get("source", "") for v in service.get("volumes", ()) if v["type"] == "volume")
            used["secrets"].update(s["source"] for s in service.get("secrets", ()))
            used["secrets"].update(s["source"] for s in service.get("build", {}).get("secrets", ()))
            used["configs"].update(c["source"] for c in service.get("configs", ()))
        kept = {kind: {k: v for k, v in getattr(self, kind).items() if k in names} for kind, names in used.items()}
        networks, volumes, secrets, configs = (kept[kind] for kind in ("networks", "volumes", "secrets", "configs"))
        return self._replace(networks=networks, volumes=volumes, secrets=secrets, configs=configs)

    def with_environment(self, *, discard: bool = True) -> Project:
        """The project with the variables of `env_file` in each service's environment. Raises InvalidInput."""
        return self._replace(services={name: self._environment(s, discard) for name, s in self.services.items()})

    def _environment(self, service: Service, discard: bool) -> Service:
        found: dict[str, str] = {}
        for entry in service.get("env_file", ()):
            path = entry["path"]
            if not os.path.exists(path) and not entry.get("required"):
                continue
            if not os.path.exists(path):
                raise NotFound(f"env file {path} not found: stat {path}: no such file or directory")
            if entry.get("format", "") not in ("", "raw"):
                raise InvalidInput(f'unsupported env_file format "{entry["format"]}"')
            raw = entry.get("format") == "raw"
            found.update(read_env_file(path, lambda name: found.get(name, self.variables.get(name)), raw=raw))
        own = service.get("environment", {})
        known = {name: self.variables.get(name) if value is None else value for name, value in own.items()}
        result = {**service, "environment": {**found, **known}}
        if discard:
            result.pop("env_file", None)
        return result

    def to_yaml(self) -> str:
        """The output of `config`."""
        return yamlwrite.render(PROJECT.dump(self._model(), YAML))

    def to_json(self) -> str:
        """The output of `config --format json`."""
        dumped = PROJECT.dump(self._model(), JSON) | {key: _sorted(value) for key, value in self.extensions.items()}
        return encode({key: dumped[key] for key in sorted(dumped)}, indent="  ", escape_html=True)

    def _model(self) -> dict[str, Any]:
        kinds = {kind: getattr(self, kind) for kind in ("networks", "volumes", "secrets", "configs", "models")}
        shown = {name: {k: v for k, v in c.items() if k != "content"} if "environment" in c else c
                 for name, c in self.configs.items()}  # fmt: skip
        return {"name": self.name, "services": self.services, **kinds, "configs": shown, **self.extensions}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def has_profile(service: Service, active: Sequence[str]) -> bool:
    """Report whether a service is enabled with the `active` profiles."""
    own = service.get("profiles") or ()
    return not own or "*" in active or any(profile in active for profile in own)


def scale_of(service: Service) -> int:
    """Number of the service's containers."""
    scale = service.get("scale", service.get("deploy", {}).get("replicas"))
    return 1 if scale is None else int(scale)


def image_of(service: Service, name: str, project: str) -> str:
    """The image of the service's containers: the one named, or the tag of its build."""
    return str(service.get("image") or f"{project}-{name}")


def images_of(service: Service, name: str, project: str) -> list[str]:
    """The images of the service's containers and of its `pre_start` hooks, each once."""
    if "provider" in service:
        return []
    hooks = (hook["image"] for hook in service.get("pre_start", ()) if hook.get("image"))
    return list(dict.fromkeys((image_of(service, name, project), *hooks)))


def service_hash(service: Service) -> str:
    """The hash of a service's configuration, stored in a label by docker compose: containers with another are stale."""
    unhashed = {k: v for k, v in service.items() if k not in ("build", "pull_policy", "scale")}
    if "deploy" in unhashed:
        unhashed["deploy"] = {k: v for k, v in unhashed["deploy"].items() if k != "replicas"}
    from hashlib import sha256  # imported late: read-only commands do not need it

    text = encode(SERVICE.dump(unhashed, JSON), escape_html=True)
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def in_order(project: Project) -> Iterator[str]:
    """Names of services, each after its dependencies, otherwise by name."""
    done: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name in done:
            return
        done.add(name)
        for other in sorted(project.services[name].get("depends_on", {})):
            if other in project.services:
                yield from visit(other)
        yield name

    for name in sorted(project.services):
        yield from visit(name)
