"""Builds a service's image with the engine's builder, from a context sent by `client.buildsend`.

The context is a directory, filtered by `.dockerignore`, or a URL that the engine fetches. A Dockerfile outside the
context, or inline in the Compose file, is sent under a special name. havre's daemon also gets secrets, SSH agents,
additional contexts and caches; keys that an engine does not support are reported before the build.

    additional_contexts: {base: "service:NAME"}    the image built for NAME, which is built first (`images`)

`entitlements` grants rights to a build, `privileged` is one of them; the daemon must allow them, too
(`build.entitlements`).

Source: the Docker API, "ImageBuild"; the Compose Build Specification.
"""

from __future__ import annotations

import os
import time
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from havre.client.api import Client
from havre.client.buildcache import Caches
from havre.client.buildcontext import DirectoryContext
from havre.client.buildsend import is_remote, read_secret, send_list, send_tar, takes_lists
from havre.client.http import Response
from havre.compose.labels import build_labels
from havre.compose.project import Project, image_of
from havre.compose.request import ulimit
from havre.compose.steps import Build
from havre.errors import Failed, InvalidInput, Unsupported
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.client.api import Query

Tell = Callable[[list[str], list[str]], None]
"""Called with progress: the running steps, and new output, one line each."""
Unpack = Callable[[Iterator[bytes], str], None]
"""Unpacks the archive of an OCI layout into a directory."""

_HAVRE_ONLY = ("additional_contexts", "entitlements", "no_cache_filter", "privileged", "secrets", "ssh")
_CACHES = ("inline", "local", "registry")
_SHOWN, _KEPT = 4, 20  # running steps shown, and lines of output quoted in an error
_TICK_S = 0.1


class Means(NamedTuple):
    """What a build needs besides its engine: registries' credentials as returned by `registry_config`, a factory of
    connections to the engine, and a function that unpacks archives.
    """

    credentials: str
    connect: Callable[[], Client]
    unpack: Unpack


def build_image(client: Client, wanted: Build, means: Means, tell: Tell) -> None:
    """Build. Raises Failed with the end of the builder's output, InvalidInput, Unsupported."""
    build = wanted.project.services[wanted.key]["build"]
    native = takes_lists(client)
    query, source = _request(wanted, client, native=native)
    if not native:
        _follow(client.messages(send_tar(client, "/build", query, source, means.credentials)), tell)
        return
    caches = Caches(*(list(filter(is_cache, build.get(key, ()))) for key in ("cache_from", "cache_to")))
    query |= caches.query() | {"progress": "rawjson"}
    named = {name: _named(wanted.project, value) for name, value in build.get("additional_contexts", {}).items()}
    secrets = read_secrets(wanted.project, build)
    with _agents(wanted, means, query):
        sent = send_list(client, query, source, named, secrets, means.credentials, caches.directories)
        built = _follow(sent, tell)
    for directory, asked in caches.exports(built.get("Caches") or {}):
        means.unpack(client.call("POST", "/build/export", body=asked).chunks(), directory)


def check_build(client: Client, wanted: Build, credentials: str) -> Response:
    """Have havre's daemon check a service's Dockerfile. Raises InvalidInput."""
    query, source = _request(wanted, client, native=True)
    return send_tar(client, "/build/check", query, source, credentials)


def _request(wanted: Build, client: Client, *, native: bool) -> tuple[Query, DirectoryContext | None]:
    """The query of a build, and the context to send: None for one that the engine fetches."""
    build = wanted.project.services[wanted.key]["build"]
    query = build_query(wanted, native=native, proxies=client.proxies)
    if is_remote(build["context"]):
        return query | {"remote": build["context"], "dockerfile": build.get("dockerfile", "")}, None
    source = _directory(build)
    return query | {"dockerfile": source.dockerfile}, source


