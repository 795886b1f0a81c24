"""A project's builds as a bake file, for `build --print`.

Source: docs.docker.com, "Bake file reference"; the output of docker compose.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from havre.client.buildsend import is_remote
from havre.compose.build import arguments, attestations_of
from havre.compose.labels import build_labels
from havre.compose.project import Project, image_of
from havre.compose.steps import Build

_SAME = {
    "dockerfile_inline": "dockerfile-inline",
    "cache_from": "cache-from",
    "cache_to": "cache-to",
    "target": "target",
    "platforms": "platforms",
    "network": "network",
    "no_cache_filter": "no-cache-filter",
    "shm_size": "shm-size",
}
"""Keys of Compose files whose values bake takes as they are."""


def bake_file(project: Project, builds: Iterable[Build], *, push: bool, check: bool = False) -> dict[str, Any]:
    """The bake file; its default group has the services of `builds`, which share the options of the command."""
    builds = list(builds)
    names = _target_names(project)
    services = {name: service for name, service in project.services.items() if "build" in service}
    options = builds[0] if builds else Build(project, "", "")
    targets = {
        names[name]: _target(options._replace(key=name, image=image_of(service, name, project.name)), names,
                             push=push and bool(service.get("image")), check=check)
        for name, service in sorted(services.items())
    }  # fmt: skip
    return {"group": {"default": {"targets": sorted(names[build.key] for build in builds)}}, "target": targets}


def _target_names(project: Project) -> dict[str, str]:
    """The name of each service's target: bake allows no dots."""
    names: dict[str, str] = {}
    for service in sorted(project.services):
        name = service.replace(".", "_")
        while name in names.values():
            name += "_"
        names[service] = name
    return names


def _target(wanted: Build, names: Mapping[str, str], *, push: bool, check: bool) -> dict[str, Any]:
    project = wanted.project
    build = project.services[wanted.key]["build"]
    context: str = build["context"]
    dockerfile = build.get("dockerfile", "")
    contexts = build.get("additional_contexts", {})
    target = {
        "context": context,
        "contexts": {name: _named(value, names) for name, value in contexts.items()},
        "dockerfile": dockerfile if is_remote(context) else os.path.join(context, dockerfile) if dockerfile else "",
        "args": arguments(wanted),
        "labels": build_labels(project, wanted.key),
        "tags": [*build.get("tags", ()), wanted.image],
        "secret": list(_secrets(project, build)),
        "ssh": list(wanted.ssh) or [f"{id}={path}" if path else id for id, path in (build.get("ssh") or {}).items()],
        "pull": wanted.pull or build.get("pull", False),
        "no-cache": wanted.no_cache or build.get("no_cache", False),
        "ulimits": [_ulimit(name, value) for name, value in sorted(build.get("ulimits", {}).items())],
        "entitlements": [*build.get("entitlements", ()), *(["security.insecure"] if build.get("privileged") else ())],
        "extra-hosts": {host: ",".join(addresses) for host, addresses in build.get("extra_hosts", {}).items()},
        "call": "lint" if check else "",
        "output": [] if check else [_output(build, push=push)],
        "attest": [f"type={kind}{settings and ','}{settings}" for kind, settings in attestations_of(wanted).items()],
    }
    target |= {theirs: build.get(ours) for ours, theirs in _SAME.items()}
    return {key: value for key, value in target.items() if value}


def _named(context: str, names: Mapping[str, str]) -> str:
    service = context.removeprefix("service:")
    return context if service == context else f"target:{names[service]}"


def _secrets(project: Project, build: Mapping[str, Any]) -> Iterator[str]:
    for entry in build.get("secrets", ()):
        defined = project.secrets[entry["source"]]
        id = entry.get("target") or entry["source"]
        if variable := defined.get("environment"):
            yield f"id={id},type=env,env={variable}"
        elif "file" in defined:
            yield f"id={id},type=file,src={defined['file']}"


def _ulimit(name: str, value: int | Mapping[str, int]) -> str:
    return f"{name}={value}" if isinstance(value, int) else f"{name}={value['soft']}:{value['hard']}"


def _output(build: Mapping[str, Any], *, push: bool) -> str:
    if len(build.get("platforms", ())) > 1:
        return f"type=image,push={'true' if push else 'false'}"
    return "type=registry" if push else "type=docker"
