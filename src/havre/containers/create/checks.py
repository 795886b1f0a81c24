"""Checks a request to create a container by itself, before the image and other objects are looked up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from havre.containers.create.configure import check_conflicts
from havre.containers.create.names import check_name
from havre.containers.surroundings.idranges import AUTO, IdRanges, check_namespaces
from havre.containers.validate import HostLimits, check_config, check_host_config
from havre.errors import InvalidInput
from havre.runtime.security import parse_security_opts
from havre.wire.config import Config, CreateRequest, EndpointSettings, HostConfig


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid request: its two parts as separate values, the requested networks and the MAC address.

    `read_only_is_recursive` applies to mounts that do not specify it. `apparmor` is the requested profile.
    """

    config: Config
    host: HostConfig
    endpoints: Mapping[str, EndpointSettings | None]
    mac_address: str = ""
    name: str | None = None
    platform: str | None = None
    read_only_is_recursive: bool = True
    apparmor: str = ""
    warnings: tuple[str, ...] = ()


def check_request(
    request: CreateRequest,
    limits: HostLimits,
    ranges: IdRanges,
    *,
    name: str | None = None,
    platform: str | None = None,
    read_only_is_recursive: bool = True,
) -> Asked:
    """The content of `request`. Raises `InvalidInput` for anything malformed or contradictory."""
    config, host = split_request(request)
    if name is not None:
        name = check_name(name)
    check_config(config)
    warnings = check_host_config(host, limits)
    if host.userns_mode == AUTO or ranges.default(host) is not None:
        check_namespaces(host)
    security = parse_security_opts(host.security_opt or ())
    if security.writable_cgroups is not None and (host.userns_mode == AUTO or ranges.default(host) is not None):
        raise InvalidInput("option WritableCgroups conflicts with user namespaces and rootless mode")
    check_conflicts(config, host)
    if not config.image:
        if not (config.cmd or config.entrypoint):
            raise InvalidInput("no command specified", "expected an Image, which has one, or a Cmd")
        raise InvalidInput("Image: no image given", "expected the name or ID of an image")
    given = request.networking_config.endpoints_config if request.networking_config else None
    return Asked(
        config=config,
        host=host,
        endpoints=given or {},
        mac_address=request.mac_address,
        name=name,
        platform=platform,
        read_only_is_recursive=read_only_is_recursive,
        apparmor=security.apparmor,
        warnings=tuple(warnings),
    )


def split_request(request: CreateRequest) -> tuple[Config, HostConfig]:
    """The two parts of a request as copies, which may be changed."""
    fields = {name: getattr(request, name) for name in Config.__struct_fields__}
    host = request.host_config or HostConfig()
    return Config(**fields), msgspec.structs.replace(host)
