"""`GET /system/df`: what images, containers, volumes and the build cache take on the disk.

Source: Docker Engine API, "SystemDataUsage". dockerd sends newer clients the lists of older ones as well, unless they
ask for `verbose`; so does havre.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from aiohttp import web
from msgspec import UNSET

from havre.api.build import present_cache
from havre.api.call import Call
from havre.api.present import Sizes, present_summary
from havre.api.router import Router
from havre.builds.cache import LOCAL_SOURCE
from havre.builds.cachemounts import CACHE_MOUNT
from havre.errors import InvalidInput
from havre.system.info import Usage
from havre.volumes.spec import Volume
from havre.wire import versions
from havre.wire.containers import ContainerSummary
from havre.wire.system import BuildCacheEntry, DiskUsage, KindUsage

_TYPES = ("container", "image", "volume", "build-cache")
_ACTIVE = ("running", "paused", "restarting")


async def _disk_usage(call: Call) -> web.StreamResponse:
    wanted = call.query.getall("type", []) if versions.disk_usage_has_types(call.version) else ()
    if unknown := [kind for kind in wanted if kind not in _TYPES]:
        raise InvalidInput(f"unknown object type: {unknown[0]}", f"expected one of {', '.join(_TYPES)}")
    kinds = wanted or _TYPES
    brief = versions.disk_usage_can_be_brief(call.version) and call.flag("verbose")
    found = await call.services.system.disk_usage(kinds)
    now = time.time()
    containers = [present_summary(each, now, sizes=Sizes(writable, root)) for each, writable, root in found.containers]
    cache = [
        present_cache(record, used)
        for record, used in await call.services.builder.usage()
        if record.layer or record.type in (CACHE_MOUNT, LOCAL_SOURCE)
    ]
    return call.json(present_usage(found, containers, cache, kinds, for_older=not brief))


def present_usage(
    found: Usage,
    containers: Sequence[ContainerSummary],
    cache: Sequence[BuildCacheEntry],
    kinds: Collection[str],
    *,
    for_older: bool,
) -> DiskUsage:
    """The answer about these `kinds`, with the fields `for_older` clients or without."""
    shown = DiskUsage()
    if "image" in kinds:
        shown.image_usage = _sum_images(found)
        shown.layers_size, shown.images = found.layers_bytes, found.images
    if "container" in kinds:
        shown.container_usage, shown.containers = _sum_containers(containers), containers
    if "volume" in kinds:
        shown.volume_usage, shown.volumes = _sum_volumes(found.volumes), found.volumes
    if "build-cache" in kinds:
        shown.build_cache_usage, shown.build_cache = _sum_cache(cache), cache
    if not for_older:
        shown.layers_size = shown.images = shown.containers = shown.volumes = shown.build_cache = UNSET
    return shown


def _sum_images(found: Usage) -> KindUsage:
    return KindUsage(
        active_count=sum(image.containers > 0 for image in found.images),
        total_count=len(found.images),
        reclaimable=found.unused_images_bytes,
        total_size=found.layers_bytes,
        items=found.images,
    )


def _sum_containers(containers: Sequence[ContainerSummary]) -> KindUsage:
    stopped = [each for each in containers if each.state not in _ACTIVE]
    return KindUsage(
        active_count=len(containers) - len(stopped),
        total_count=len(containers),
        reclaimable=sum(each.size_rw or 0 for each in stopped),
        total_size=sum(each.size_rw or 0 for each in containers),
        items=containers,
    )


def _sum_volumes(volumes: Sequence[Volume]) -> KindUsage:
    """What a plugin keeps has no known size (-1) and counts as in use, as with dockerd."""
    used = [each.usage_data for each in volumes if each.usage_data]
    measured = [usage for usage in used if usage.size != -1]
    free = [usage for usage in measured if not usage.ref_count]
    return KindUsage(
        active_count=len(volumes) - len(free),
        total_count=len(volumes),
        reclaimable=sum(usage.size for usage in free),
        total_size=sum(usage.size for usage in measured),
        items=volumes,
    )


def _sum_cache(records: Sequence[BuildCacheEntry]) -> KindUsage:
    """What an image has as well is counted with the images alone."""
    own = [each for each in records if not each.shared]
    return KindUsage(
        active_count=sum(each.in_use for each in records),
        total_count=len(records),
        reclaimable=sum(each.size for each in own if not each.in_use),
        total_size=sum(each.size for each in own),
        items=records,
    )


def register(router: Router) -> None:
    """Add the route."""
    router.add("GET", "/system/df", _disk_usage)
