"""`--cache-from` and `--cache-to` for havre's daemon: query parameters, and directories to send and receive.

    NAME, type=registry,ref=NAME       an image, or a cache in a registry
    type=local,src=DIR                 the OCI layout in a directory: everything its manifest refers to is sent
    type=inline                        (to) in the image itself
    type=registry,ref=NAME,mode=max    (to) pushed by the daemon; mode=max: the steps of all stages
    type=local,dest=DIR,mode=max       (to) the daemon sends the cache as an archive, which is unpacked

Source: docker/buildx, "--cache-from", "--cache-to".
"""

from __future__ import annotations

import os

from havre.client.buildcontext import Member, member_of
from havre.errors import InvalidInput
from havre.golang.jsontext import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from havre.client.api import Query

_CONTEXT = "cache:"  # prefix of the context names of caches
_TAG = "latest"
_REF_NAME = "org.opencontainers.image.ref.name"
_FORM = ("compression",)


class CacheDirectory:
    """The OCI layout of a cache, as a context: its manifest and everything it refers to. `digest` is the manifest's."""

    def __init__(self, directory: str, tag: str = _TAG, digest: str = "") -> None:
        self.root = os.path.realpath(directory)
        self.digest = digest or self._find(tag)

    def _find(self, tag: str) -> str:
        found = self._document("index.json").get("manifests") or []
        tagged = [each for each in found if (each.get("annotations") or {}).get(_REF_NAME) == tag]
        if not (tagged or found):
            raise InvalidInput(f"the cache in {self.root} is empty")
        return str((tagged or found)[-1]["digest"])

    def _document(self, name: str) -> dict[str, Any]:
        try:
            with open(os.path.join(self.root, name), encoding="utf-8") as file:
                found: dict[str, Any] = decode(file.read().encode())
        except (OSError, ValueError) as error:
            raise InvalidInput(f"the cache in {self.root} cannot be read: {name}: {error}") from error
        return found

    def members(self) -> Iterator[Member]:
        """Yield the files to send, a directory before its content."""
        manifest = self._document(_blob(self.digest))
        led_to = [each["digest"] for each in (manifest["config"], *manifest["layers"])]
        for name in ("blobs", "blobs/sha256", *sorted({_blob(digest) for digest in (self.digest, *led_to)})):
            path = os.path.join(self.root, name)
            if os.path.exists(path):
                yield member_of(path, name)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


class Caches:
    """The caches of one build. `missing` lists directories that do not exist, which is not an error."""

    def __init__(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        self.directories: dict[str, CacheDirectory] = {}
        self.missing: list[str] = []
        self._sources: list[dict[str, str]] = []
        self._targets: list[dict[str, Any]] = []
        self._inline = False
        self._kept: list[tuple[str, str, str, dict[str, str]]] = []  # mode, directory, tag, form
        for text in sources:
            self._add_source(text)
        for text in targets:
            self._add_target(_fields(text))

    def _add_source(self, text: str) -> None:
        fields = _fields(text)
        if "type" not in fields:
            self._sources.append({"ref": text})
        elif fields["type"] == "registry":
            self._sources.append({"ref": _needed(fields, "ref")})
        elif fields["type"] == "local":
            self._add_directory(_needed(fields, "src"), fields)
        else:
            raise InvalidInput(f"unsupported cache {text!r}", "expected type=registry or type=local")

    def _add_directory(self, directory: str, fields: dict[str, str]) -> None:
        if not os.path.exists(os.path.join(directory, "index.json")):
            self.missing.append(directory)
            return
        name = f"{_CONTEXT}{len(self.directories)}"
        found = CacheDirectory(directory, fields.get("tag", _TAG), fields.get("digest", ""))
        self.directories[name] = found
        self._sources.append({"store": name, "digest": found.digest})

    def _add_target(self, fields: dict[str, str]) -> None:
        kind, mode = fields.get("type", "registry"), fields.get("mode", "min")
        if mode not in ("min", "max"):
            raise InvalidInput(f"invalid cache mode {mode!r}", "expected min or max")
        if kind == "inline":
            self._inline = True
        elif kind == "registry":
            ignored = fields.get("ignore-error") == "true"
            self._targets.append({"ref": _needed(fields, "ref"), "mode": mode, "ignore_error": ignored})
        elif kind == "local":
            self._targets.append({"mode": mode})
            form = {key: fields[key] for key in _FORM if key in fields}
            self._kept.append((mode, _needed(fields, "dest"), fields.get("tag", _TAG), form))
        else:
            raise InvalidInput(f"unsupported cache type {kind!r}", "expected inline, registry or local")

    def query(self) -> Query:
        """The query parameters for the daemon."""
        lists = {"cachefrom": self._sources, "cacheto": self._targets}
        told: Query = {name: encode(entries) for name, entries in lists.items() if entries}
        return told | ({"inlinecache": "1"} if self._inline else {})

    def exports(self, documents: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Directories with the queries of `POST /build/export` for them; `documents` are the daemon's, by mode."""
        for mode, directory, tag, form in self._kept:
            asked = {"Document": documents[mode], "Names": [f"cache:{tag}"], "Type": "oci", "Attributes": form}
            yield directory, asked


def _fields(text: str) -> dict[str, str]:
    return dict(field.partition("=")[::2] for field in text.split(",")) if "=" in text else {"ref": text}


def _needed(fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise InvalidInput(f"a cache of type {fields['type']} needs {name}=")
    return fields[name]
