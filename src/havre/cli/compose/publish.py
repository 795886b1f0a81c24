"""`havre compose publish`: a project's Compose files as an artifact in a registry, in docker compose's format.

    manifest (artifactType application/vnd.docker.compose.project)
        config   the empty document
        layers   one for each file, as it is written; with --resolve-image-digests one more that pins the images

Source: github.com/docker/compose, internal/oci.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from havre.cli.compose.config import pinned
from havre.cli.compose.stage import Stage
from havre.cli.parser import StatusError
from havre.client.auth import find_auth
from havre.compose import COMPOSE_VERSION
from havre.compose.project import Project
from havre.compose.steps import Push, Step
from havre.compose.yamlread import read_documents
from havre.errors import Unsupported
from havre.golang.jsontext import encode
from havre.oci.digest import digest_of
from havre.oci.names import AUTH_KEY, DEFAULT_REGISTRY
from havre.oci.reference import Reference, parse_reference

if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.golang.flags import Options

_ARTIFACT = "application/vnd.docker.compose.project"
_FILE = "application/vnd.docker.compose.file+yaml"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIGS = {
    "1.0": "application/vnd.docker.compose.config.empty.v1+json",
    "1.1": "application/vnd.oci.empty.v1+json",
}
_EMPTY = b"{}"


def publish(session: Session, options: Options, arguments: list[str]) -> int:
    """Publish the project's files, after its images. Raises StatusError, Unsupported."""
    if options.app:
        raise Unsupported("--app is not supported", "publish without it; the images stay in their repositories")
    version = options.oci_version or "1.1"
    if version not in _CONFIGS:
        raise StatusError(1, f"unsupported OCI version: {version}")
    stage = Stage(session, options)
    project = stage.project(select=False)
    texts = [(os.path.basename(file), _read(file)) for file in project.files]
    everything = {**project.disabled, **project.services}
    if unnamed := sorted(name for name, service in everything.items() if not service.get("image")):
        raise StatusError(1, f"services without an image cannot be published: {', '.join(unnamed)}")
    told = list(_told(everything, project, with_env=options.with_env))
    if told and not options.yes and not stage.dry_run:
        session.warn("\n".join(told))
        if not session.confirm("Publish these values?"):
            raise StatusError(1, "publishing was cancelled")
    if options.resolve_image_digests:
        images = {name: {"image": pinned(stage, service)["image"]} for name, service in everything.items()}
        texts.append(("image-digests.yaml", Project("", "", (), {}, images).to_yaml().encode()))
    built = sorted({service["image"] for service in everything.values() if "build" in service})
    stage.carry_out([Step(f"push {i}", f"Image {i}", "Pushing", "Pushed", Push(i, tolerate=True)) for i in built])
    target = parse_reference(arguments[0])
    if stage.dry_run:
        print(f"publish {target.canonical()}: {', '.join(name for name, _ in texts)}")
        return 0
    asyncio.run(_push(session, target, texts, version))
    session.warn(f"{arguments[0]} published")
    return 0


def _read(file: str) -> bytes:
    """The text of a file that means the same elsewhere. Raises Unsupported, StatusError."""
    try:
        with open(file, "rb") as opened:
            data = opened.read()
    except OSError as error:
        raise StatusError(1, f"open {file}: {(error.strerror or '').lower()}") from error
    for document in read_documents(data.decode("utf-8-sig"), file):
        value: dict[str, Any] = document.value if isinstance(document.value, dict) else {}
        if value.get("include"):
            raise StatusError(1, "cannot publish compose file with local includes")
        for name, service in (value.get("services") or {}).items():
            extends = (service or {}).get("extends")
            if isinstance(extends, dict) and extends.get("file"):
                raise Unsupported(f'service "{name}" extends one of another file, which is not published')
            if (service or {}).get("env_file"):
                raise Unsupported(f'service "{name}" has an env_file, which is not published', "write environment")
    return data


def _told(services: dict[str, Any], project: Project, *, with_env: bool) -> list[str]:
    """What the files give away, one line each."""
    lines = []
    for name, service in sorted(services.items()):
        binds = [mount["source"] for mount in service.get("volumes", ()) if mount["type"] == "bind"]
        variables = [key for key, value in service.get("environment", {}).items() if value]
        if binds:
            lines.append(f'service "{name}" mounts {", ".join(binds)}')
        if variables and not with_env:
            lines.append(f'service "{name}" sets {", ".join(variables)}')
    return lines + [f'config "{name}" has a content' for name, c in sorted(project.configs.items()) if c.get("content")]


async def _push(session: Session, target: Reference, texts: list[tuple[str, bytes]], version: str) -> None:
    import msgspec  # imported late: `scene` makes third-party modules known

    from havre.registry import Auth, Registry, RegistryConfig

    known = find_auth(session.config, AUTH_KEY if target.registry == DEFAULT_REGISTRY else target.registry)
    auth = msgspec.convert(known, Auth) if known else None
    registry = Registry(RegistryConfig())
    try:
        for _, data in (("", _EMPTY), *texts):
            await registry.push_document(target, data, auth)
        await registry.push_manifest(target, _MANIFEST, _manifest(texts, version), auth)
    finally:
        await registry.close()


def _manifest(texts: list[tuple[str, bytes]], version: str) -> bytes:
    layers = []
    for name, data in texts:
        annotations = {"com.docker.compose.file": name, "com.docker.compose.version": COMPOSE_VERSION}
        layers.append(_descriptor(_FILE, data) | {"annotations": annotations})
    kind = {"artifactType": _ARTIFACT} if version == "1.1" else {}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        **kind,
        "config": _descriptor(_CONFIGS[version], _EMPTY),
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": created},
    }
    return encode(manifest).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
