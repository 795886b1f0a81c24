"""The objects that a new container refers to: containers (namespaces, links, mounts) and networks.

The plan looks them up once and stores references that survive renames (IDs).
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
    """The existing containers and networks."""

    def __init__(self, index: Index, networks: Networks) -> None:
        self._index = index
        self._networks = networks

    def pin(self, host: HostConfig) -> HostConfig:
        """Resolve namespaces to join and links to existing containers. Raises `InvalidInput`."""
        return self._pin_links(self._pin_joined(host))

    def _pin_joined(self, host: HostConfig) -> HostConfig:
        """Resolve `container:NAME` modes to IDs, so that they survive renames.

        A container whose network is shared may be missing: as in Docker, the start then fails.
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
        """Resolve the links of the default bridge to existing containers, by name."""
        if not host.links or host.network_mode != "bridge":
            return host
        pinned = []
        for link in host.links:
            ref, _, alias = link.partition(":")
            try:
                other = self._owner_of_network(self._other(ref.removeprefix("/")))
            except InvalidInput as error:
                raise InvalidInput(f"could not get container for {ref}: {error.message}") from None
            if other.spec.host_config.network_mode == "host":
                raise InvalidInput(f"conflicting options: {NO_LINKS_ON_THE_HOST}")
            pinned.append(f"{other.name}:{check_alias(alias) if alias else ref.rpartition('/')[2]}")
        return msgspec.structs.replace(host, links=pinned)

    def _owner_of_network(self, container: Container) -> Container:
        """The container that owns the network of this one, followed through containers that share it."""
        passed = set()
        while (mode := container.spec.host_config.network_mode).startswith("container:"):
            passed.add(container.id)
            container = self._other(mode.partition(":")[2])
            if container.id in passed:  # possible because a mode may refer to a container created later
                raise InvalidInput(f"{container.name} shares its own network")
        return container

    def names_of(self, refs: Iterable[str]) -> Mapping[str, str]:
        """Network names by the references in the request; a missing network fails at the start, as in Docker."""
        names = {}
        for ref in refs:
            try:
                names[ref] = self._networks.name_of(ref)
            except NotFound:
                names[ref] = ref
        return names

    def check_endpoint(self, name: str, asked: EndpointSettings) -> None:
        """Raise `InvalidInput` for settings that the network does not support."""
        try:
            try:
                check_settings(self._networks.find(name), asked)
            except NotFound:
                check_endpoint(name, asked, None)
        except InvalidInput as error:
            raise InvalidInput(f"invalid config for network {name}: {error.message}", error.hint) from None

    def _other(self, ref: str) -> Container:
        """A container that the new one refers to. Not a 404, which docker's CLI takes for a missing image."""
        try:
            return self._index.get(ref).container
        except NotFound as error:
            raise InvalidInput(error.message) from None

    def inherited(self, host: HostConfig, image: str) -> list[MountSpec]:
        """The mounts of `--volumes-from`; new volumes are filled only if both containers have the same image."""
        inherited = []
        for raw in host.volumes_from or ():
            ref, mode = parse_volumes_from(raw)
            other = self._other(ref)
            for point in other.spec.mounts:
                options = other.spec.mount_options.get(point.destination, MountOptions())
                if other.spec.image != image:
                    options = msgspec.structs.replace(options, no_copy=True)
                inherited.append(inherit(point, options, mode))
        return inherited
