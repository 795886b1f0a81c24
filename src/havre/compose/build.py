"""Builds a service's image with the engine's builder, from a context that is packed and sent as it is read.

The context is a folder, packed without what its `.dockerignore` leaves out, or an address that the engine fetches
itself. A Dockerfile outside the context, or in the Compose file, goes along under a name of its own.

Source: the Docker API, "ImageBuild"; Docker's reference of .dockerignore.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from havre.client.api import Client
from havre.client.jsontext import encode
from havre.compose import COMPOSE_VERSION
from havre.compose import labels as label
from havre.compose.steps import Build
from havre.errors import Failed, InvalidInput

_CHUNK = 256 << 10
_BUILDKIT_ONLY = ("additional_contexts", "cache_to", "entitlements", "privileged", "secrets", "ssh")
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


def build_image(client: Client, wanted: Build) -> str:
    """Build; what to tell of it beyond that it is done, or "". Raises Failed with the builder's last words."""
    build = wanted.project.services[wanted.key]["build"]
    without = ignored(build)
    query = build_query(wanted)
    context: str = build["context"]
    body: Iterator[bytes] | None = None
    if context.startswith(_REMOTE):
        query["remote"] = context
    else:
        dockerfile, extra = _dockerfile(Path(context), build)
        query["dockerfile"] = dockerfile
        body = pack(Path(context), dockerfile, extra)
    headers = {"Content-Type": "application/x-tar"}
    response = client.call("POST", "/build", query, raw_body=body, headers=headers)
    said: list[str] = []
    for message in client.messages(response):
        if error := message.get("error"):
            hint = f"the engine's builder was not told of {without}" if without else ""
            raise Failed("".join(said[-20:]) + str(error), hint)
        said.append(message.get("stream", ""))
    return f"Built (without {without}: not supported)" if without else ""


def ignored(build: dict[str, Any]) -> str:
    """The keys of `build` that are given and that the classic builder cannot be told of."""
    given = [key for key in _BUILDKIT_ONLY if build.get(key)]
    return ", ".join([*given, *(["platforms but the first"] if len(build.get("platforms") or ()) > 1 else [])])


def build_query(wanted: Build) -> dict[str, str | list[str]]:
    """The request's query."""
    project = wanted.project
    service = project.services[wanted.key]
    build = service["build"]
    arguments = {name: value for name, value in build.get("args", {}).items() if value is not None}
    for text in wanted.args:
        name, equals, value = text.partition("=")
        arguments[name] = value if equals else project.variables.get(name, "")
    own = {label.PROJECT: project.name, label.SERVICE: wanted.key, label.VERSION: COMPOSE_VERSION}
    query: dict[str, str | list[str]] = {
        "t": [wanted.image, *build.get("tags", ())],
        "rm": "1",
        "forcerm": "1",
        "labels": encode({**build.get("labels", {}), **own}),
    }
    if arguments:
        query["buildargs"] = encode(arguments)
    if build.get("cache_from"):
        query["cachefrom"] = encode(build["cache_from"])
    if build.get("extra_hosts"):
        query["extrahosts"] = ",".join(f"{h}:{ip}" for h, ips in build["extra_hosts"].items() for ip in ips)
    flags = {"nocache": wanted.no_cache or build.get("no_cache"), "pull": wanted.pull or build.get("pull")}
    query |= {name: "1" for name, given in flags.items() if given}
    platform = service.get("platform") or (build.get("platforms") or [""])[0]
    texts = {"target": build.get("target"), "networkmode": build.get("network"), "platform": platform}
    sizes = {"shmsize": build.get("shm_size"), "memory": wanted.memory}
    return query | {name: str(value) for name, value in (texts | sizes).items() if value}


def _dockerfile(context: Path, build: dict[str, Any]) -> tuple[str, bytes | None]:
    """The Dockerfile's name inside the context and, where it is not there, its content. Raises InvalidInput."""
    if not context.is_dir():
        raise InvalidInput(f"unable to prepare context: path {str(context)!r} not found")
    if inline := build.get("dockerfile_inline"):
        return ".dockerfile.inline", inline.encode()
    path = context / build.get("dockerfile", "Dockerfile")
    if not path.is_file():
        raise InvalidInput(f"failed to read dockerfile: open {path}: no such file or directory")
    inside = os.path.relpath(path, context)
    return (inside, None) if not inside.startswith("..") else (".dockerfile.outside", path.read_bytes())


def pack(context: Path, dockerfile: str, extra: bytes | None) -> Iterator[bytes]:
    """The context as a tar, in pieces; owners are root, so that the user's own do not change the cache."""
    ignore = context / ".dockerignore"
    ignored = Ignore(ignore.read_text().splitlines() if ignore.exists() else [])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        if extra is not None:
            member = tarfile.TarInfo(dockerfile)
            member.size = len(extra)
            tar.addfile(member, io.BytesIO(extra))
        for path in _walk(context, ignored, {dockerfile, ".dockerignore"}):
            name = path.relative_to(context).as_posix()
            tar.add(path, name, recursive=False, filter=_rooted)
            if buffer.tell() >= _CHUNK:
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
    yield buffer.getvalue()


def _rooted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _walk(context: Path, ignored: Ignore, always: set[str]) -> Iterator[Path]:
    for folder, folders, files in os.walk(context):
        base = Path(folder)
        for name in sorted([*folders, *files]):
            path = base / name
            relative = path.relative_to(context).as_posix()
            if relative in always or not ignored.matches(relative):
                yield path
        folders[:] = sorted(
            name
            for name in folders
            if not (base / name).is_symlink()
            and (ignored.has_exceptions or not ignored.matches((base / name).relative_to(context).as_posix())
                 or any(kept.startswith(f"{(base / name).relative_to(context).as_posix()}/") for kept in always))
        )  # fmt: skip


class Ignore:
    """The patterns of a .dockerignore: the last one that matches a path, or a folder above it, decides."""

    def __init__(self, lines: list[str]) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            keep = text.startswith("!")
            pattern = os.path.normpath(text[1:].strip() if keep else text).lstrip("/")
            try:
                self._rules.append((re.compile(_expression(pattern)), not keep))
            except re.error as error:
                raise InvalidInput(f".dockerignore: bad pattern {text!r}: {error}") from error
        self.has_exceptions = any(not ignored for _, ignored in self._rules)

    def matches(self, path: str) -> bool:
        """Whether a path is left out."""
        parts = path.split("/")
        above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        result = False
        for pattern, ignored in self._rules:
            if any(pattern.fullmatch(candidate) for candidate in above):
                result = ignored
        return result


def _expression(pattern: str) -> str:
    text, index = "", 0
    while index < len(pattern):
        if pattern.startswith("**", index):
            index += 2
            if pattern.startswith("/", index):
                index += 1
                text += "(?:.*/)?"
            else:
                text += ".*"
            continue
        char = pattern[index]
        if char == "[" and (end := pattern.find("]", index + 2)) > 0:
            members = re.escape(pattern[index + 1 : end]).replace("\\-", "-")
            negated = pattern[index + 1] in "^!"
            text += "[^" + members.lstrip("\\").removeprefix("^").removeprefix("!") + "]" if negated else f"[{members}]"
            index = end + 1
            continue
        text += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        index += 1
    return text