def _agents(wanted: Build, means: Means, query: dict[str, str | list[str]]) -> AbstractContextManager[object]:
    """Serve the build's SSH agents for the duration of a block, and add them to the query."""
    given = wanted.project.services[wanted.key]["build"].get("ssh") or {}
    if not (texts := wanted.ssh or [f"{id}={path}" if path else id for id, path in given.items()]):
        return nullcontext()
    from havre.client.buildagents import Agents

    agents = Agents(texts)
    query |= {"ssh": agents.ids, "buildid": os.urandom(16).hex()}
    agents.offer(means.connect, str(query["buildid"]))
    return agents


def _named(project: Project, context: str) -> str:
    name = context.removeprefix("service:")
    return context if name == context else f"docker-image://{image_of(project.services[name], name, project.name)}"


def _follow(messages: Iterator[dict[str, Any]], tell: Tell) -> dict[str, Any]:
    """Follow a build to its end and return the engine's result. Raises Failed.

    Calls `tell` with the running steps, and the steps and lines since the last call.
    """
    said: list[str] = []
    fresh: list[str] = []
    running: dict[str, str] = {}
    built: dict[str, Any] = {}
    shown = 0.0
    for message in messages:
        if error := message.get("error"):
            raise Failed("\n".join([*said[-_KEPT:], str(error)]))
        aux = message.get("aux") or {}
        if "Build" not in aux:
            built |= aux
            if lines := message.get("stream", "").splitlines():
                said += lines
                tell(said[-1:], lines)
            continue
        for vertex in aux["Build"].get("vertexes") or ():
            running.pop(vertex["digest"], None)
            if vertex.get("started") and not vertex.get("completed"):
                running[vertex["digest"]] = vertex["name"]
                fresh.append(f"=> {vertex['name']}")
        logs = aux["Build"].get("logs") or ()
        for log in logs:
            lines = a2b_base64(log["data"]).decode("utf-8", "replace").splitlines()
            said += lines
            fresh += lines
        if not logs or time.monotonic() - shown > _TICK_S:
            shown = time.monotonic()
            tell([*list(running.values())[-_SHOWN:], *(f"  {line}" for line in said[-1:] if running)], fresh)
            fresh = []
    tell([], fresh)
    return built


def unsupported(client: Client, builds: Iterable[Build]) -> Iterator[str]:
    """Yield a warning for each service with build keys that the engine does not support."""
    native = takes_lists(client)
    for wanted in builds:
        build = wanted.project.services[wanted.key]["build"]
        given = {**build, **wanted.attestations, **({"ssh": wanted.ssh} if wanted.ssh else {})}
        if keys := ignored(given, native=native, all_platforms=wanted.all_platforms):
            yield f"service {wanted.key} is built without {keys}: this engine's builder does not support it"


def ignored(build: dict[str, Any], *, native: bool, all_platforms: bool = False) -> str:
    """The keys of `build` that are set and not supported by the engine; `native` means havre's daemon."""
    given = [key for key in _HAVRE_ONLY if build.get(key) and not native]
    given += [key for key in ("provenance", "sbom") if build.get(key, "false") != "false" and not native]
    for key in ("cache_from", "cache_to") if native else ("cache_to",):
        given += [f"{key} {text}" for text in build.get(key, ()) if not (native and is_cache(text))]
    if not native:
        given += [f"cache_from {text}" for text in build.get("cache_from", ()) if not cache_image(text)]
    if all_platforms and not native and len(build.get("platforms", ())) > 1:
        given.append("platforms but the first")
    return ", ".join(given)


def read_secrets(project: Project, build: dict[str, Any]) -> dict[str, bytes]:
    """The values of a build's secrets by ID. Raises Failed, InvalidInput, or Unsupported for one without a source."""
    values = {}
    for entry in build.get("secrets", ()):
        defined = project.secrets[entry["source"]]
        id = entry.get("target") or entry["source"]
        if "file" in defined:
            values[id] = read_secret(id, defined["file"])
        elif variable := defined.get("environment"):
            if variable in project.variables:  # otherwise the step that requires it fails
                values[id] = project.variables[variable].encode("utf-8", "surrogateescape")
        else:
            raise Unsupported(f'build.secrets only supports environment or file-based secrets: "{entry["source"]}"')
    return values


