"""The values of the builds' interface: requests, what a build requests from its client, and results.

    door (api/build.py, /grpc)                        room
    --------------------------                        ----
    BuildRequest, ContextSource, Report  --build()-->  Builder
         ^            |                                  |
         |            '-- dockerfile, directory, secret, ssh, credentials <-- on demand
         '---------- events (progress.py) while it runs; BuildResult at the end

All APIs decode their protocol into these values and render the events; they make no decisions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from havre.builds.trees import Tree
from havre.errors import InvalidInput, Unsupported
from havre.oci.attestation import Predicate
from havre.oci.digest import Digest
from havre.registry import Auth
from havre.wire.config import Ulimit
from havre.wire.values import ImageId

DEFAULT_NAME = "Dockerfile"
MAIN_CONTEXT = "context"

_UNASKED = "mode=min,inline-only=true"  # buildx's default; dockerd's classic store drops such attestations
_BOOLEAN = ("true", "false", "1", "0")
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "mode": ("min", "max", "full"),
    "version": ("v0.2", "v1"),
    "builder-id": (),
    "reproducible": _BOOLEAN,
    "inline-only": _BOOLEAN,
    "disabled": _BOOLEAN,
}


@dataclass(frozen=True)
class CacheSource:
    """A cache to import: the image `ref`, local or remote, or the manifest `digest` of the client's `store`."""

    ref: str = ""
    store: str = ""
    digest: str = ""


@dataclass(frozen=True)
class CacheTarget:
    """A cache to export: to `ref` in its registry, or without one to the client, which receives the document.

    `mode` is min, for the steps of the result, or max, for those of all stages.
    """

    ref: str = ""
    mode: str = "min"
    ignore_error: bool = False


@dataclass(frozen=True)
class Provenance:
    """A request for a provenance attestation, with the version of SLSA provenance: v0.2 or v1.

    `full` requests all details (mode=max); `reproducible` is a claim of the user.
    """

    full: bool = False
    version: str = "v0.2"
    builder_id: str = ""
    reproducible: bool = False


class Origin(NamedTuple):
    """The origin of a fetched context: an address without credentials, and its digest (`sha1:` of a git commit)."""

    address: str
    digest: str


@dataclass(frozen=True)
class Sbom:
    """A request for an attestation of the packages in the result.

    `generator` is an image that lists them, run with `parameters`; without one the daemon lists them itself.
    """

    generator: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attestations:
    """The attestations requested for a result: provenance, and a list of the packages installed in it."""

    provenance: Provenance | None = None
    sbom: Sbom | None = None


def parse_attestations(wanted: Mapping[str, str]) -> Attestations:
    """The attestations by kind, each with settings in the syntax of `--attest` (`mode=max,builder-id=x`).

    Disabled ones and buildx's default are ignored. Raises `InvalidInput`, `Unsupported`.
    """
    provenance, sbom = None, None
    for kind, text in wanted.items():
        settings = dict(field.partition("=")[::2] for field in text.split(",") if field)
        settings.pop("type", None)
        if text == _UNASKED or settings.get("disabled") == "true":
            continue
        if kind == "provenance":
            provenance = _parse_provenance(settings)
        elif kind == "sbom":
            settings.pop("disabled", None)
            sbom = Sbom(settings.pop("generator", ""), settings)
        else:
            raise Unsupported(f"attestations are not supported: {kind}", "expected provenance or sbom")
    return Attestations(provenance, sbom)


