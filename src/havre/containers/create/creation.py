"""Making a container: everything is checked before anything is made, and what was made goes again if a step fails.

request --check--> image --merge, check--> mounts, networks --> name, snapshot, volumes, directory, row --> "create"
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
from havre.containers.container import Container, MountOptions, MountPoint
from havre.containers.create.configure import (
    NO_LINKS_ON_THE_HOST,
    Defaults,
    check_conflicts,
    default_hostname,
    fill_host_config,
    merge_config,
    networks_named,
    new_container,
    plan_endpoints,
    split_request,
)
from havre.containers.create.names import check_alias, check_name, make_name
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Index
from havre.containers.networking import ids_of_links
from havre.containers.surroundings.assembly import open_bind_source
from havre.containers.surroundings.idranges import AUTO, IdRanges, check_namespaces
from havre.containers.surroundings.mounts import (
    DEFAULT_MODE,
    MountSpec,
    image_snapshot,
    inherit,
    leave_submounts,
    parse_volumes_from,
    plan_mounts,
    settle_propagation,
)
from havre.containers.validate import HostLimits, check_config, check_host_config
from havre.errors import HavreError, InvalidInput, NotFound
from havre.images.images import Images
from havre.networks.endpoints import check_endpoint, check_settings
from havre.networks.networks import Networks
from havre.oci.platform import is_native
from havre.runtime.security import parse_security_opts
from havre.storage import Snapshots
from havre.volumes.spec import LOCAL
from havre.volumes.volumes import Volumes
from havre.wire import times
from havre.wire.config import CreateRequest, EndpointSettings, HostConfig


@dataclass(frozen=True, slots=True)
class Created:
    """A container that has been made, and what the user should know about it."""

    id: str
    warnings: list[str]


class Creation:
    """Makes containers."""

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
        self._networks = networks
        self._lifecycle = lifecycle
        self._directory = directory
        self._limits = limits
        self._ranges = ranges
        self._choosing = asyncio.Lock()
        self.defaults = defaults

    async def create(
        self, request: CreateRequest, name: str | None, platform: str | None, read_only_is_recursive: bool
    ) -> Created:
        """Make one. Raises NotFound (image, network), Conflict (name), InvalidInput (anything malformed)."""
        config, host = split_request(request)
        if name is not None:
            name = check_name(name)
        check_config(config)
        warnings = check_host_config(host, self._limits)
        if host.userns_mode == AUTO or self._ranges.default(host) is not None:
            check_namespaces(host)
        security = parse_security_opts(host.security_opt or ())
        check_conflicts(config, host)
        if not config.image:
            if not (config.cmd or config.entrypoint):
                raise InvalidInput("no command specified", "expected an Image, which has one, or a Cmd")
            raise InvalidInput("Image: no image given", "expected the name or ID of an image")
        image = await self._images.acquire(config.image, platform)
        if platform is None and not is_native(image.platform, self._limits.platform):
            warnings.append(
                f"The requested image's platform ({image.platform}) does not match the detected host platform "
                f"({self._limits.platform}) and no specific platform was requested"
            )
        config = merge_config(config, image.config)
        check_config(config)
        host = self._pin_joined(fill_host_config(host, self.defaults))
        host = self._pin_links(host)
        planned = plan_mounts(host, config.volumes or (), self._inherited(host, image.id))
        specs = tuple(settle_propagation(spec, self.defaults.roots) for spec in planned)
        if not read_only_is_recursive:
            specs = tuple(leave_submounts(spec) for spec in specs)
        networks = plan_endpoints(request, host.network_mode, self._network_names(request, host))
        for network, asked in networks.items():
            self._check_endpoint(network, asked)
        config.mac_address = ""  # it is the main network's

        id = secrets.token_hex(32)
        config.hostname = default_hostname(id, config, host, self.defaults)
        async with AsyncExitStack() as undo:
            name = name or make_name(self._index.is_taken)
            self._index.reserve(name, id)
            undo.callback(self._index.free, name)
            container = new_container(
                id=id, name=name, created=times.now(), image_id=image.id, config=config, host=host, networks=networks
            )
            container.apparmor_profile = security.apparmor
            container.link_ids = ids_of_links(container, (live.container for live in self._index))
            undo.push_async_callback(self._snapshots.remove, id)
            with self._images.hold(image.layers):
                await self._snapshots.create(id, image.layers)
            await self._make_mounts(container, specs, undo)
            directory = self._directory / id
            await in_thread(directory.mkdir, 0o700)
            undo.callback(directory.rmdir)
            await self._insert(container)
            undo.pop_all()
        self._lifecycle.publish(container, "create")
        return Created(id, warnings)

    async def _insert(self, container: Container) -> None:
        """Keep the row, with the user IDs of the host's that it has; one at a time looks for some that nobody has."""
        if container.host_config.userns_mode != AUTO:
            container.ids = self._ranges.default(container.host_config)
            await self._index.insert(container)
            return
        async with self._choosing:
            taken = [ids for live in self._index if (ids := live.container.ids) is not None]
            container.ids = await in_thread(self._ranges.own, taken)
            await self._index.insert(container)

    def _pin_joined(self, host: HostConfig) -> HostConfig:
        """`container:NAME` modes by ID, so that no rename breaks them.

        A container whose network is shared may be missing: as with Docker, that is the start's to say.
        """

        def pinned(mode: str) -> str:
            kind, colon, ref = mode.partition(":")
            return f"container:{self._other(ref).id}" if kind == "container" and colon else mode

        network_mode = host.network_mode
        if network_mode.startswith("container:") and (live := self._index.find(network_mode.partition(":")[2])):
            network_mode = f"container:{live.container.id}"
        return msgspec.structs.replace(
            host,
            network_mode=network_mode,
            pid_mode=pinned(host.pid_mode),
            ipc_mode=pinned(host.ipc_mode),
        )

    def _pin_links(self, host: HostConfig) -> HostConfig:
        """The links of the default bridge, each to a container that is here, by its name."""
        if not host.links or host.network_mode != "bridge":
            return host
        pinned = []
        for link in host.links:
            ref, _, alias = link.partition(":")
            try:
                other = self._owner_of_network(self._other(ref.removeprefix("/")))
            except InvalidInput as error:
                raise InvalidInput(f"could not get container for {ref}: {error.message}") from None
            if other.host_config.network_mode == "host":
                raise InvalidInput(f"conflicting options: {NO_LINKS_ON_THE_HOST}")
            pinned.append(f"{other.name}:{check_alias(alias) if alias else ref.rpartition('/')[2]}")
        return msgspec.structs.replace(host, links=pinned)

    def _owner_of_network(self, container: Container) -> Container:
        """Whose network this one has, which may be that of one that shares another's itself."""
        passed = set()
        while (mode := container.host_config.network_mode).startswith("container:"):
            passed.add(container.id)
            container = self._other(mode.partition(":")[2])
            if container.id in passed:  # each was made before the other was here
                raise InvalidInput(f"{container.name} shares its own network")
        return container

    def _network_names(self, request: CreateRequest, host: HostConfig) -> dict[str, str]:
        """Names by what the user wrote; a network that is not there (yet) is missed at the start, as with Docker."""
        names = {}
        for ref in networks_named(request, host.network_mode):
            try:
                names[ref] = self._networks.name_of(ref)
            except NotFound:
                names[ref] = ref
        return names

    def _check_endpoint(self, name: str, asked: EndpointSettings) -> None:
        try:
            try:
                check_settings(self._networks.find(name), asked)
            except NotFound:
                check_endpoint(name, asked, None)
        except InvalidInput as error:
            raise InvalidInput(f"invalid config for network {name}: {error.message}", error.hint) from None

    def _other(self, ref: str) -> Container:
        """A container that the new one refers to. A 404 would tell docker's CLI that the image is missing."""
        try:
            return self._index.get(ref).container
        except NotFound as error:
            raise InvalidInput(error.message) from None

    def _inherited(self, host: HostConfig, image: str) -> list[MountSpec]:
        """The mounts of other containers; their volumes begin with what the image has that they were made for."""
        inherited = []
        for raw in host.volumes_from or ():
            ref, mode = parse_volumes_from(raw)
            other = self._other(ref)
            for point in other.mounts:
                options = other.mount_options.get(point.destination, MountOptions())
                if other.image != image:
                    options = msgspec.structs.replace(options, no_copy=True)
                inherited.append(inherit(point, options, mode))
        return inherited

    async def _make_mounts(self, container: Container, specs: Iterable[MountSpec], undo: AsyncExitStack) -> None:
        """Volumes made where they do not exist, and all mounts written into the row."""
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
        """A snapshot of the image, which keeps its layers. A 404 would tell clients that the container's is missing."""
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
            return  # another container has taken it into use meanwhile
