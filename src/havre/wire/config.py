"""The configuration of a container: the body of `POST /containers/create`.

Lists and maps may be None, because Docker and its clients distinguish "not given" from "empty".

Units: memory in bytes, CPU periods and quotas in microseconds, durations of health checks in nanoseconds.

Source: Docker Engine API, "ContainerCreate"; OCI image specification, "config.md".
"""

from __future__ import annotations

from typing import Any

import msgspec

from havre.golang.gojson import Words
from havre.wire.values import Value


class Healthcheck(Value, omit_defaults=True):
    """A health check; `test` is `[]` (inherit), `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", s]`."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Config(Value):
    """An image's defaults for containers, and a container's process ("Config" in Docker and OCI)."""

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


OMITTED_OF_CONFIG = (
    "exposed_ports", "network_disabled", "healthcheck", "args_escaped", "mac_address", "stop_signal", "stop_timeout",
    "shell",
)  # fmt: skip
"""What of a `Config` is not shown where it is empty."""
OWN_OF_CONTAINERS = (
    "hostname", "domainname", "attach_stdin", "attach_stdout", "attach_stderr", "tty", "open_stdin", "stdin_once",
    "image", "network_disabled", "mac_address", "stop_timeout",
)  # fmt: skip
"""What of a `Config` an image does not have."""
OMITTED_OF_IMAGES = ("user", "env", "cmd", "volumes", "working_dir", "entrypoint", "on_build", "labels")
"""What of an image's `Config` is not shown either where it is empty, since API 1.52."""


class LogConfig(Value):
    """The log driver and its options."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(Value):
    """`name` is "", no, always, unless-stopped or on-failure; the count limits on-failure (0: unlimited)."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(Value):
    """A published port's host address and port; both text, empty for "any" (`host_port` may be a range)."""

    host_ip: str = ""
    host_port: str = ""


class Ulimit(Value):
    """A resource limit of setrlimit(2), by its lower-case name without RLIMIT_."""

    name: str
    soft: int = 0
    hard: int = 0


class Device(Value):
    """A device node of the host, its path inside, and its cgroup permissions (of "rwm")."""

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
    """The part of an image to mount (docker 28)."""

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
    """The host's side of a container's configuration."""

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
    """Addresses requested on one network."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointSettings(Value):
    """A container's endpoint on a network: the request, and the result while it runs."""

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
    gw_priority: int | msgspec.UnsetType = msgspec.UNSET  # newer than dockerd 26: shown only if it was given


class NetworkingConfig(Value):
    """The networks of a new container, by name or ID."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class UpdateRequest(HostConfig):
    """The body of `POST /containers/{name}/update`: those limits that are to change, and the restart policy."""


class CreateRequest(Config):
    """The body of `POST /containers/create`: a `Config` with host and networking configuration."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None
