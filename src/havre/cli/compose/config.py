"""`havre compose config`: the canonical model, its hashes, and lists of its parts."""

from __future__ import annotations

import re
import sys

from havre.cli.compose.scene import UNFIT, Scene
from havre.cli.format.table import align
from havre.cli.parser import StatusError
from havre.cli.pull import registry_headers
from havre.compose import yamlwrite
from havre.compose.load import Loader
from havre.compose.project import Project, images_of, service_hash
from havre.errors import InvalidInput
from havre.golang.jsontext import encode
from havre.oci.names import DEFAULT_REGISTRY, has_tag, split_registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from havre.cli.session import Session
    from havre.compose.load import Source
    from havre.golang.flags import Options

_USE = re.compile(r"(?<!\$)(?:\$\$)*\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-+?])([^}]*))?\})")


def config(session: Session, options: Options, arguments: list[str]) -> int:
    """Print the model, or a part of it."""
    scene = Scene(session, options)
    source = scene.source()._replace(
        resolve=not options.no_path_resolution,
        normalize=not options.no_normalize,
        consistent=not options.no_consistency,
        environment=not options.no_env_resolution,
    )
    if options.quiet:
        scene.project(arguments, source)
        return 0
    if options.format not in ("yaml", "json"):
        raise StatusError(1, f'unsupported format "{options.format}"')
    text = _part(scene, source, options, arguments)
    if options.output:
        with open(options.output, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    return 0


def _part(scene: Scene, source: Source, options: Options, services: list[str]) -> str:
    unread = source._replace(environment=False)
    if options.services:
        project = scene.project((), unread)
        return _lines(sorted(project.services))
    if options.networks:
        return _lines(sorted(scene.project((), unread).networks))
    if options.models:
        return _lines(sorted(model["model"] for model in scene.project((), unread).models.values()))
    if options.volumes:
        return _lines(sorted(scene.project((), unread).volumes))
    if options.hash:
        names = [] if options.hash == "*" else options.hash.split(",")
        project = scene.project((), unread)
        return _lines(f"{name} {service_hash(project.service(name))}" for name in sorted(names or project.services))
    if options.profiles:
        project = scene.project(services, unread)
        everything = (*project.services.values(), *project.disabled.values())
        return _lines(sorted({profile for service in everything for profile in service.get("profiles", ())}))
    if options.images:
        project = scene.project(services, unread)
        names = sorted(project.services)
        return _lines(image for name in names for image in images_of(project.services[name], name, project.name))
    if options.environment:
        return _lines(f"{name}={value}" for name, value in sorted(scene.project(services, unread).variables.items()))
    if options.variables:
        return _variables(_model(scene, source))
    if options.no_interpolate:
        model = yamlwrite.sort_deep(_model(scene, source))
        return encode(model, indent="  ", sort_keys=True) if options.format == "json" else yamlwrite.render(model)
    project = scene.project(services, source)
    if options.resolve_image_digests or options.lock_image_digests:
        project = project._replace(services={name: pinned(scene, s) for name, s in project.services.items()})
    if options.lock_image_digests:
        services_only = {name: _image_only(service) for name, service in project.services.items()}
        project = Project("", "", (), {}, services_only)
    return (project.to_json() if options.format == "json" else project.to_yaml()).replace("$", "$$")


def pinned(scene: Scene, service: dict[str, Any]) -> dict[str, Any]:
    """The service with its image pinned to the registry's digest."""
    image = service.get("image")
    if not image or "@" in image:
        return service
    registry, rest = split_registry(image)
    path = f"library/{rest}" if registry == DEFAULT_REGISTRY and "/" not in rest else rest
    full = f"{registry}/{path}" + ("" if has_tag(rest) else ":latest")
    headers = registry_headers(scene.session, image)
    answer = scene.session.client.json("GET", f"/distribution/{image}/json", headers=headers)
    return {**service, "image": f"{full}@{answer['Descriptor']['digest']}"}


def _image_only(service: dict[str, Any]) -> dict[str, Any]:
    """The service's image and its mounted ones."""
    mounts = [mount for mount in service.get("volumes", ()) if mount["type"] == "image"]
    kept = {"image": service.get("image"), "volumes": mounts}
    return {key: value for key, value in kept.items() if value}


def _lines(lines: Any) -> str:
    return "".join(f"{line}\n" for line in lines)


def _model(scene: Scene, source: Source) -> dict[str, Any]:
    loader = Loader(source._replace(interpolate=False))
    try:
        return loader.model()
    except InvalidInput as error:
        raise StatusError(UNFIT, str(error)) from error
    finally:
        scene.tell(loader)


def _variables(model: dict[str, Any]) -> str:
    found: dict[str, tuple[bool, str, str]] = {}
    for text in _texts(model):
        for match in _USE.finditer(text):
            how, more = match[3] or "", match[4] or ""
            required, default, alternate = found.get(match[1] or match[2], (False, "", ""))
            found[match[1] or match[2]] = (
                required or how.endswith("?"),
                default or (more if how.endswith("-") else ""),
                alternate or (more if how.endswith("+") else ""),
            )
    rows = [[n, str(r).lower(), default, alternate] for n, (r, default, alternate) in sorted(found.items())]
    return align([["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"], *rows])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(member)
