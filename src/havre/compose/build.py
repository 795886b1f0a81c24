"""Builds a service's image with the engine's builder, from a context that `client.buildsend` sends.

The context is a folder, of which the engine gets what `.dockerignore` does not leave out, or an address that it fetches
itself. A Dockerfile outside the context, or in the Compose file, goes along under a name of its own. havre's daemon
also gets secrets and further contexts; what an engine cannot be told of is named beside `Built`, and in a failure.

Source: the Docker API, "ImageBuild"; the Compose Build Specification.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from havre.client.api import Client
from havre.client.buildcontext import DirectoryContext
from havre.client.buildsend import is_remote, read_secret, send_list, send_tar, takes_lists
from havre.client.jsontext import encode
from havre.compose import COMPOSE_VERSION
from havre.compose import labels as label
from havre.compose.project import Project
from havre.compose.request import ulimit
from havre.compose.steps import Build
from havre.errors import Failed, InvalidInput, Unsupported

_NOWHERE = ("entitlements", "privileged", "ssh")
_HAVRE_ONLY = ("additional_contexts", "secrets")


def build_image(client: Client, wanted: Build, credentials: str = "") -> str:
    """Build; what to tell of it beyond that it is done, or "". Raises Failed with the builder's last words.

    `credentials` are those of registries, as `registry_config` gives them.
    """
    build = wanted.project.services[wanted.key]["build"]
    native = takes_lists(client)
    without = ignored(build, native=native)
    query = build_query(wanted, native=native)
    source = None
    if is_remote(build["context"]):
        query |= {"remote": build["context"], "dockerfile": build.get("dockerfile", "")}
    else:
        source = _directory(build)
        query["dockerfile"] = source.dockerfile
    if native:
        secrets = read_secrets(wanted.project, build)
        messages = send_list(client, query, source, build.get("additional_contexts", {}), secrets, credentials)
    else:
        messages = client.messages(send_tar(client, "/build", query, source, credentials))
    _follow(messages, f"the engine's builder was not told of {without}" if without else "")
    return f"Built (without {without}: not supported)" if without else ""


def _follow(messages: Iterator[dict[str, Any]], hint: str) -> None:
    said: list[str] = []
    for message in messages:
        if error := message.get("error"):
            raise Failed("".join(said[-20:]) + str(error), hint)
        said.append(message.get("stream", ""))


def ignored(build: dict[str, Any], *, native: bool) -> str:
    """The keys of `build` that are given and that the engine cannot be told of; `native` is havre's."""
    given = [key for key in sorted(_NOWHERE if native else _NOWHERE + _HAVRE_ONLY) if build.get(key)]
    if not all(native and _is_inline(text) for text in build.get("cache_to", ())):
        given.append("cache_to of other kinds than inline" if native else "cache_to")
    if not all(map(cache_image, build.get("cache_from", ()))):
        given.append("cache_from of other kinds than registry")
    if len(build.get("platforms") or ()) > 1:
        given.append("platforms but the first")
    return ", ".join(given)


def read_secrets(project: Project, build: dict[str, Any]) -> dict[str, bytes]:
    """The values of a build's secrets by ID. Raises Failed, InvalidInput, Unsupported for what has none."""
    values = {}
    for entry in build.get("secrets", ()):
        defined = project.secrets[entry["source"]]
        id = entry.get("target") or entry["source"]
        if "file" in defined:
            values[id] = read_secret(id, defined["file"])
        elif variable := defined.get("environment"):
            if variable in project.variables:  # else the step that requires it fails
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


def build_query(wanted: Build, *, native: bool) -> dict[str, str | list[str]]:
    """The request's query; `native` if havre's daemon is asked."""
    project = wanted.project
    service = project.services[wanted.key]
    build = service["build"]
    arguments = {name: value for name, value in build.get("args", {}).items() if value is not None}
    for text in wanted.args:
        name, equals, value = text.partition("=")
        arguments[name] = value if equals else project.variables.get(name, "")
    if native and any(map(_is_inline, build.get("cache_to", ()))):
        arguments["BUILDKIT_INLINE_CACHE"] = "1"
    own = {label.PROJECT: project.name, label.SERVICE: wanted.key, label.VERSION: COMPOSE_VERSION}
    query: dict[str, str | list[str]] = {
        "t": [wanted.image, *build.get("tags", ())],
        "rm": "1",
        "forcerm": "1",
        "labels": encode({**build.get("labels", {}), **own}),
    }
    if arguments:
        query["buildargs"] = encode(arguments)
    if images := [image for text in build.get("cache_from", ()) if (image := cache_image(text))]:
        query["cachefrom"] = encode(images)
    if build.get("extra_hosts"):
        query["extrahosts"] = [f"{host}:{ip}" for host, ips in build["extra_hosts"].items() for ip in ips]
    if build.get("ulimits"):
        query["ulimits"] = encode([ulimit(name, value) for name, value in sorted(build["ulimits"].items())])
    flags = {"nocache": wanted.no_cache or build.get("no_cache"), "pull": wanted.pull or build.get("pull")}
    query |= {name: "1" for name, given in flags.items() if given}
    platform = service.get("platform") or (build.get("platforms") or [""])[0]
    texts = {"target": build.get("target"), "networkmode": build.get("network"), "platform": platform}
    sizes = {"shmsize": build.get("shm_size"), "memory": wanted.memory}
    return query | {name: str(value) for name, value in (texts | sizes).items() if value}


def cache_image(text: str) -> str:
    """The image that an entry of `cache_from` names, "" for a cache of another kind; `type=registry,ref=X` or X."""
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    if "type" not in fields:
        return text
    return fields.get("ref", "") if fields["type"] == "registry" else ""


def _is_inline(text: str) -> bool:
    """Whether an entry of `cache_to` puts the cache into the image."""
    return "type=inline" in text.split(",")
