"""What a build is asked for, what it asks its client for, and what comes of it: the face of the room, in values.

    door (api/build.py, /grpc)                        room
    --------------------------                        ----
    BuildRequest, ContextSource, Report  --build()-->  Builder
         ^            |                                  |
         |            '-- dockerfile, directory, secret, ssh, credentials <-- asked when needed, never before
         '---------- events (progress.py) as things happen; BuildResult at the end

The same for every door: a door decodes its protocol into these and renders the events; it decides nothing.
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

_UNASKED = "mode=min,inline-only=true"  # what buildx sends by itself; dockerd's classic store keeps no attestations
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
    """A cache to use: the image `ref`, here or in its registry, or the manifest `digest` of the client's `store`."""

    ref: str = ""
    store: str = ""
    digest: str = ""


@dataclass(frozen=True)
class CacheTarget:
    """A cache to be written: to `ref` in its registry, or without one for the client, who gets the document.

    `mode` is min, for the steps of the result, or max, for those of all stages.
    """

    ref: str = ""
    mode: str = "min"
    ignore_error: bool = False


@dataclass(frozen=True)
class Provenance:
    """That an attestation of the result's provenance is wanted, in a version of SLSA's: v0.2 or v1.

    `full` wants all that is known told (mode=max); `reproducible` is the user's word for it.
    """

    full: bool = False
    version: str = "v0.2"
    builder_id: str = ""
    reproducible: bool = False


class Origin(NamedTuple):
    """Where what was fetched comes from: an address without credentials, and its digest (`sha1:` of a git commit)."""

    address: str
    digest: str


@dataclass(frozen=True)
class Sbom:
    """That an attestation of the packages in the result is wanted.

    `generator` is an image that lists them, with `parameters` of its own; without one the daemon does.
    """

    generator: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Attestations:
    """What is to be attested of a result: where it comes from, and which packages are installed in it."""

    provenance: Provenance | None = None
    sbom: Sbom | None = None


def parse_attestations(wanted: Mapping[str, str]) -> Attestations:
    """The attestations by kind, each with settings as `--attest` has them (`mode=max,builder-id=x`).

    Those that are off, or that buildx asks for by itself, count as none. Raises `InvalidInput`, `Unsupported`.
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
    """Attestations are in images alone, be they `inline-only` or not.

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

    `dockerfile` is a path in the main context. `build_args` maps to None for an argument whose value the client did
    not have. `contexts` are the named contexts that are no directory of the client's: `docker-image://NAME`,
    `target:STAGE`; any other name that FROM, COPY --from or a mount uses may be asked of the ContextSource if it is
    in `local_contexts`. `no_cache_stages` are names of stages never taken from the cache. `memory` and `shm_size` are
    bytes; `network` is default, bridge, host or none. `entitlements` are
    the rights that the client grants the build's commands. With
    `only_cache_from` nothing counts as cached if none of `cache_from` can be had. `inline_cache` puts
    the cache of this build into its image. `platform` may be several, with commas between. `vcs` is what the client
    says of the repository that its main context is in.
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
    """A Dockerfile as the client has it; `ignore` is the text of `NAME.dockerignore` or `.dockerignore` if any."""

    name: str
    data: bytes
    ignore: bytes | None = None


class ContextSource(Protocol):
    """What a build asks its client for. Everything that comes is hostile; every call may raise `HavreError`."""

    async def dockerfile(self, path: str) -> DockerfileBytes:
        """The Dockerfile at `path` of the main context; `NotFound` if there is none."""

    async def directory(self, name: str, wanted: Sequence[str], ignored: Sequence[str]) -> Path | Tree:
        """The files of the context `name` (`MAIN_CONTEXT` or one of `local_contexts`), or a directory with them.

        It holds at least what the patterns `wanted` match and what lies below (an empty one is everything), and
        nothing that the `.dockerignore` patterns `ignored` leave out. It is asked for once in a build and stays until
        that is over; nobody writes to it meanwhile.
        """

    async def secret(self, id: str) -> bytes | None:
        """The secret of this ID; None if the client has none."""

    async def ssh(self, id: str) -> Path | None:
        """A Unix socket that an SSH agent answers on while the build lasts; None if the client forwards none."""

    def blob(self, store: str, digest: Digest) -> AsyncGenerator[bytes, None]:
        """A blob of the client's directory of a cache; `NotFound` without it."""

    async def credentials(self, registry: str) -> Auth | None:
        """Credentials for a registry (`docker.io`, `host:5000`)."""

    def origins(self) -> Mapping[str, Origin]:
        """Where those contexts come from that were fetched by now, by their names."""


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What was built: `config` is the image's document (its ID is the digest), `layers` its diff IDs, base first.

    `unconsumed` are the names of build arguments given that no ARG has declared.
    `image` is None when the request said `store=False`: the layers are kept as long as the build cache has them.
    `predicates` are those of the attestations asked for. `caches` are the documents of caches for the client,
    by mode. Of a build for several platforms `platforms` has the results, and the others are those of the one that
    the names mean: the host's, else the first.
    """

    config: bytes
    layers: tuple[Digest, ...]
    image: ImageId | None = None
    unconsumed: tuple[str, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    caches: Mapping[str, bytes] = field(default_factory=dict)
    platforms: Mapping[str, BuildResult] = field(default_factory=dict)
