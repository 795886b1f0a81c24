"""Creates a container: checks, then a plan, then acts.

request --checks--> Asked --(image) plan--> Plan --acts--> name, snapshot, volumes, directory, row --> "create"

Everything is checked and planned before anything is created; if an act fails, the earlier ones are undone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from havre.aio import in_thread
from havre.containers.container import Container, MountPoint
from havre.containers.create.checks import check_request
from havre.containers.create.configure import (
    Defaults,
    default_hostname,
    new_container,
)
from havre.containers.create.names import make_name
from havre.containers.create.neighbours import Neighbours
from havre.containers.create.plan import Plan, plan_creation
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Index
from havre.containers.networking import ids_of_links
from havre.containers.surroundings.assembly import open_bind_source
from havre.containers.surroundings.idranges import AUTO, IdRanges
from havre.containers.surroundings.mounts import (
    DEFAULT_MODE,
    MountSpec,
    image_snapshot,
)
from havre.containers.validate import HostLimits
from havre.errors import HavreError, InvalidInput, NotFound
from havre.images.images import Images
from havre.networks.networks import Networks
from havre.storage import Snapshots
from havre.volumes.spec import LOCAL
from havre.volumes.volumes import Volumes
from havre.wire import times
from havre.wire.config import CreateRequest


@dataclass(frozen=True, slots=True)
class Created:
    """A created container, and warnings for the user."""

    id: str
    warnings: list[str]


class Creation:
    """Creates containers."""

    def __init__(
        self,
        index: Index,
        images: Images,
        snapshots: Snapshots,
        volumes: Volumes,
        networks: Networks,
        lifecycle: Lifecycle,
        directory: Path,
        limits: HostLimits,
        defaults: Defaults,
        ranges: IdRanges,
    ) -> None:
        self._index = index
        self._images = images
        self._snapshots = snapshots
        self._volumes = volumes
        self._neighbours = Neighbours(index, networks)
        self._lifecycle = lifecycle
        self._directory = directory
        self._limits = limits
        self._ranges = ranges
        self._choosing = asyncio.Lock()
        self.defaults = defaults

    async def create(
        self, request: CreateRequest, name: str | None, platform: str | None, read_only_is_recursive: bool
    ) -> Created:
        """Create one. Raises `NotFound` (image, network), `Conflict` (name), `InvalidInput` (anything malformed)."""
        asked = check_request(
            request,
            self._limits,
            self._ranges,
            name=name,
            platform=platform,
            read_only_is_recursive=read_only_is_recursive,
        )
        image = await self._images.acquire(asked.config.image, platform)
        return await self._make(plan_creation(asked, image, self._neighbours, self.defaults, self._limits.platform))

    async def _make(self, plan: Plan) -> Created:
        id, layers = secrets.token_hex(32), plan.image.layers
        async with AsyncExitStack() as undo:
            name = plan.name or make_name(self._index.is_taken)
            self._index.reserve(name, id)
            undo.callback(self._index.free, name)
            container = self._row(plan, id, name)
            undo.push_async_callback(self._snapshots.remove, id)
            with self._images.hold(layers):
                await self._snapshots.create(id, layers)
            await self._make_mounts(container, plan.mounts, undo)
            directory = self._directory / id
            await in_thread(directory.mkdir, 0o700)
            undo.callback(directory.rmdir)
            await self._insert(container)
            undo.pop_all()
        self._lifecycle.publish(container, "create")
        return Created(id, list(plan.warnings))

    def _row(self, plan: Plan, id: str, name: str) -> Container:
        hostname = default_hostname(id, plan.config, plan.host, self.defaults)
        container = new_container(
            id=id,
            name=name,
            created=times.now(),
            image_id=plan.image.id,
            config=msgspec.structs.replace(plan.config, hostname=hostname),
            host=plan.host,
            networks=dict(plan.networks),
        )
        container.apparmor_profile = plan.apparmor
        container.link_ids = ids_of_links(container, (live.container for live in self._index))
        return container

    async def _insert(self, container: Container) -> None:
        """Store the row with its ID range on the host; automatic ranges are allocated under a lock."""
        if container.host_config.userns_mode != AUTO:
            container.ids = self._ranges.default(container.host_config)
            await self._index.insert(container)
            return
        async with self._choosing:
            taken = [ids for live in self._index if (ids := live.container.ids) is not None]
            container.ids = await in_thread(self._ranges.own, taken)
            await self._index.insert(container)

    async def _make_mounts(self, container: Container, specs: Iterable[MountSpec], undo: AsyncExitStack) -> None:
        """Create missing volumes, and add all mounts to the row."""
        undo.push_async_callback(self._volumes.release, container.id)
        for spec in specs:
            point = MountPoint(
                type=spec.type,
                source=spec.source,
                destination=spec.destination,
                mode=spec.mode,
                rw=spec.rw,
                propagation=spec.propagation,
            )
            if spec.type == "volume":
                await self._make_volume(container, spec, point, undo)
            elif spec.type == "image":
                await self._make_image_mount(container, point, undo)
            elif spec.type == "bind" and not spec.options.create_source:
                await in_thread(open_bind_source, Path(spec.source), spec.options)
            container.mounts.append(point)
            container.mount_options[spec.destination] = spec.options

    async def _make_volume(
        self, container: Container, spec: MountSpec, point: MountPoint, undo: AsyncExitStack
    ) -> None:
        volume, made = await self._volumes.create(
            spec.source or None,
            driver=spec.driver,
            options=spec.driver_options,
            labels=spec.labels,
            anonymous=not spec.source,
        )
        if made:
            undo.push_async_callback(self._remove_volume, volume.name)
        point.source = self._volumes.use(container.id, volume.name)
        point.name, point.driver = volume.name, volume.driver
        if volume.driver != LOCAL:
            point.mode = spec.mode if spec.mode != DEFAULT_MODE else ""

    async def _make_image_mount(self, container: Container, point: MountPoint, undo: AsyncExitStack) -> None:
        """A snapshot of the image, which keeps its layers. Not a 404, which clients take for the container's image."""
        try:
            image = await self._images.acquire(point.source, None)
        except NotFound as error:
            raise InvalidInput(error.message, f"pull {point.source} first, or remove the mount") from None
        snapshot = image_snapshot(container.id, point.destination)
        undo.push_async_callback(self._snapshots.remove, snapshot)
        with self._images.hold(image.layers):
            await self._snapshots.create(snapshot, image.layers)
        point.name, point.source = point.source, image.id

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._volumes.remove(name)
        except HavreError:
            return  # in use by another container meanwhile
