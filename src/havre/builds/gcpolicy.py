"""Garbage collection of the build cache: the rules of `builder.gc` in daemon.json. Pure.

    {"gc": {"enabled": true, "defaultKeepStorage": "20GB",
            "policy": [{"keepStorage": "10GB", "filter": ["unused-for=2200h"], "all": true}]}}

Rules are applied in order after every build: each deletes matching records, least recently used first, until at most
its `maxUsedSpace` is left and `minFreeSpace` is free, but never below `reservedSpace` (formerly `keepStorage`).
The default policy deletes records unused for 60 days, then those no image uses, then any.

Source: the dockerd reference, "builder.gc"; moby builder/builder-next/worker/gc.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from havre.errors import InvalidInput
from havre.golang.units import parse_size

SMALLEST_DEFAULT = 2 << 30  # bytes: minimum of the default limit, for small disks
_PART_OF_DISK = 10
_OLD = "1440h"


@dataclass(frozen=True)
class SpaceLimits:
    """Limits of a prune in bytes, 0 for none: keep `reserved` anyway, use at most `max_used`, leave `min_free` free."""

    reserved: int = 0
    max_used: int = 0
    min_free: int = 0

    def keep_bytes(self, used: int, free: int) -> int:
        """How much of a cache of `used` bytes is kept on a disk with `free` bytes."""
        keep, missing = self.max_used, self.min_free - free
        if missing > 0:
            keep = min(keep, used - missing) if keep else used - missing
        elif self.min_free and not keep:
            keep = used
        return max(keep, self.reserved)


@dataclass(frozen=True)
class GcRule:
    """One rule; without `all`, it keeps records whose layer an image uses."""

    limits: SpaceLimits
    all: bool = False
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class GcPolicy:
    """The setting `builder.gc`; `rules` of None are the default rules for `limits` (none: by the size of the disk)."""

    enabled: bool = True
    limits: SpaceLimits = SpaceLimits()
    rules: tuple[GcRule, ...] | None = None

    def for_disk(self, disk_bytes: int) -> tuple[GcRule, ...]:
        """The rules for a disk of this size."""
        if not self.enabled:
            return ()
        if self.rules is not None:
            return self.rules
        default = SpaceLimits(max(disk_bytes // _PART_OF_DISK, SMALLEST_DEFAULT))
        limits = default if self.limits == SpaceLimits() else self.limits
        old = GcRule(limits, filters={"unused-for": [_OLD]})
        return (old, GcRule(limits), GcRule(limits, all=True))


def parse_gc_policy(builder: Mapping[str, Any]) -> GcPolicy:
    """The policy of daemon.json's `builder`. Raises `InvalidInput`."""
    builder = _only(builder, ("gc", "entitlements", "insecure-entitlements", "history"), "builder")
    known = ("enabled", "policy", "defaultKeepStorage", "defaultReservedSpace", "defaultMaxUsedSpace")
    gc = _only(builder.get("gc", {}), (*known, "defaultMinFreeSpace"), "builder.gc")
    policy = gc.get("policy")
    rules = None if policy is None else tuple(_rule(entry) for entry in policy)
    limits = SpaceLimits(
        _size(gc.get("defaultReservedSpace") or gc.get("defaultKeepStorage", 0)),
        _size(gc.get("defaultMaxUsedSpace", 0)),
        _size(gc.get("defaultMinFreeSpace", 0)),
    )
    return GcPolicy(bool(gc.get("enabled", True)), limits, rules)


def _rule(entry: Any) -> GcRule:
    known = ("keepStorage", "reservedSpace", "maxUsedSpace", "minFreeSpace", "filter", "all")
    entry = _only(entry, known, "builder.gc.policy")
    filters: dict[str, list[str]] = {}
    for each in entry.get("filter", ()):
        key, equals, value = str(each).partition("=")
        filters.setdefault(key, []).append(value if equals else "true")
    limits = SpaceLimits(
        _size(entry.get("reservedSpace") or entry.get("keepStorage", 0)),
        _size(entry.get("maxUsedSpace", 0)),
        _size(entry.get("minFreeSpace", 0)),
    )
    return GcRule(limits, bool(entry.get("all", False)), filters)


def _only(value: Any, known: Sequence[str], where: str) -> Mapping[str, Any]:
    """The known members of an object, whose keys may be in any case, as Go reads them; null counts as empty."""
    names = {name.lower(): name for name in known}
    unknown = sorted(set(map(str.lower, value)) - names.keys()) if isinstance(value, Mapping) else [repr(value)]
    if unknown:
        raise InvalidInput(f"invalid {where}: {unknown[0]}", f"expected an object of {', '.join(known)}")
    return {names[key.lower()]: entry for key, entry in value.items() if entry is not None}


def _size(value: Any) -> int:
    try:
        return parse_size(str(value).strip())
    except ValueError as error:
        raise InvalidInput(f"invalid size in builder.gc: {error}", "expected bytes, or a number as in 20GB") from None
