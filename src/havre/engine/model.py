"""The engine's nouns as values: what a container is configured to be, and what it is now.

Field names are Python's; the JSON names that Docker's API and the OCI image configuration use are given by `rename`, so
that `api` decodes requests straight into these structs and `storage` persists them, and no field is written down twice.
Lists and maps may be None, because Docker tells "not given" from "empty" and so do its clients.

Units: memory in bytes, CPU periods and quotas in microseconds, health-check durations in nanoseconds, times in RFC 3339
with nanoseconds, UTC.

Source: Docker Engine API, "ContainerCreate" and "ContainerInspect"; OCI image specification, "config.md".
"""

from __future__ import annotations

from typing import Any, NewType

import msgspec

from havre.gojson import Words
from havre.linux.idmap import IdRange

ContainerId = NewType("ContainerId", str)
NetworkId = NewType("NetworkId", str)
ImageId = NewType("ImageId", str)

ZERO_TIME = "0001-01-01T00:00:00Z"

_IRREGULAR = {
    "container_id_file": "ContainerIDFile",
    "uts_mode": "UTSMode",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "network_id": "NetworkID",
    "endpoint_id": "EndpointID",
    "ip_address": "IPAddress",
    "ip_prefix_len": "IPPrefixLen",
    "ipv6_gateway": "IPv6Gateway",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "dns_names": "DNSNames",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "link_local_ips": "LinkLocalIPs",
    "host_ip": "HostIp",
    "device_ids": "DeviceIDs",
    "oom_killed": "OOMKilled",
    "enable_ipv6": "EnableIPv6",
    "ip_range": "IPRange",
}


def docker_name(field: str) -> str:
    """The JSON name of a field: `cpu_shares` is `CpuShares`; what Docker writes irregularly is in a table."""
    return _IRREGULAR.get(field) or "".join(part[:1].upper() + part[1:] for part in field.split("_"))


class Value(msgspec.Struct, rename=docker_name, kw_only=True):
    """Base of the structs below: Docker's JSON names, keyword arguments."""


class Healthcheck(Value, omit_defaults=True):
    """How health is probed; `test` is `[]` (inherit), `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", s]`."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Config(Value):
    """What an image says of its containers, and a container of its process ("Config" in Docker and OCI)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: Words | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: Words | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: Words | None = None


class LogConfig(Value):
    """The log driver and its options."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(Value):
    """`name` is "", no, always, unless-stopped or on-failure; the count bounds on-failure (0: no bound)."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(Value):
    """Where a container's port is published; both as text, empty for "any" (`host_port` may be a range)."""

    host_ip: str = ""
    host_port: str = ""


class Ulimit(Value):
    """A resource limit of setrlimit(2), by its lower-case name without RLIMIT_."""

    name: str
    soft: int = 0
    hard: int = 0


class Device(Value):
    """A device node of the host, where it appears inside, and its cgroup permissions (of "rwm")."""

    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = ""


class WeightDevice(Value):
    """A block device and its proportional weight, 10 to 1000."""

    path: str
    weight: int = 0


class ThrottleDevice(Value):
    """A block device and its limit in bytes or operations per second."""

    path: str
    rate: int = 0


class DeviceRequest(Value):
    """A request for devices by capability (GPUs) or by CDI name."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class BindOptions(Value, omit_defaults=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(Value, omit_defaults=True):
    """The driver of a volume that a mount may create."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Value, omit_defaults=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: VolumeDriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Value, omit_defaults=True):
    """Size in bytes and mode bits of a tmpfs mount."""

    size_bytes: int = 0
    mode: int = 0


class ImageOptions(Value, omit_defaults=True):
    """The part of an image that a mount shows (docker 28)."""

    subpath: str = ""


class Mount(Value, omit_defaults=True):
    """One `--mount`; `type` is bind, volume, tmpfs, npipe, cluster or image."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class HostConfig(Value):
    """What the host grants a container."""

    binds: list[str] | None = None
    container_id_file: str = ""
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: Words | None = None
    cap_drop: Words | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[Device] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    mounts: list[Mount] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None


class EndpointIpam(Value, omit_defaults=True):
    """Addresses a user asks for on one network."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointSettings(Value):
    """A container's place on one network: what was asked for, and once it runs what it got."""

    ipam_config: EndpointIpam | None = None
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    network_id: str = msgspec.field(default="", name="NetworkID")
    endpoint_id: str = msgspec.field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    ipv6_gateway: str = ""
    global_ipv6_address: str = ""
    global_ipv6_prefix_len: int = 0
    driver_opts: dict[str, str] | None = None
    dns_names: list[str] | None = None
    gw_priority: int | msgspec.UnsetType = msgspec.UNSET  # newer than what dockerd 26 shows: kept where it was said


class NetworkingConfig(Value):
    """The networks of a new container, by name or ID."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateRequest(Config):
    """The body of `POST /containers/create`: a `Config` with its two companions."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


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


class State(Value):
    """What a container is doing. `status` is one of created, running, paused, restarting, removing, exited, dead."""

    status: str = "created"
    running: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    health: Health | None = None


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


class MountOptions(Value, omit_defaults=True):
    """What a mount needs beyond its `MountPoint`.

    `anonymous`: the volume was made for this container and goes with `rm -v`. `create_source`: a missing host directory
    is made (`-v`), otherwise refused (`--mount`). `slave_if_shared`: nobody asked for the propagation rslave, so that a
    source that is not shared will do.
    """

    anonymous: bool = False
    create_source: bool = False
    no_copy: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    slave_if_shared: bool = False
    subpath: str = ""
    tmpfs: TmpfsOptions | None = None


class Container(Value):
    """A container as it is persisted: one row, rewritten whole on each change of state.

    `image` is the image's ID, `config.image` the name the user gave. `path` and `args` are the resolved command.
    `networks` is keyed by network name: what it has; `asked_networks`: what was asked for. `mount_options` is
    keyed by the mount's destination. `ports` is what is published now, as `NetworkSettings.Ports` shows it.
    `ids` are the host's user IDs that it has, or had when it was last started, if those are not the same as inside.
    `link_ids` are the containers that its links mean, by alias in lower case.
    `apparmor_profile` is the one asked for, and from the first start on the one that it has.
    """

    id: str
    name: str
    created: str
    image: str
    path: str
    args: list[str]
    config: Config
    host_config: HostConfig
    state: State = msgspec.field(default_factory=State)
    networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    asked_networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    ports: dict[str, list[PortBinding] | None] = msgspec.field(default_factory=dict)
    mounts: list[MountPoint] = msgspec.field(default_factory=list)
    mount_options: dict[str, MountOptions] = msgspec.field(default_factory=dict)
    restart_count: int = 0
    manually_stopped: bool = False
    runtime: str = ""
    ids: IdRange | None = None
    link_ids: dict[str, str] = msgspec.field(default_factory=dict)
    platform: str = "linux"
    apparmor_profile: str = ""
