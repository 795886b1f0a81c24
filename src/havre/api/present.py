"""Containers in Docker's JSON: `inspect`, a row of `ps`, the texts of `STATUS`.

Pure: from the engine's values to those of `wire.containers`.

Source: Docker Engine API, "ContainerInspect" and "ContainerSummary"; durations are rendered as by go-units.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET
from msgspec.structs import replace

from havre.containers.container import Container, MountPoint, State
from havre.containers.containers import Placement
from havre.containers.networking import shown_links
from havre.errors import InvalidInput
from havre.wire.config import OMITTED_OF_CONFIG, Config, HostConfig, PortBinding
from havre.wire.containers import (
    ContainerDetails,
    ContainerGraphDriver,
    ContainerState,
    ContainerSummary,
    HealthSummary,
    NetworkSettings,
    Port,
    SummaryHostConfig,
    SummaryNetworks,
)
from havre.wire.queries import parse_time
from havre.wire.values import ZERO_TIME, without_empty

_OMITTED_OF_HOST = ("mounts", "storage_opt", "annotations", "sysctls", "tmpfs")
_OMITTED_OF_MOUNT = ("type", "name", "destination", "driver")


@dataclass(frozen=True)
class Sizes:
    """Bytes of the writable layer, and of it and the image together."""

    writable: int
    root: int


def present_container(
    container: Container,
    placement: Placement,
    exec_ids: Sequence[str] = (),
    sizes: Sizes | None = None,
    *,
    with_mac: bool = False,
) -> ContainerDetails:
    """The response of `GET /containers/{name}/json`; paths are shown once the first start has created the files.

    `with_mac`: the configuration has the MAC address requested for the main network.
    """
    started = container.state.started_at != ZERO_TIME

    def path_of(file: str) -> str:
        return str(placement.network_files / file) if started else ""

    mounted = {"MergedDir": placement.mounted_at} if placement.mounted_at else None
    return ContainerDetails(
        id=container.id,
        created=container.spec.created,
        path=container.spec.path,
        args=container.spec.args,
        state=_state(container.state),
        image=container.spec.image,
        resolv_conf_path=path_of("resolv.conf"),
        hostname_path=path_of("hostname"),
        hosts_path=path_of("hosts"),
        log_path=placement.log_path if started else "",
        name=f"/{container.name}",
        restart_count=container.restart_count,
        driver=placement.driver,
        platform=container.spec.platform,
        app_armor_profile=container.run.apparmor_profile,
        exec_ids=list(exec_ids) or None,
        host_config=_host_config(container),
        graph_driver=ContainerGraphDriver(data=mounted, name=placement.driver),
        size_rw=UNSET if sizes is None else sizes.writable,
        size_root_fs=UNSET if sizes is None else sizes.root,
        mounts=[present_mount(point) for point in container.spec.mounts],
        config=_config(container, with_mac),
        network_settings=_network_settings(container, placement),
    )


def _host_config(container: Container) -> HostConfig:
    """The host configuration, with the links that exist now, without fields that Go omits when empty."""
    shown = without_empty(container.spec.host_config, _OMITTED_OF_HOST)
    if shown.init is None:  # Go has a pointer for Init, so an explicit false is shown
        shown = replace(shown, init=UNSET)
    return replace(shown, links=shown_links(container) or None)


def _config(container: Container, with_mac: bool) -> Config:
    asked = container.spec.networks.get(container.spec.host_config.network_mode) if with_mac else None
    config = replace(container.spec.config, mac_address=asked.mac_address if asked is not None else "")
    return without_empty(config, (*OMITTED_OF_CONFIG, "on_build"))


def present_mount(point: MountPoint) -> MountPoint:
    """An entry of `Mounts`; only volumes have name and driver."""
    return without_empty(point, _OMITTED_OF_MOUNT)


def _network_settings(container: Container, placement: Placement) -> NetworkSettings:
    return NetworkSettings(
        sandbox_id=container.id if placement.sandbox_key else "",
        sandbox_key=placement.sandbox_key,
        ports=container.run.ports,
        networks=container.run.networks,
    )


def present_summary(
    container: Container,
    now: float,
    image: str | None = None,
    sizes: Sizes | None = None,
    others: Sequence[str] = (),
) -> ContainerSummary:
    """A row of `GET /containers/json`.

    `image` replaces a name that now refers to another image; `others` are the aliases in links to the container.
    """
    host, health = container.spec.host_config, container.state.health
    return ContainerSummary(
        id=container.id,
        names=sorted((f"/{container.name}", *others)),
        image=container.spec.config.image if image is None else image,
        image_id=container.spec.image,
        command=" ".join(_shown(word) for word in (container.spec.path, *container.spec.args) if word),
        created=int(_seconds(container.spec.created)),
        ports=present_ports(container),
        size_rw=(sizes.writable if sizes is not None else 0) or UNSET,
        size_root_fs=(sizes.root if sizes is not None else 0) or UNSET,
        labels=container.spec.config.labels or {},
        state=container.state.status,
        status=status_text(container.state, now),
        host_config=SummaryHostConfig(network_mode=host.network_mode, annotations=host.annotations or UNSET),
        health=HealthSummary(health.status, health.failing_streak) if health else HealthSummary(),
        network_settings=SummaryNetworks(networks=container.run.networks),
        mounts=[present_mount(point) for point in container.spec.mounts],
    )


def _shown(word: str) -> str:
    return f"'{word}'" if " " in word else word


def present_ports(container: Container) -> list[Port]:
    """The `Ports` of a summary: each published port once per host address, each exposed one without an address."""
    ports: list[Port] = []
    for port, bindings in container.run.ports.items():
        number, _, protocol = port.partition("/")
        private, kind = int(number), protocol or "tcp"
        ports += [_public(private, kind, each) for each in bindings or ()] or [Port(private_port=private, type=kind)]
    return ports


def _public(private: int, kind: str, binding: PortBinding) -> Port:
    public = int(binding.host_port) if binding.host_port.isdigit() else UNSET
    return Port(ip=binding.host_ip or UNSET, private_port=private, public_port=public, type=kind)


def _state(state: State) -> ContainerState:
    return ContainerState(
        status=state.status,
        running=state.running,
        paused=state.paused,
        restarting=state.restarting,
        oom_killed=state.oom_killed,
        dead=state.dead,
        pid=state.pid,
        exit_code=state.exit_code,
        error=state.error,
        started_at=state.started_at,
        finished_at=state.finished_at,
        health=UNSET if state.health is None else state.health,
    )


def status_text(state: State, now: float) -> str:
    """The STATUS of `ps`: "Up 3 seconds", "Exited (0) 2 minutes ago", "Created"."""
    match state.status:
        case "restarting":
            return f"Restarting ({state.exit_code}) {_since(state.finished_at, now)} ago"
        case "running" | "paused":
            return f"Up {_since(state.started_at, now)}" + _remark(state)
        case "removing":
            return "Removal In Progress"
        case "dead":
            return "Dead"
    if state.started_at == ZERO_TIME:
        return "Created"
    if state.finished_at == ZERO_TIME:
        return ""
    return f"Exited ({state.exit_code}) {_since(state.finished_at, now)} ago"


def _remark(state: State) -> str:
    """The text after the uptime."""
    if state.paused:
        return " (Paused)"
    if state.health is None:
        return ""
    return " (health: starting)" if state.health.status == "starting" else f" ({state.health.status})"


def _since(moment: str, now: float) -> str:
    return duration_text(max(0.0, now - _seconds(moment)))


@functools.lru_cache(4096)
def _seconds(moment: str) -> float:
    """Seconds since the epoch; cached, as lists repeat the same times."""
    try:
        return parse_time(moment, "time", 0.0)
    except InvalidInput:
        return 0.0


def duration_text(seconds: float) -> str:
    """A duration in one unit, as go-units' HumanDuration."""
    minutes, hours = int(seconds / 60), int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    for limit, size, unit in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return "About an hour" if hours == 1 else f"{hours // size} {unit}"
    return f"{hours // 8760} years"
