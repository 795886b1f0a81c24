"""Parses the options of BuildKit's Dockerfile frontend and of its caches. Pure.

    {"filename": "Dockerfile", "build-arg:V": "1", "no-cache": "", "context:base": "docker-image://busybox"}
        --parse_options--> Options(BuildRequest, names of the client's directories)

Options for unsupported features are refused; those that only tune BuildKit's implementation are ignored, as BuildKit
ignores unknown ones.

Source: moby/buildkit frontend/dockerui/config.go, attr.go; docker/buildx build/opt.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from havre.builds.gitsource import parse_git_address, shown_address
from havre.builds.request import DEFAULT_NAME, MAIN_CONTEXT, BuildRequest, CacheSource, CacheTarget, parse_attestations
from havre.errors import InvalidInput, Unsupported
from havre.golang import gojson
from havre.golang.csvtext import split_csv
from havre.golang.ulimits import parse_ulimit
from havre.wire.config import Ulimit
from havre.wire.queries import parse_bool

FRONTEND = "dockerfile.v0"
_NETWORKS = ("", "default", "sandbox", "host", "none")
_LOCAL = "local:"
UPLOAD = "http://buildkit-session/"  # prefix by which clients name a tar sent over the session

_OF_CACHES = ("ref", "dest", "mode", "ignore-error", "force-compression")
_AS_THEY_ARE = {
    "compression": ("gzip",),
    "image-manifest": ("true",),
    "oci-mediatypes": ("true",),
    "registry.insecure": ("false",),
}

_KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"


class _CacheImport(msgspec.Struct, rename="pascal"):
    type: str
    attrs: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What to build, and where its files are: `locals` maps contexts to the client's directory names.

    `dockerfile_local` is the name of the directory with the Dockerfile, empty if it is in a context that is not a
    client's directory: `upload` is the name of a tar that the client sends instead, `remote` a URL. `remotes` are
    the URLs of other contexts.
    """

    request: BuildRequest
    locals: Mapping[str, str] = field(default_factory=dict)
    dockerfile_local: str = "dockerfile"
    upload: str = ""
    remote: str = ""
    remotes: Mapping[str, str] = field(default_factory=dict)

    @property
    def keep_git(self) -> bool:
        """Report whether contexts that are git repositories keep their `.git`."""
        return (self.request.build_args.get(_KEEP_GIT) or "").lower() in ("1", "t", "true")


def parse_options(
    frontend: str, attrs: Mapping[str, str], *, ref: str, tags: Sequence[str], store: bool, entitlements: Sequence[str]
) -> Options:
    """The request in a frontend's options; `InvalidInput` or `Unsupported` if it cannot be built."""
    if frontend != FRONTEND:
        raise Unsupported(
            f"the frontend {attrs.get('source') or frontend or 'of a low-level definition'} is not supported",
            "havre reads Dockerfiles itself; remove BUILDKIT_SYNTAX",
        )
    named, local, remotes = _contexts(attrs)
    remote = attrs.get("context", "")
    if remote and not _is_remote(remote):
        raise Unsupported(f"the context {remote} cannot be fetched by the daemon", "expected git, http:// or https://")
    upload = remote.removeprefix(UPLOAD) if remote.startswith(UPLOAD) else ""
    network = attrs.get("force-network-mode", "")
    if network not in _NETWORKS:
        raise InvalidInput(f"invalid network mode {network!r}", "expected default, host or none")
    request = BuildRequest(
        id=ref,
        dockerfile=attrs.get("filename", DEFAULT_NAME),
        target=attrs.get("target", ""),
        build_args=_having_prefix(attrs, "build-arg:"),
        labels=_having_prefix(attrs, "label:"),
        tags=tuple(tags),
        contexts=named,
        local_contexts=frozenset(local) | frozenset(remotes),
        no_cache=attrs.get("no-cache") == "",
        no_cache_stages=tuple(stage for stage in attrs.get("no-cache", "").split(",") if stage),
        pull=attrs.get("image-resolve-mode") == "pull",
        platform=attrs.get("platform", ""),
        network=network.removeprefix("sandbox"),
        entitlements=frozenset(entitlements),
        extra_hosts=tuple(host.replace("=", ":", 1) for host in _csv(attrs.get("add-hosts", ""))),
        ulimits=tuple(_parse_ulimit(each) for each in _csv(attrs.get("ulimit", ""))),
        shm_size=_parse_size(attrs.get("shm-size", "0")),
        cgroup_parent=attrs.get("cgroup-parent", ""),
        store=store,
        cache_from=_cache_sources(attrs),
        attestations=parse_attestations(_having_prefix(attrs, "attest:")),
        vcs={name: shown_address(value) for name, value in _having_prefix(attrs, "vcs:").items() if value},
    )
    main = attrs.get("contextkey", "context")
    dockerfile_local = attrs.get("dockerfilekey", "" if remote else "dockerfile")
    return Options(request, {MAIN_CONTEXT: main, **local}, dockerfile_local, upload, "" if upload else remote, remotes)


