"""Plans a container from a checked request: defaults of the image and the daemon, and references to other objects.

Creates nothing and reads no files. Raises `InvalidInput` for contradictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from havre.containers.create.checks import Asked
from havre.containers.create.configure import Defaults, fill_host_config, merge_config, networks_named, plan_endpoints
from havre.containers.create.neighbours import Neighbours
from havre.containers.surroundings.mounts import MountSpec, leave_submounts, plan_mounts, settle_propagation
from havre.containers.validate import check_config
from havre.images.summaries import RunImage
from havre.oci.platform import Platform, is_native
from havre.wire.config import Config, EndpointSettings, HostConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """A container to be created. A `name` of None is generated later."""

    image: RunImage
    config: Config
    host: HostConfig
    mounts: tuple[MountSpec, ...]
    networks: Mapping[str, EndpointSettings]
    name: str | None
    apparmor: str
    warnings: tuple[str, ...]


def plan_creation(
    asked: Asked, image: RunImage, neighbours: Neighbours, defaults: Defaults, processor: Platform
) -> Plan:
    """The plan for a request and its image; `processor` is the host's platform."""
    warnings = list(asked.warnings)
    if asked.platform is None and not is_native(image.platform, processor):
        warnings.append(
            f"The requested image's platform ({image.platform}) does not match the detected host platform "
            f"({processor}) and no specific platform was requested"
        )
    config = merge_config(asked.config, image.config)
    check_config(config)
    config.mac_address = ""  # it belongs to the endpoint of the main network
    host = neighbours.pin(fill_host_config(asked.host, defaults))
    planned = plan_mounts(host, config.volumes or (), neighbours.inherited(host, image.id))
    mounts = tuple(settle_propagation(spec, defaults.roots) for spec in planned)
    if not asked.read_only_is_recursive:
        mounts = tuple(leave_submounts(spec) for spec in mounts)
    names = neighbours.names_of(networks_named(asked.endpoints, host.network_mode))
    networks = plan_endpoints(asked.endpoints, asked.mac_address, host.network_mode, names)
    for network, settings in networks.items():
        neighbours.check_endpoint(network, settings)
    return Plan(
        image=image,
        config=config,
        host=host,
        mounts=mounts,
        networks=networks,
        name=asked.name,
        apparmor=asked.apparmor,
        warnings=tuple(warnings),
    )
