"""Builds a new container's row from the request and the image: precedence, defaults, conflicts. Pure.

The request overrides the image; lists of ports, volumes and labels are united, environment variables by name. With an
entrypoint in the request, the image's command is ignored. Source: Docker's documentation of `docker run`, "Overriding
image defaults", and the OCI image specification, "Conversion to runtime configuration".
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from havre.errors import InvalidInput
from havre.runtime.spec import MASKED_PATHS, READONLY_PATHS
from havre.wire.config import Config, EndpointSettings, Healthcheck, HostConfig, LogConfig, RestartPolicy

T = TypeVar("T")

DEFAULT_SHM_SIZE = 64 << 20

NO_LINKS_ON_THE_HOST = "host type networking can't be used with links. This would result in undefined behavior"


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults of the daemon and the host."""

    runtime: str
    cgroupns_mode: str
    unified_cgroups: bool
    hostname: str
    log_driver: str = "json-file"
    log_options: Mapping[str, str] | None = None
    ipc_mode: str = "private"
    shm_size: int = DEFAULT_SHM_SIZE
    init: bool = False
    masked_paths: tuple[str, ...] = MASKED_PATHS
    roots: tuple[str, ...] = ()  # the daemon's directories


def merge_config(user: Config, image: Config) -> Config:
    """The request's configuration completed with the image's, as a copy. Raises `InvalidInput` without command."""
    entrypoint, command = _merge_command(user, image)
    return msgspec.structs.replace(
        user,
        user=user.user or image.user,
        env=_merge_env(user.env, image.env),
        entrypoint=entrypoint,
        cmd=command,
        working_dir=_clean(user.working_dir or image.working_dir),
        labels={**(image.labels or {}), **(user.labels or {})},
        exposed_ports=_united(user.exposed_ports, image.exposed_ports),
        volumes=_united(user.volumes, image.volumes),
        stop_signal=user.stop_signal or image.stop_signal,
        healthcheck=_merge_healthcheck(user.healthcheck, image.healthcheck),
        shell=user.shell or image.shell,
        on_build=None,
    )


def _merge_command(user: Config, image: Config) -> tuple[list[str] | None, list[str] | None]:
    entrypoint, command = user.entrypoint, user.cmd
    if not entrypoint:
        command = command or image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == [""]:
        entrypoint = None
    if not entrypoint and not command:
        raise InvalidInput("no command specified")
    return entrypoint or None, command


def _merge_env(user: list[str] | None, image: list[str] | None) -> list[str] | None:
    """The request's variables, then the image's others, in Docker's order; `NAME` without a value removes one."""
    if not image:
        return user
    names = {variable.partition("=")[0] for variable in user or ()}
    return [*(user or ()), *(variable for variable in image if variable.partition("=")[0] not in names)]


def _clean(directory: str) -> str:
    """As Go's filepath.Clean, but "" stays ""."""
    return posixpath.normpath(directory).replace("//", "/") if directory else ""


def _united(user: dict[str, T] | None, image: dict[str, T] | None) -> dict[str, T] | None:
    return {**(image or {}), **(user or {})} or None