def _is_remote(context: str) -> bool:
    return context.startswith(("http://", "https://")) or parse_git_address(context) is not None


def _contexts(attrs: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Named contexts: images and stages, the client's directories, and URLs."""
    named: dict[str, str] = {}
    local: dict[str, str] = {}
    remotes: dict[str, str] = {}
    for name, value in _having_prefix(attrs, "context:").items():
        if value.startswith(_LOCAL):
            local[name] = value.removeprefix(_LOCAL)
        elif value.startswith(("docker-image://", "target:")):
            named[name] = value
        elif _is_remote(value):
            remotes[name] = value
        else:
            raise Unsupported(
                f"the context {name}={value} is not supported", "use a directory, a URL, docker-image:// or target:"
            )
    return named, local, remotes


def _having_prefix(attrs: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in attrs.items() if name.startswith(prefix)}


def _csv(text: str) -> list[str]:
    try:
        return [value for value in split_csv(text) if value]
    except ValueError as error:
        raise InvalidInput(f"invalid list {text!r}: {error}") from None


def _parse_ulimit(text: str) -> Ulimit:
    try:
        name, soft, hard = parse_ulimit(text)
    except ValueError as error:
        raise InvalidInput(f"invalid ulimit {text}: {error}", "expected NAME=SOFT[:HARD]") from None
    return Ulimit(name=name, soft=soft, hard=hard)


def _parse_size(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"invalid shm-size: {text}") from None


# -- caches


def _cache_sources(attrs: Mapping[str, str]) -> tuple[CacheSource, ...]:
    """The caches to import: `cache-imports` as JSON, or images in `cache-from` of older clients."""
    entries = gojson.decode(attrs.get("cache-imports") or "[]", list[_CacheImport], "invalid cache-imports")
    sources = [
        CacheSource(ref=entry.attrs.get("ref", ""))
        if entry.type == "registry"
        else CacheSource(store=_LOCAL + entry.attrs.get("src", ""), digest=entry.attrs.get("digest", ""))
        for entry in entries
        if entry.type in ("registry", "local")
    ]
    return (*sources, *(CacheSource(ref=name) for name in attrs.get("cache-from", "").split(",") if name))


@dataclass(frozen=True)
class CacheExports:
    """Cache exports: into the image, to `targets`; those without a name go to the client's directories, by mode."""

    inline: bool = False
    targets: tuple[CacheTarget, ...] = ()
    stores: tuple[tuple[str, str], ...] = ()


def _check_cache(type: str, attrs: Mapping[str, str]) -> None:
    """Refuse unsupported attributes: a cache is an OCI image manifest with gzip layers."""
    for name, value in attrs.items():
        if name in _OF_CACHES:
            continue
        if value not in _AS_THEY_ARE.get(name, ()):
            raise Unsupported(f"{name}={value} is not supported by the cache exporter {type}", "leave it out")


def parse_cache(exports: Sequence[tuple[str, Mapping[str, str]]]) -> CacheExports:
    """Parse the cache exporters of a request, type and attributes each; `Unsupported` for an unknown type."""
    inline, targets, stores = False, [], []
    for type, attrs in exports:
        _check_cache(type, attrs)
        mode = attrs.get("mode", "min")
        if mode not in ("min", "max"):
            raise InvalidInput(f"invalid cache mode: {mode}", "expected min or max")
        if type == "inline":
            inline = True
        elif type in ("registry", "local"):
            ref = attrs.get("ref", "") if type == "registry" else ""
            if type == "registry" and not ref:
                raise InvalidInput("registry cache exporter requires ref")
            targets.append(CacheTarget(ref, mode, parse_bool(attrs.get("ignore-error", "false"))))
            stores += [] if ref else [(mode, _LOCAL + attrs.get("dest", ""))]
        else:
            raise Unsupported(f"unknown cache exporter: {type!r}", "use type=inline, type=registry or type=local")
    return CacheExports(inline, tuple(targets), tuple(stores))