def _directory(build: dict[str, Any]) -> DirectoryContext:
    """The context with its Dockerfile. Raises InvalidInput."""
    context: str = build["context"]
    if inline := build.get("dockerfile_inline"):
        return DirectoryContext(context, inline.encode())
    path = os.path.join(context, build.get("dockerfile", "Dockerfile"))
    if os.path.isdir(context) and not os.path.isfile(path):
        raise InvalidInput(f"failed to read dockerfile: open {path}: no such file or directory")
    return DirectoryContext(context, path)


def build_query(wanted: Build, *, native: bool, proxies: dict[str, str] | None = None) -> Query:
    """The request's query; `native` for havre's daemon."""
    project = wanted.project
    service = project.services[wanted.key]
    build = service["build"]
    query: Query = {
        "t": [wanted.image, *build.get("tags", ())],
        "rm": "1",
        "forcerm": "1",
        "labels": encode(build_labels(project, wanted.key)),
    }
    if given := {**(proxies or {}), **arguments(wanted)}:
        query["buildargs"] = encode(given)
    images = [image for text in build.get("cache_from", ()) if (image := cache_image(text))]
    if images and not native:
        query["cachefrom"] = encode(images)
    granted = [*build.get("entitlements", ()), *(["security.insecure"] if build.get("privileged") else ())]
    if granted and native:
        query["allow"] = granted
    if native and (attestations := attestations_of(wanted)):
        query["attestations"] = encode(attestations)
    if native and build.get("no_cache_filter"):
        query["nocachefilter"] = encode(build["no_cache_filter"])
    if build.get("extra_hosts"):
        query["extrahosts"] = [f"{host}:{ip}" for host, ips in build["extra_hosts"].items() for ip in ips]
    if build.get("ulimits"):
        query["ulimits"] = encode([ulimit(name, value) for name, value in sorted(build["ulimits"].items())])
    flags = {"nocache": wanted.no_cache or build.get("no_cache"), "pull": wanted.pull or build.get("pull")}
    query |= {name: "1" for name, given in flags.items() if given}
    platforms = build.get("platforms", ())
    platform = service.get("platform", "")
    if wanted.all_platforms and native and len(platforms) > 1:
        platform = ",".join(platforms)
    elif not platform and (wanted.all_platforms or len(platforms) == 1):
        platform = "".join(platforms[:1])  # otherwise the engine's own platform
    texts = {"target": build.get("target"), "networkmode": build.get("network"), "platform": platform}
    sizes = {"shmsize": build.get("shm_size"), "memory": wanted.memory}
    return query | {name: str(value) for name, value in (texts | sizes).items() if value}


def arguments(wanted: Build) -> dict[str, str]:
    """The build's arguments that have a value; those of the command line win."""
    project = wanted.project
    given = project.services[wanted.key]["build"].get("args", {})
    values = {name: value for name, value in given.items() if value is not None}
    for text in wanted.args:
        name, equals, value = text.partition("=")
        values[name] = value if equals else project.variables.get(name, "")
    return values


def attestations_of(wanted: Build) -> dict[str, str]:
    """The build's attestations by kind, each with its settings; those of the command line win."""
    build = wanted.project.services[wanted.key]["build"]
    given = {kind: text for kind in ("provenance", "sbom") if (text := build.get(kind, "false")) != "false"}
    return {kind: "" if text == "true" else text for kind, text in given.items()} | dict(wanted.attestations)


def cache_image(text: str) -> str:
    """The image in an entry of `cache_from` (`type=registry,ref=X` or X), "" for a cache of another type."""
    fields = _fields(text)
    return fields.get("ref", "") if fields["type"] == "registry" else ""


def is_cache(text: str) -> bool:
    """Report whether havre's daemon supports this type of `cache_from` or `cache_to` entry."""
    return _fields(text)["type"] in _CACHES


def _fields(text: str) -> dict[str, str]:
    if "=" not in text:
        return {"type": "registry", "ref": text}
    return {"type": "registry", **dict(field.partition("=")[::2] for field in text.split(","))}
