"""Pruning by plan: list what would be removed, why, and the bytes freed; then remove exactly that.

    plan(scope) ──▶ items, reclaimable, ID          the ID is a digest of scope and items; no state is kept
    carry_out(scope, ID)                            plans again; a different ID means that something changed: Conflict

Containers come first, so that a plan includes the volumes and images that only they use. Images come before the
build cache, which frees layers that only the two share. Leftovers are unlisted objects, such as layers of failed
pulls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from havre.containers.containers import Containers
from havre.errors import Conflict, InvalidInput
from havre.images.deletion import Prunable
from havre.images.images import Images
from havre.networks.networks import Networks
from havre.volumes.volumes import Volumes
from havre.wire.filters import Filters
from havre.wire.values import Value

KINDS = ("container", "volume", "network", "image", "cache")
"""What can be pruned, in order of removal; leftovers are removed with images and with the cache."""


class Item(Value):
    """One item to remove; `size` in bytes."""

    kind: str
    id: str = msgspec.field(name="ID")
    name: str
    reason: str
    size: int = 0


class BuildCache(Protocol):
    """The builder's cache, as plans need it."""

    async def prunable(
        self, filters: Filters, *, all: bool = False, keep_bytes: int = 0, gone: Collection[str] = ()
    ) -> list[Prunable]: ...
    async def remove(self, ids: Sequence[str]) -> int: ...


class Scope(Value):
    """What to prune: these `kinds`, with `all` images and cache records instead of dangling ones, down to
    `keep_bytes`."""

    kinds: list[str]
    all: bool = False
    keep_bytes: int = 0
    filters: dict[str, list[str]] = msgspec.field(default_factory=dict)


class PrunePlan(Value):
    """Items in the order of their removal."""

    id: str = msgspec.field(name="ID")
    items: list[Item]
    reclaimable: int


class Pruning:
    """Makes plans and executes them."""

    def __init__(
        self, containers: Containers, volumes: Volumes, networks: Networks, images: Images, cache: BuildCache
    ) -> None:
        self._containers = containers
        self._volumes = volumes
        self._networks = networks
        self._images = images
        self._cache = cache

    async def plan(self, scope: Scope) -> PrunePlan:
        """What would be removed now.

        InvalidInput for unknown kinds, and for filters that not all of the kinds support.
        """
        if unknown := [kind for kind in scope.kinds if kind not in KINDS]:
            raise InvalidInput(f"unknown kind to prune: {unknown[0]}", f"expected one of {', '.join(KINDS)}")
        items = await self._stopped(scope.filters) if "container" in scope.kinds else []
        gone = {item.id for item in items}
        if "volume" in scope.kinds:
            items += await self._unused_volumes(scope.filters, gone)
        if "network" in scope.kinds:
            items += self._idle_networks(scope.filters)
        if "image" in scope.kinds:
            items += self._unused_images(scope, gone)
        if "cache" in scope.kinds:
            items += await self._unused_cache(scope, {item.id for item in items if item.kind == "image"})
        if not {"image", "cache"}.isdisjoint(scope.kinds):
            items += self._leftovers()
        digest = hashlib.sha256(msgspec.json.encode((scope, items))).hexdigest()
        return PrunePlan(id=digest[:12], items=items, reclaimable=sum(item.size for item in items))

    async def _stopped(self, filters: Filters) -> list[Item]:
        items = []
        for container in self._containers.prunable(filters):
            size, _ = await self._containers.size(container.id)
            reason = f"it is {container.state.status}"
            items.append(Item(kind="container", id=container.id, name=container.name, reason=reason, size=size))
        return items

    async def _unused_volumes(self, filters: Filters, gone: set[str]) -> list[Item]:
        sizes = {volume.name: volume.usage_data for volume in await self._volumes.usage()}
        items = []
        for volume in self._volumes.prunable(filters, gone):
            usage = sizes.get(volume.name)
            size = usage.size if usage else 0
            items.append(
                Item(kind="volume", id=volume.name, name=volume.name, reason="no container uses it", size=size)
            )
        return items

    def _idle_networks(self, filters: Filters) -> list[Item]:
        reason = "no running container is on it"
        idle = self._networks.prunable(filters)
        return [Item(kind="network", id=network.id, name=network.name, reason=reason) for network in idle]

    def _unused_images(self, scope: Scope, gone: set[str]) -> list[Item]:
        items = []
        filters = {**scope.filters, "dangling": ["false" if scope.all else "true"]}
        for image in self._images.prunable(filters, gone):
            reason = "no container is made from it" if image.names else "it has no name"
            items.append(Item(kind="image", id=image.id, name=", ".join(image.names), reason=reason, size=image.size))
        return items

    async def _unused_cache(self, scope: Scope, gone: set[str]) -> list[Item]:
        reason = "all of the cache is to go" if scope.all else "no image has its layer"
        found = await self._cache.prunable(scope.filters, all=scope.all, keep_bytes=scope.keep_bytes, gone=gone)
        return [
            Item(kind="cache", id=record.id, name=" ".join(record.names), reason=reason, size=record.size)
            for record in found
        ]

    def _leftovers(self) -> list[Item]:
        reason = "nothing refers to it"
        return [
            Item(kind="leftover", id=digest, name="", reason=reason, size=size)
            for digest, size in self._images.leftovers()
        ]

    async def carry_out(self, scope: Scope, id: str) -> PrunePlan:
        """Execute plan `id` and return it with the bytes freed. Conflict if the plan is out of date."""
        plan = await self.plan(scope)
        if plan.id != id:
            hint = f"what would go now is plan {plan.id}; look at it with --dry-run"
            raise Conflict(f"plan {id} does not hold any more: something was added, removed or used since", hint)
        freed = 0
        for item in plan.items:
            if item.kind == "container":
                await self._containers.remove(item.id)
                freed += item.size
            elif item.kind == "volume":
                freed += await self._volumes.remove(item.id)
            elif item.kind == "network":
                await self._networks.remove(item.id)
        freed += await self._images.delete_exactly([item.id for item in plan.items if item.kind == "image"])
        if not {"image", "cache"}.isdisjoint(scope.kinds):
            freed += await self._cache.remove([item.id for item in plan.items if item.kind == "cache"])
        return msgspec.structs.replace(plan, reclaimable=freed)
