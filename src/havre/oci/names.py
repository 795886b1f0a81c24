"""Splits image names without validating them: for display and for requests. Pure, and cheap to import.

`reference.parse_reference` validates, and uses these functions.
"""

from __future__ import annotations

DEFAULT_REGISTRY = "docker.io"
AUTH_KEY = "https://index.docker.io/v1/"


def split_registry(name: str) -> tuple[str, str]:
    """The registry of a name, and the rest."""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        return (DEFAULT_REGISTRY, rest) if first in (DEFAULT_REGISTRY, "index.docker.io") else (first, rest)
    return DEFAULT_REGISTRY, name


def split_tag(name: str) -> tuple[str, str]:
    """The name without its tag, and the tag; "" if it has none, or has a digest."""
    if "@" in name or not has_tag(name):
        return name, ""
    repository, _, tag = name.rpartition(":")
    return repository, tag


def split_version(name: str) -> tuple[str, str]:
    """The name without its digest or tag, and that; "" without either."""
    repository, at, digest = name.partition("@")
    return (repository, digest) if at else split_tag(name)


def has_tag(name: str) -> bool:
    """Report whether a name has a tag."""
    return ":" in name.partition("@")[0].rpartition("/")[2]


def familiar(name: str) -> str:
    """`name` without docker.io/library/, with `:latest` if it has neither tag nor digest."""
    registry, rest = split_registry(name)
    short = rest.removeprefix("library/") if registry == DEFAULT_REGISTRY else f"{registry}/{rest}"
    return short if has_tag(name) or "@" in name else short + ":latest"
