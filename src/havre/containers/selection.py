"""Filters of `GET /containers/json`, with Docker's validation. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from havre.containers.container import Container
from havre.errors import InvalidInput
from havre.golang.ports import parse_mappings
from havre.wire.filters import (
    Filters,
    boolean,
    check_keys,
    matches_exactly,
    matches_labels,
    matches_pattern,
)
from havre.wire.values import ZERO_TIME

KEYS = frozenset(
    {
        "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!", "name",
        "network", "publish", "since", "status", "volume",
    }
)  # fmt: skip
STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTH = ("none", "starting", "healthy", "unhealthy")


def select(
    containers: Iterable[Container],
    filters: Filters,
    *,
    all: bool = False,
    limit: int = 0,
    find: Callable[[str], Container],
    descended: Callable[[str], Collection[str]],
) -> list[Container]:
    """The containers to show, newest first.

    `find` looks up the containers of `before` and `since`; `descended` returns the IDs of images for `ancestor`. Raises
    `InvalidInput` for an unknown key or a malformed value.
    """
    check(filters)
    newest_first = sorted(containers, key=lambda container: container.spec.created, reverse=True)
    newest_first = _between(newest_first, filters, find)
    images = {image for value in filters.get("ancestor", ()) for image in descended(value)}
    everything = all or limit > 0 or bool(filters.get("status"))
    chosen = [
        container
        for container in newest_first
        if (everything or container.state.running)
        and _matches(container, filters)
        and matches_exactly(filters, "health", health_of(container))
        and ("ancestor" not in filters or container.spec.image in images)
    ]
    return chosen[:limit] if limit > 0 else chosen


def health_of(container: Container) -> str:
    """Its health; "none" without a health check."""
    health = container.state.health
    return health.status if health else "none"


def check(filters: Filters) -> None:
    """Raise `InvalidInput` for unknown keys or values."""
    check_keys(filters, KEYS)
    for value in filters.get("status", ()):
        if value not in STATES:
            raise InvalidInput(f"invalid filter 'status={value}'", f"expected one of {', '.join(STATES)}")
    for value in filters.get("exited", ()):
        if not re.fullmatch(r"[+-]?\d+", value):
            raise InvalidInput(f"invalid filter 'exited={value}': \"{value}\" is not a number")
    for value in filters.get("health", ()):
        if value not in HEALTH:
            raise InvalidInput(f"unrecognized filter value for health: {value}", f"one of {', '.join(HEALTH)}")
    boolean(filters, "is-task")
    for key in ("publish", "expose"):
        _ports(filters, key)


def _between(containers: list[Container], filters: Filters, find: Callable[[str], Container]) -> list[Container]:
    """The containers created before one container and after another, both exclusive."""
    for value in filters.get("before", ()):
        limit = find(value)
        containers = [each for each in containers if each.spec.created < limit.spec.created]
    for value in filters.get("since", ()):
        limit = find(value)
        containers = [each for each in containers if each.spec.created > limit.spec.created]
    return containers


def _matches(container: Container, filters: Filters) -> bool:
    return not filters or (
        matches_pattern(filters, "name", container.name, "/" + container.name)
        and _id_matches(container, filters)
        and boolean(filters, "is-task") is not True
        and matches_labels(filters, container.spec.config.labels)
        and _exit_matches(container, filters)
        and matches_exactly(filters, "status", container.state.status)
        and _volume_matches(container, filters)
        and _network_matches(container, filters)
        and _ports_match(container, filters)
    )


def _id_matches(container: Container, filters: Filters) -> bool:
    wanted = filters.get("id")
    return not wanted or any(container.id.startswith(prefix) for prefix in wanted)


def _exit_matches(container: Container, filters: Filters) -> bool:
    codes = {int(value) for value in filters.get("exited", ())}
    state = container.state
    return not codes or (state.exit_code in codes and not state.running and state.started_at != ZERO_TIME)


def _volume_matches(container: Container, filters: Filters) -> bool:
    wanted = filters.get("volume")
    known = {name for point in container.spec.mounts for name in (point.destination, point.name or point.source)}
    return not wanted or any(value in known for value in wanted)


def _network_matches(container: Container, filters: Filters) -> bool:
    wanted = filters.get("network")
    return not wanted or any(
        value == name or (endpoint.network_id != "" and endpoint.network_id.startswith(value))
        for value in wanted
        for name, endpoint in container.run.networks.items()
    )


def _ports_match(container: Container, filters: Filters) -> bool:
    published, exposed = _ports(filters, "publish"), _ports(filters, "expose")
    if not published and not exposed:
        return True
    for port, bindings in container.run.ports.items():
        protocol = port.partition("/")[2] or "tcp"
        if port in exposed or any(f"{binding.host_port}/{protocol}" in published for binding in bindings or ()):
            return True
    return False


def _ports(filters: Filters, key: str) -> set[str]:
    """The ports of a filter as PORT/PROTOCOL, ranges expanded."""
    ports: set[str] = set()
    for value in filters.get(key, ()):
        if ":" in value:
            raise InvalidInput(f"filter for '{key}' should not contain ':': {value}")
        try:
            found = parse_mappings(value)
        except ValueError:
            found = []
        if not found or not found[0].port:
            raise InvalidInput(f"error while looking up for {key} {value}: expected PORT[-LAST][/PROTOCOL]")
        ports.update(each.name for each in found)
    return ports