def _merge_healthcheck(user: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The request's health check; missing fields are the image's."""
    if user is None or image is None:
        return user or image
    fields = {name: getattr(user, name) or getattr(image, name) for name in Healthcheck.__struct_fields__}
    return Healthcheck(**fields)


def check_conflicts(config: Config, host: HostConfig) -> None:
    """Refuse options that conflict with shared namespaces, in the request only; the image's are ignored."""
    joined = host.network_mode.startswith("container:")
    for wrong, text in (
        (joined and config.hostname, "hostname and the network mode"),
        (host.uts_mode == "host" and config.hostname, "hostname and the UTS mode"),
        (
            joined and host.links,
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (
            host.network_mode == "host" and host.links,
            "host type networking can't be used with links. This would result in undefined behavior",
        ),
        (joined and host.dns, "dns and the network mode"),
        (joined and host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            joined and (host.port_bindings or host.publish_all_ports),
            "port publishing and the container type network mode",
        ),
        (joined and config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if wrong:
            raise InvalidInput(f"conflicting options: {text}")


def fill_host_config(host: HostConfig, defaults: Defaults) -> HostConfig:
    """Make all defaults explicit, as `inspect` shows them."""
    masked, read_only = host.masked_paths, host.readonly_paths
    if "systempaths=unconfined" in (host.security_opt or ()):
        masked, read_only = masked or [], read_only or []
    elif not host.privileged:  # a privileged container's stay null
        masked = list(defaults.masked_paths) if masked is None else masked
        read_only = list(READONLY_PATHS) if read_only is None else read_only
    return msgspec.structs.replace(
        host,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        restart_policy=host.restart_policy if host.restart_policy.name else RestartPolicy(name="no"),
        log_config=_fill_log_config(host.log_config, defaults),
        ipc_mode=host.ipc_mode or defaults.ipc_mode,
        cgroupns_mode=host.cgroupns_mode or _cgroupns_mode(host, defaults),
        shm_size=host.shm_size or defaults.shm_size,
        runtime=host.runtime or defaults.runtime,
        oom_kill_disable=bool(host.oom_kill_disable),
        memory_swap=2 * host.memory if host.memory > 0 and host.memory_swap == 0 else host.memory_swap,
        pids_limit=host.pids_limit if (host.pids_limit or 0) > 0 else None,
        memory_swappiness=None if host.memory_swappiness == -1 else host.memory_swappiness,
        console_size=host.console_size or [0, 0],
        masked_paths=masked,
        readonly_paths=read_only,
    )


def _cgroupns_mode(host: HostConfig, defaults: Defaults) -> str:
    """On cgroup v1, privileged containers use the host's namespace, whatever the default, as in dockerd."""
    return "host" if host.privileged and not defaults.unified_cgroups else defaults.cgroupns_mode


def _fill_log_config(given: LogConfig, defaults: Defaults) -> LogConfig:
    if given.type:
        return LogConfig(type=given.type, config=given.config or {})
    return LogConfig(type=defaults.log_driver, config={**(defaults.log_options or {}), **(given.config or {})})


def plan_endpoints(
    given: Mapping[str, EndpointSettings | None], mac_address: str, network_mode: str, resolve: Mapping[str, str]
) -> dict[str, EndpointSettings]:
    """The networks to join, by name; `resolve` maps references in the request (name or ID) to names.

    `given` are the requested settings, and `mac_address` the container's, which applies to its main network.
    """
    if network_mode.startswith("container:"):
        return {}
    main = resolve.get(network_mode, network_mode)
    asked = {main: EndpointSettings()}
    for written, settings in given.items():
        name = main if written == "default" else resolve.get(written, written)
        asked[name] = msgspec.structs.replace(settings) if settings else EndpointSettings()
    if mac_address and main not in ("host", "none"):  # these have no device for the container
        if asked[main].mac_address not in ("", mac_address):
            raise InvalidInput(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        asked[main].mac_address = mac_address
    return asked


def networks_named(given: Iterable[str], network_mode: str) -> Iterable[str]:
    """All references to networks in a request, for the caller to resolve."""
    if not network_mode.startswith("container:"):
        yield network_mode
    yield from (name for name in given if name != "default")


def default_hostname(id: str, config: Config, host: HostConfig, defaults: Defaults) -> str:
    """The hostname: as given, the host's if its UTS or network namespace is shared, otherwise the short ID.

    "" if another container's network is shared: each start then sets it.
    """
    if config.hostname:
        return config.hostname
    if host.network_mode == "host" or host.uts_mode == "host":
        return defaults.hostname
    return "" if host.network_mode.startswith("container:") else id[:12]


def command_line(config: Config) -> list[str]:
    """Entrypoint and command joined: the argument vector."""
    return [*(config.entrypoint or ()), *(config.cmd or ())]
