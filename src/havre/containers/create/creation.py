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
from havre.containers.container import Container, MountPoint, Spec
from havre.containers.create.checks import check_request
from havre.containers.create.configure import (
    Defaults,
    command_line,
    default_hostname,
)
from havre.containers.create.names import make_name
from havre.containers.create.neighbours import Neighbours
from havre.containers.create.plan import Plan, plan_creation
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Index
from havre.containers.networking import idle_networks, ids_of_links
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
            undo.push_async_callback(self._snapshots.remove, id)
            with self._images.hold(layers):
                await self._snapshots.create(id, layers)
            container = self._row(plan, id, name, await self._make_mounts(id, plan.mounts, undo))
            directory = self._directory / id
            await in_thread(directory.mkdir, 0o700)
            undo.callback(directory.rmdir)
            await self._insert(container)
            undo.pop_all()
        self._lifecycle.publish(container, "create")
        return Created(id, list(plan.warnings))

    def _row(self, plan: Plan, id: str, name: str, mounts: list[MountPoint]) -> Container:
        hostname = default_hostname(id, plan.config, plan.host, self.defaults)
        path, *args = command_line(plan.config)
        spec = Spec(
            id=id,
            created=times.now(),
            image=plan.image.id,
            path=path,
            args=args,
            config=msgspec.structs.replace(plan.config, hostname=hostname),
            host_config=plan.host,
            networks=dict(plan.networks),
            mounts=mounts,
            mount_options={each.destination: each.options for each in plan.mounts},
        )
        container = Container(name=name, spec=spec)
        links = ids_of_links(container, (live.container for live in self._index))
        container.note_run(networks=idle_networks(container), apparmor_profile=plan.apparmor, link_ids=links)
        return container

    async def _insert(self, container: Container) -> None:
        """Store the row with its ID range on the host; automatic ranges are allocated under a lock."""
        if container.spec.host_config.userns_mode != AUTO:
            container.note_run(ids=self._ranges.default(container.spec.host_config))
            await self._index.insert(container)
            return
        async with self._choosing:
            taken = [ids for live in self._index if (ids := live.container.run.ids) is not None]
            container.note_run(ids=await in_thread(self._ranges.own, taken))
            await self._index.insert(container)

    async def _make_mounts(self, id: str, specs: Iterable[MountSpec], undo: AsyncExitStack) -> list[MountPoint]:
        """The mounts of the container `id`; missing volumes are created."""
        made = []
        undo.push_async_callback(self._volumes.release, id)
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
                await self._make_volume(id, spec, point, undo)
            elif spec.type == "image":
                await self._make_image_mount(id, point, undo)
            elif spec.type == "bind" and not spec.options.create_source:
                await in_thread(open_bind_source, Path(spec.source), spec.options)
            made.append(point)
        return made

    async def _make_volume(self, id: str, spec: MountSpec, point: MountPoint, undo: AsyncExitStack) -> None:
        volume, made = await self._volumes.create(
            spec.source or None,
            driver=spec.driver,
            options=spec.driver_options,
            labels=spec.labels,
            anonymous=not spec.source,
        )
        if made:
            undo.push_async_callback(self._remove_volume, volume.name)
        point.source = self._volumes.use(id, volume.name)
        point.name, point.driver = volume.name, volume.driver
        if volume.driver != LOCAL:
            point.mode = spec.mode if spec.mode != DEFAULT_MODE else ""

    async def _make_image_mount(self, id: str, point: MountPoint, undo: AsyncExitStack) -> None:
        """A snapshot of the image, which keeps its layers. Not a 404, which clients take for the container's image."""
        try:
            image = await self._images.acquire(point.source, None)
        except NotFound as error:
            raise InvalidInput(error.message, f"pull {point.source} first, or remove the mount") from None
        snapshot = image_snapshot(id, point.destination)
        undo.push_async_callback(self._snapshots.remove, snapshot)
        with self._images.hold(image.layers):
            await self._snapshots.create(snapshot, image.layers)
        point.name, point.source = point.source, image.id

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._volumes.remove(name)
        except HavreError:
            return  # in use by another container meanwhile
