"""Names of images: `[registry[:port]/]path[:tag][@digest]`, normalised as Docker does.

    busybox                    docker.io / library/busybox
    user/app:1                 docker.io / user/app        : 1
    localhost/app              localhost / app             (a first part with "." or ":", or "localhost", or with
    host:5000/a/b@sha256:...   host:5000 / a/b @ sha256:... upper-case letters is a registry; anything else is a path)

`familiar` is the short form shown to users, `canonical` the full one that is stored. Errors are in Docker's words,
because its clients show and match them.

Source: distribution's reference grammar ("reference.go"), OCI distribution specification, "Pulling manifests".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from havre.errors import InvalidInput
from havre.oci.digest import Digest, parse_digest
from havre.oci.names import DEFAULT_REGISTRY, split_registry

DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_NAME_LIMIT = 255

_COMPONENT = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX64 = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised image name; `tag` and `digest` are None where not given."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """Registry and repository, in full."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """Registry and repository as users write them."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix(_OFFICIAL)
        return self.repository if "/" in short else short

    @property
    def target(self) -> str:
        """The reference to request from a registry: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def familiar(self) -> str:
        """The name as Docker shows it: `busybox:1`."""
        return self.familiar_name + self._suffix()

    def canonical(self) -> str:
        """The name in full: `docker.io/library/busybox:1`."""
        return self.name + self._suffix()

    def with_default_tag(self) -> Reference:
        """This name, tagged `latest` unless it has a tag or digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """This repository at `tag`; raises `InvalidInput` for a malformed tag."""
        if _TAG.fullmatch(tag) is None:
            raise InvalidInput("invalid tag format")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """This repository at `digest`, without a tag."""
        return replace(self, tag=None, digest=digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """The image name in `text`, normalised and without a default tag; raises `InvalidInput` in Docker's words."""
    if _HEX64.fullmatch(text):
        raise InvalidInput(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    registry, rest = _split_registry(text)
    path = rest.partition(":")[0]
    if path != path.lower():
        raise InvalidInput(f"invalid reference format: repository name ({path}) must be lowercase")
    named, at, digest = rest.partition("@")
    repository, colon, tag = named.partition(":")
    if not (_REGISTRY.fullmatch(registry) and _REPOSITORY.fullmatch(repository)):
        raise InvalidInput("invalid reference format")
    if colon and _TAG.fullmatch(tag) is None:
        raise InvalidInput("invalid reference format")
    if len(registry) + 1 + len(repository) > _NAME_LIMIT:
        raise InvalidInput(f"repository name must not be more than {_NAME_LIMIT} characters")
    return Reference(registry, repository, tag or None, _parse_suffix_digest(digest) if at else None)


def parse_repository(text: str, tag: str = "") -> Reference:
    """The name in the two parameters of Docker's API: a repository (or a full name) and a tag or digest."""
    ref = parse_reference(text)
    if not tag:
        return ref
    if ":" in tag and tag.startswith("sha256:"):
        return ref.with_digest(_parse_suffix_digest(tag))
    return ref.with_tag(tag)


def _parse_suffix_digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except InvalidInput:
        raise InvalidInput("invalid reference format") from None


def _split_registry(text: str) -> tuple[str, str]:
    registry, path = split_registry(text)
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = _OFFICIAL + path
    return registry, path
