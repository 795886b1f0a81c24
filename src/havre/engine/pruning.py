"""Pruning by plan: what would go, why, and how much it frees; then exactly that and nothing else.

    plan(scope) ──▶ items, reclaimable, ID          the ID is a digest of scope and items: nothing is kept meanwhile
    carry_out(scope, ID)                            plans again; another ID means that the world has changed: Conflict

Containers come first, so that a plan counts what only they use: their volumes and images. The cache of builds is left
to `builder prune`. Leftovers that nothing lists, such as those of failed pulls, are no part of a plan.
"""

from __future__ import annotations

import hashlib

import msgspec

from havre.engine.containers import Containers
from havre.engine.filters import Filters
from havre.engine.images import Images
from havre.engine.model import Value
from havre.engine.networks import Networks
from havre.engine.volumes import Volumes
from havre.errors import Conflict


class Item(Value):
    """One thing that would go; `size` in bytes."""

    kind: str
    id: str = msgspec.field(name="ID")
    name: str
    reason: str
    size: int = 0


class Scope(Value):
    """What is to be pruned: `all` images instead of dangling ones, `volumes` that are anonymous."""

    all: bool = False
    volumes: bool = False
    filters: dict[str, list[str]] = msgspec.field(default_factory=dict)


class PrunePlan(Value):
    """Items in the order in which they go."""

    id: str = msgspec.field(name="ID")
    items: list[Item]
    reclaimable: int


class Pruning:
    """Makes plans and carries them out."""

    def __init__(self, containers: Containers, volumes: Volumes, networks: Networks, images: Images) -> None:
        self._containers = containers
        self._volumes = volumes
        self._networks = networks
        self._images = images

    async def plan(self, scope: Scope) -> PrunePlan:
        """What would go now. InvalidInput for filters that not every noun knows."""
        items = await self._stopped(scope.filters)
        gone = {item.id for item in items}
        if scope.volumes:
            items += await self._unused_volumes(scope.filters, gone)
        for network in self._networks.prunable(scope.filters):
            items.append(Item(kind="network", id=network.id, name=network.name, reason="no running container is on it"))
        filters = {**scope.filters, "dangling": ["false" if scope.all else "true"]}
        for image in self._images.prunable(filters, gone):
            reason = "no container is made from it" if image.names else "it has no name"
            items.append(Item(kind="image", id=image.id, name=", ".join(image.names), reason=reason, size=image.size))
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

    async def carry_out(self, scope: Scope, id: str) -> PrunePlan:
        """Delete what plan `id` says, and return it with what that freed. Conflict where it does not hold any more."""
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
        return msgspec.structs.replace(plan, reclaimable=freed)