def _parse_provenance(settings: Mapping[str, str]) -> Provenance:
    """Attestations are stored in images only, with or without `inline-only`.

    Source: moby/buildkit docs/attestations/slsa-provenance.md.
    """
    for name, value in settings.items():
        if name not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            raise InvalidInput(f"unknown setting of a provenance attestation: {name}", f"there are {known}")
        if (allowed := _SETTINGS[name]) and value not in allowed:
            raise InvalidInput(f"invalid provenance {name}: {value}", f"expected {' or '.join(allowed)}")
    return Provenance(
        full=settings.get("mode") in ("max", "full"),
        version=settings.get("version", "v0.2"),
        builder_id=settings.get("builder-id", ""),
        reproducible=settings.get("reproducible") in ("true", "1"),
    )


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """One build. Absent texts are empty.

    `dockerfile` is a path in the main context. `build_args` has None for an argument without a value on the client.
    `contexts` are named contexts that are not directories of the client: `docker-image://NAME`, `target:STAGE`; those
    that are, are in `local_contexts` and requested from the ContextSource. `no_cache_stages` are names of stages never
    taken from the cache. `memory` and `shm_size` are in bytes; `network` is default, bridge, host or none.
    `entitlements` are those that the client grants. `only_cache_from`: nothing is cached if no cache of `cache_from` is
    available. `inline_cache` stores the cache of this build in its image. `platform` may be several, separated by
    commas. `vcs` is the client's description of the repository of its main context.
    """

    id: str = ""
    dockerfile: str = DEFAULT_NAME
    target: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    contexts: Mapping[str, str] = field(default_factory=dict)
    local_contexts: frozenset[str] = frozenset()
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    platform: str = ""
    network: str = ""
    entitlements: frozenset[str] = frozenset()
    extra_hosts: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int = 0
    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    squash: bool = False
    cache_from: tuple[CacheSource, ...] = ()
    only_cache_from: bool = False
    cache_to: tuple[CacheTarget, ...] = ()
    attestations: Attestations = Attestations()
    vcs: Mapping[str, str] = field(default_factory=dict)
    inline_cache: bool = False
    store: bool = True


@dataclass(frozen=True)
class DockerfileBytes:
    """A Dockerfile of the client; `ignore` is the text of its `NAME.dockerignore` or `.dockerignore`, if any."""

    name: str
    data: bytes
    ignore: bytes | None = None


class ContextSource(Protocol):
    """Requests of a build to its client. All responses are hostile; every call may raise `HavreError`."""

    async def dockerfile(self, path: str) -> DockerfileBytes:
        """The Dockerfile at `path` of the main context. Raises `NotFound`."""

    async def directory(self, name: str, wanted: Sequence[str], ignored: Sequence[str]) -> Path | Tree:
        """The files of the context `name` (`MAIN_CONTEXT` or one of `local_contexts`), or a directory with them.

        Contains at least what the patterns `wanted` match and everything below ("" is everything), and nothing that the
        `.dockerignore` patterns `ignored` exclude. Requested once per build; does not change until the build ends.
        """

    async def secret(self, id: str) -> bytes | None:
        """The secret with this ID; None if the client has none."""

    async def ssh(self, id: str) -> Path | None:
        """A Unix socket of an SSH agent, open until the build ends; None if the client forwards none."""

    def blob(self, store: str, digest: Digest) -> AsyncGenerator[bytes, None]:
        """A blob of the client's cache directory `store`. Raises `NotFound`."""

    async def credentials(self, registry: str) -> Auth | None:
        """Credentials for a registry (`docker.io`, `host:5000`)."""

    def origins(self) -> Mapping[str, Origin]:
        """Origins of the contexts that were fetched so far, by name."""


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """The result of a build: `config` is the image configuration (its digest is the ID), `layers` its diff IDs, base
    first.

    `unconsumed` are names of build arguments given that no ARG declares. `image` is None if the request had
    `store=False`: the layers are then kept as long as the build cache has them. `predicates` are those of requested
    attestations; `provenance` has all details, for the history of builds. `caches` are the documents of caches for the
    client, by mode. Of a multi-platform build `platforms` has all results; the other fields are those of the platform
    that the names resolve to: the host's, or the first.
    """

    config: bytes
    layers: tuple[Digest, ...]
    image: ImageId | None = None
    unconsumed: tuple[str, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    provenance: Predicate | None = None
    caches: Mapping[str, bytes] = field(default_factory=dict)
    platforms: Mapping[str, BuildResult] = field(default_factory=dict)
