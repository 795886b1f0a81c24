"""What a new container refers to: other containers, whose namespaces, links and mounts it wants, and networks.

They are looked up once, by the plan; a name that is looked up is written down as what it meant (an ID, where a rename
would break it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from havre.containers.container import Container, MountOptions
from havre.containers.create.configure import NO_LINKS_ON_THE_HOST
from havre.containers.create.names import check_alias
from havre.containers.live import Index
from havre.containers.surroundings.mounts import MountSpec, inherit, parse_volumes_from
from havre.errors import InvalidInput, NotFound
from havre.networks.endpoints import check_endpoint, check_settings
from havre.networks.networks import Networks
from havre.wire.config import EndpointSettings, HostConfig


class Neighbours:
    """The containers and networks that are there already."""

    def __init__(self, index: Index, networks: Networks) -> None:
        self._index = index
        self._networks = networks

    def pin(self, host: HostConfig) -> HostConfig:
        """Namespaces to join and links, each of a container that is here. InvalidInput otherwise."""
        return self._pin_links(self._pin_joined(host))

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

    def names_of(self, refs: Iterable[str]) -> Mapping[str, str]:
        """Networks by what the user wrote; one that is not there (yet) is missed at the start, as with Docker."""
        names = {}
        for ref in refs:
            try:
                names[ref] = self._networks.name_of(ref)
            except NotFound:
                names[ref] = ref
        return names

    def check_endpoint(self, name: str, asked: EndpointSettings) -> None:
        """InvalidInput for what that network cannot give."""
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

    def inherited(self, host: HostConfig, image: str) -> list[MountSpec]:
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
