"""Merging: later files over earlier ones, a service over the one that it extends; and removal of duplicates.

Mappings merge key by key, lists are appended, anything else is replaced, with the exceptions in the two tables below.

Source: the Compose specification, "Merge and override".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from havre.compose.shortforms import parse_volume
from havre.compose.tree import Path, Rules
from havre.compose.yamlread import key_path
from havre.errors import InvalidInput
from havre.golang.scalars import go_text

Merger = Callable[[Any, Any, Path], Any]
_SERVICE_STARTED = {"condition": "service_started", "required": True}


def merge(base: Any, other: Any, path: Path = ()) -> Any:
    """Merge `other` over `base`. Raises InvalidInput where their types differ."""
    special: Merger | None = _SPECIAL.find(path)
    if special is not None:
        return special(base, other, path)
    if other is None:
        return base
    for kind in (dict, list):
        if isinstance(base, kind) and not isinstance(other, kind):
            raise InvalidInput(f"cannot override {key_path(path)}: one file has a {_noun(base)}, another does not")
    if isinstance(base, dict):
        return _mappings(base, other, path)
    return base + other if isinstance(base, list) else other


def _noun(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list"


def _mappings(base: dict[str, Any], other: dict[str, Any], path: Path) -> dict[str, Any]:
    result = dict(base)
    for key, value in other.items():
        fresh = key not in result or key.startswith("x-")
        result[key] = value if fresh else merge(result[key], value, (*path, key))
    return result


def extend_service(base: dict[str, Any], service: dict[str, Any]) -> dict[str, Any]:
    """A service over the one that it extends."""
    merged: dict[str, Any] = merge(base, service, ("services", "x"))
    merged.pop("extends", None)
    return merged


def _replace(base: Any, other: Any, path: Path) -> Any:
    return other


def _sequence(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return sorted(entry for name, member in value.items() for entry in _pairs(name, member))
    if isinstance(value, str):
        return [value]
    return list(value or [])


def _pairs(name: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [f"{name}={go_text(item)}" for item in value]
    return [name if value is None else f"{name}={go_text(value)}"]


def _as_lists(base: Any, other: Any, path: Path) -> Any:
    return _sequence(base) + _sequence(other)


def _hosts(base: Any, other: Any, path: Path) -> Any:
    first = _sequence(base)
    return first + [entry for entry in _sequence(other) if entry not in first]


def _mapping(value: Any, default: dict[str, Any] | None) -> dict[str, Any]:
    if isinstance(value, list):
        return {name: dict(default) if default else None for name in value}
    return value or {}


def _dependencies(base: Any, other: Any, path: Path) -> Any:
    return _mappings(_mapping(base, _SERVICE_STARTED), _mapping(other, _SERVICE_STARTED), path)


def _networks(base: Any, other: Any, path: Path) -> Any:
    return _mappings(_mapping(base, None), _mapping(other, None), path)


def _build(base: Any, other: Any, path: Path) -> Any:
    both = [{"context": value} if isinstance(value, str) else value or {} for value in (base, other)]
    return _mappings(both[0], both[1], path)


def _logging(base: Any, other: Any, path: Path) -> Any:
    one, two = base or {}, other or {}
    same = "driver" not in one or "driver" not in two or one["driver"] == two["driver"]
    return _mappings(one, two, path) if same else two


def _pools(base: Any, other: Any, path: Path) -> Any:
    result = [dict(pool) for pool in base or []]
    for pool in other or []:
        same = next((i for i, known in enumerate(result) if known.get("subnet") == pool.get("subnet")), None)
        if same is None:
            result.append(pool)
        else:
            result[same] = _mappings(result[same], pool, path)
    return result


_LISTED = "annotations build.args build.additional_contexts build.labels build.no_cache_filter deploy.labels dns \
dns_opt dns_search env_file label_file environment labels sysctls tmpfs"
_SPECIAL = Rules(
    {f"services.*.{name}": _as_lists for name in _LISTED.split()}
    | {f"services.*.{name}": _replace for name in ("command", "entrypoint", "healthcheck.test", "ulimits.*")}
    | {
        "networks.*.ipam.config": _pools,
        "networks.*.labels": _as_lists,
        "volumes.*.labels": _as_lists,
        "services.*.build": _build,
        "services.*.build.extra_hosts": _hosts,
        "services.*.extra_hosts": _hosts,
        "services.*.depends_on": _dependencies,
        "services.*.models": _networks,
        "services.*.networks": _networks,
        "services.*.logging": _logging,
    }
)


def keep_last(value: Any, path: Path = ()) -> Any:
    """`value` with equivalent entries of lists replaced by the last of them, at the position of the first."""
    if isinstance(value, dict):
        return {key: keep_last(member, (*path, key)) for key, member in value.items()}
    name_of: Callable[[Any], Any] | None = _UNIQUE.find(path) if isinstance(value, list) else None
    if name_of is None:
        return value
    entries: dict[Any, Any] = {}
    for index, entry in enumerate(value):
        try:
            entries[name_of(entry)] = entry
        except ValueError as error:
            raise InvalidInput(f"{key_path((*path, str(index)))}: {error}") from error
    return list(entries.values())


def _pair_name(entry: Any) -> Any:
    return entry.partition("=")[0] if isinstance(entry, str) else go_text(entry)


def _volume_target(entry: Any) -> Any:
    return parse_volume(entry)["target"] if isinstance(entry, str) else entry.get("target", "")


def _device_target(entry: Any) -> Any:
    if isinstance(entry, str):
        parts = entry.split(":")
        return parts[1] if len(parts) > 1 else parts[0]
    return entry.get("target", entry.get("source"))


def _file_target(folder: str) -> Callable[[Any], Any]:
    def name_of(entry: Any) -> Any:
        if isinstance(entry, str):
            return f"{folder}/{entry}"
        return entry.get("target", f"{folder}/{entry.get('source')}")

    return name_of


def _port_name(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return go_text(entry)
    return (
        entry.get("host_ip", "0.0.0.0"),
        go_text(entry.get("published")),
        go_text(entry.get("target")),
        entry.get("protocol", "tcp"),
    )


def _path_name(entry: Any) -> Any:
    return entry if isinstance(entry, str) else entry.get("path")


_PAIRED = "annotations build.args build.additional_contexts build.platform build.tags build.labels cap_add cap_drop \
deploy.labels dns dns_opt dns_search environment labels links profiles sysctls tmpfs expose"
_UNIQUE = Rules(
    {f"services.*.{name}": _pair_name for name in _PAIRED.split()}
    | {
        "networks.*.labels": _pair_name,
        "services.*.networks.*.aliases": _pair_name,
        "services.*.networks.*.link_local_ips": _pair_name,
        "services.*.configs": _file_target(""),
        "services.*.secrets": _file_target("/run/secrets"),
        "services.*.env_file": _path_name,
        "services.*.ports": _port_name,
        "services.*.volumes": _volume_target,
        "services.*.devices": _device_target,
    }
)
