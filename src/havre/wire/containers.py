"""Containers and execs on the wire: what clients ask, and answers field by field in the order of dockerd's.

What Go leaves out when it is empty is UNSET here (`values.without_empty`), since clients tell absent from null.

Source: Docker Engine API, "ContainerInspect" and "ContainerSummary".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from havre.wire.config import Config, EndpointSettings, HostConfig, PortBinding
from havre.wire.values import ZERO_TIME, Value


class HealthResult(Value):
    """One probe: when it ran, its exit code (-1: it could not run, or took too long) and what it wrote."""

    start: str
    end: str
    exit_code: int = 0
    output: str = ""


class Health(Value):
    """What the probes say: starting, healthy or unhealthy; the failures in a row, and the last results."""

    status: str = ""
    failing_streak: int = 0
    log: list[HealthResult] = msgspec.field(default_factory=list)


class MountPoint(Value):
    """A mount of a container as `inspect` shows it.

    `source` is the host path, or an image's ID; `name` the volume's or the image's.
    """

    type: str
    name: str = ""
    source: str = ""
    destination: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(default=True, name="RW")
    propagation: str = ""


class ContainerState(Value, kw_only=True):
    """What a container is doing, in each of the ways in which Docker says it."""

    status: str
    running: bool
    paused: bool
    restarting: bool
    oom_killed: bool = msgspec.field(name="OOMKilled")
    dead: bool
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    health: Health | UnsetType = UNSET


class ContainerGraphDriver(Value):
    """How its root file system is stored, and where it is mounted while it runs."""

    data: dict[str, str] | None
    name: str


class NetworkSettings(Value, kw_only=True):
    """Its networks; for clients before API 1.52 what it has on the default bridge stands beside them."""

    bridge: str | UnsetType = UNSET
    sandbox_id: str = msgspec.field(default="", name="SandboxID")
    sandbox_key: str = ""
    ports: Mapping[str, list[PortBinding] | None]
    hairpin_mode: bool | UnsetType = UNSET
    link_local_ipv6_address: str | UnsetType = msgspec.field(default=UNSET, name="LinkLocalIPv6Address")
    link_local_ipv6_prefix_len: int | UnsetType = msgspec.field(default=UNSET, name="LinkLocalIPv6PrefixLen")
    secondary_ip_addresses: UnsetType | None = msgspec.field(default=UNSET, name="SecondaryIPAddresses")
    secondary_ipv6_addresses: UnsetType | None = msgspec.field(default=UNSET, name="SecondaryIPv6Addresses")
    endpoint_id: str | UnsetType = UNSET
    gateway: str | UnsetType = UNSET
    global_ipv6_address: str | UnsetType = UNSET
    global_ipv6_prefix_len: int | UnsetType = UNSET
    ip_address: str | UnsetType = UNSET
    ip_prefix_len: int | UnsetType = UNSET
    ipv6_gateway: str | UnsetType = UNSET
    mac_address: str | UnsetType = UNSET
    networks: Mapping[str, EndpointSettings]


class ContainerDetails(Value, kw_only=True):
    """The answer of `GET /containers/{name}/json`."""

    id: str
    created: str
    path: str
    args: list[str]
    state: ContainerState
    image: str
    resolv_conf_path: str
    hostname_path: str
    hosts_path: str
    log_path: str
    name: str
    restart_count: int
    driver: str
    platform: str
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: list[str] | None = msgspec.field(default=None, name="ExecIDs")
    host_config: HostConfig
    graph_driver: ContainerGraphDriver
    size_rw: int | UnsetType = UNSET
    size_root_fs: int | UnsetType = UNSET
    mounts: list[MountPoint]
    config: Config
    network_settings: NetworkSettings


class Port(Value, kw_only=True):
    """A port of a container in a list: a published one once per address of the host."""

    ip: str | UnsetType = msgspec.field(default=UNSET, name="IP")
    private_port: int
    public_port: int | UnsetType = UNSET
    type: str


class SummaryHostConfig(Value):
    """What a list shows of the host configuration."""

    network_mode: str
    annotations: dict[str, str] | UnsetType = UNSET


class HealthSummary(Value):
    """What a list shows of the probes: none without a health check."""

    status: str = "none"
    failing_streak: int = 0


class SummaryNetworks(Value):
    """What a list shows of the networks."""

    networks: Mapping[str, EndpointSettings]


class ContainerSummary(Value, kw_only=True):
    """A line of `GET /containers/json`; `created` in seconds since the epoch."""

    id: str
    names: list[str]
    image: str
    image_id: str = msgspec.field(name="ImageID")
    command: str
    created: int
    ports: list[Port]
    size_rw: int | UnsetType = UNSET
    size_root_fs: int | UnsetType = UNSET
    labels: Mapping[str, str]
    state: str
    status: str
    host_config: SummaryHostConfig
    health: HealthSummary | UnsetType = UNSET
    network_settings: SummaryNetworks
    mounts: list[MountPoint]


class ContainerCreated(Value):
    """The answer of `POST /containers/create`."""

    id: str
    warnings: list[str]


class ContainersPruned(Value):
    """The answer of `POST /containers/prune`."""

    containers_deleted: Sequence[str] | None
    space_reclaimed: int


class ContainerUpdated(Value):
    """The answer of `POST /containers/{name}/update`."""

    warnings: list[str] | None


class TopAnswer(Value):
    """The answer of `GET /containers/{name}/top`: a row for each process, under the titles of ps(1)."""

    processes: Sequence[Sequence[str]]
    titles: Sequence[str]


class TakePortsRequest(Value):
    """The body of `POST /containers/NAME/ports`: what to publish, and the containers to take the ports from."""

    port_bindings: dict[str, list[PortBinding] | None]
    givers: list[str] = msgspec.field(default_factory=list)


class ExecStart(Value):
    """The body of `POST /exec/{id}/start`: `console_size` is [rows, columns]. Without `tty` the output is framed, even
    that of a terminal.
    """

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


class ExecCreated(Value):
    """The answer of `POST /containers/{name}/exec`."""

    id: str


class ExecProcess(msgspec.Struct, kw_only=True):
    """What an exec runs."""

    tty: bool
    entrypoint: str
    arguments: list[str]
    privileged: bool
    user: str | UnsetType = UNSET


class ExecDetails(Value, kw_only=True):
    """The answer of `GET /exec/{id}/json`; the exit code is null while it runs."""

    id: str = msgspec.field(name="ID")
    running: bool
    exit_code: int | None
    process_config: ExecProcess
    open_stdin: bool
    open_stderr: bool
    open_stdout: bool
    can_remove: bool = False
    container_id: str = msgspec.field(name="ContainerID")
    detach_keys: str
    pid: int
