"""Containers and images in Docker's JSON: `inspect`, a row of `ps`, the texts of `STATUS`.

Pure: from the engine's values to dicts in dockerd's order of keys. Fields that Go omits when empty are omitted here,
too (`_OMITTED`), since clients distinguish absent from null.

Source: Docker Engine API, "ContainerInspect" and "ContainerSummary"; durations are rendered as by go-units.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from havre.containers.container import Container, MountPoint, State
from havre.containers.containers import Placement
from havre.containers.networking import shown_links
from havre.errors import InvalidInput
from havre.images.summaries import ImageDetails
from havre.wire.config import EndpointSettings, PortBinding
from havre.wire.queries import parse_time
from havre.wire.values import ZERO_TIME

_OMITTED = {
    "Config": (
        [
            "ExposedPorts",
            "NetworkDisabled",
            "Healthcheck",
            "ArgsEscaped",
            "MacAddress",
            "StopSignal",
            "StopTimeout",
            "Shell",
        ]
    ),
    "HostConfig": ["Mounts", "StorageOpt", "Annotations", "Sysctls", "Tmpfs", "Init"],
}
_DEFAULT_NETWORKS = ("bridge", "default")


@dataclass(frozen=True)
class Sizes:
    """Bytes of the writable layer, and of it and the image together."""

    writable: int
    root: int


def present_container(
    container: Container, placement: Placement, exec_ids: Sequence[str] = (), sizes: Sizes | None = None
) -> dict[str, Any]:
    """The response of `GET /containers/{name}/json`; paths of files are shown after the first start has created
    them."""
    started = container.state.started_at != ZERO_TIME

    def path_of(file: str) -> str:
        return str(placement.network_files / file) if started else ""

    answer = {
        "Id": container.id,
        "Created": container.created,
        "Path": container.path,
        "Args": container.args,
        "State": _state(container.state),
        "Image": container.image,
        "ResolvConfPath": path_of("resolv.conf"),
        "HostnamePath": path_of("hostname"),
        "HostsPath": path_of("hosts"),
        "LogPath": placement.log_path if started else "",
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": placement.driver,
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": container.apparmor_profile,
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": _without_empty(container.host_config, "HostConfig") | {"Links": shown_links(container) or None},
        "GraphDriver": {
            "Data": {"MergedDir": placement.mounted_at} if placement.mounted_at else None,
            "Name": placement.driver,
        },
    }
    if sizes is not None:
        answer |= {"SizeRw": sizes.writable, "SizeRootFs": sizes.root}
    return answer | {
        "Mounts": [present_mount(point) for point in container.mounts],
        "Config": _config(container),
        "NetworkSettings": _network_settings(container, placement),
    }


def _config(container: Container) -> dict[str, Any]:
    """The configuration, with the MAC address requested for the main network, as dockerd shows it to older clients."""
    asked = container.asked_networks.get(container.host_config.network_mode, EndpointSettings())
    return _without_empty(msgspec.structs.replace(container.config, mac_address=asked.mac_address), "Config")


def _without_empty(value: msgspec.Struct, kind: str) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    for key in _OMITTED[kind]:
        # Go has a pointer for Init, so an explicit false is shown.
        if not plain[key] and not (key == "Init" and plain[key] is False):
            del plain[key]
    return plain


def present_mount(point: MountPoint) -> dict[str, Any]:
    """An entry of `Mounts`; only volumes have name and driver."""
    plain: dict[str, Any] = msgspec.to_builtins(point)
    return {key: value for key, value in plain.items() if value != "" or key in ("Source", "Mode", "Propagation")}


def _network_settings(container: Container, placement: Placement) -> dict[str, Any]:
    first = next((container.networks[name] for name in _DEFAULT_NETWORKS if name in container.networks), None)
    main = first or EndpointSettings()
    return {
        "Bridge": "",
        "SandboxID": container.id if placement.sandbox_key else "",
        "SandboxKey": placement.sandbox_key,
        "Ports": msgspec.to_builtins(container.ports),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": main.endpoint_id,
        "Gateway": main.gateway,
        "GlobalIPv6Address": main.global_ipv6_address,
        "GlobalIPv6PrefixLen": main.global_ipv6_prefix_len,
        "IPAddress": main.ip_address,
        "IPPrefixLen": main.ip_prefix_len,
        "IPv6Gateway": main.ipv6_gateway,
        "MacAddress": main.mac_address,
        "Networks": msgspec.to_builtins(container.networks),
    }


def present_image(details: ImageDetails) -> dict[str, Any]:
    """The response of `GET /images/{name}/json`."""
    plain: dict[str, Any] = msgspec.to_builtins(details)
    plain["Config"] = _without_empty(details.config, "Config")
    for name in ("Variant", "Created"):
        if not plain[name]:
            del plain[name]
    return plain


def present_summary(
    container: Container, now: float, image: str | None = None, sizes: Sizes | None = None
) -> dict[str, Any]:
    """A row of `GET /containers/json`; `image` replaces a name that now refers to another image."""
    answer: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.config.image if image is None else image,
        "ImageID": container.image,
        "Command": " ".join(_shown(word) for word in (container.path, *container.args) if word),
        "Created": int(_seconds(container.created)),
        "Ports": present_ports(container),
    }
    if sizes is not None:
        shown = {"SizeRw": sizes.writable, "SizeRootFs": sizes.root}
        answer |= {key: value for key, value in shown.items() if value}
    return answer | {
        "Labels": container.config.labels or {},
        "State": container.state.status,
        "Status": status_text(container.state, now),
        "HostConfig": {"NetworkMode": container.host_config.network_mode},
        "NetworkSettings": {"Networks": msgspec.to_builtins(container.networks)},
        "Mounts": [present_mount(point) for point in container.mounts],
    }


def _shown(word: str) -> str:
    return f"'{word}'" if " " in word else word


def present_ports(container: Container) -> list[dict[str, Any]]:
    """The `Ports` of a summary: each published port once per host address, each exposed one without an address."""
    ports: list[dict[str, Any]] = []
    for port, bindings in container.ports.items():
        number, _, protocol = port.partition("/")
        private: dict[str, Any] = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        ports += [_public(private, binding) for binding in bindings or ()] or [private]
    return ports


def _public(private: dict[str, Any], binding: PortBinding) -> dict[str, Any]:
    public = {"PublicPort": int(binding.host_port)} if binding.host_port.isdigit() else {}
    address = {"IP": binding.host_ip} if binding.host_ip else {}
    return address | {"PrivatePort": private["PrivatePort"]} | public | {"Type": private["Type"]}


def _state(state: State) -> dict[str, Any]:
    shown = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.paused,
        "Restarting": state.restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    return shown | ({"Health": msgspec.to_builtins(state.health)} if state.health is not None else {})


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
