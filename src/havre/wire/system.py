"""The daemon and its host as the API shows them: `info`, `version`, `system df`.

What only older versions of the API have is UNSET until `versions` lowers an answer to one of them.

Source: Docker Engine API, "SystemInfo", "SystemVersion", "SystemDataUsage".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from havre.wire.containers import ContainerSummary
from havre.wire.images import ImageSummary
from havre.wire.values import Value


class Component(Value):
    """A program that the engine consists of."""

    name: str
    version: str
    details: dict[str, str]


class PlatformName(Value):
    """What the engine calls itself."""

    name: str


class VersionAnswer(Value, kw_only=True):
    """The answer of `GET /version`."""

    platform: PlatformName
    components: list[Component]
    version: str
    api_version: str
    min_api_version: str = msgspec.field(name="MinAPIVersion")
    git_commit: str = ""
    go_version: str = ""
    os: str = "linux"
    arch: str
    kernel_version: str
    build_time: str


class Plugins(Value):
    """The drivers that can be named, by kind."""

    volume: list[str]
    network: list[str]
    authorization: list[str] | None
    log: list[str]


class RegistryIndex(Value):
    """How one registry is reached."""

    name: str
    mirrors: list[str]
    secure: bool
    official: bool


class RegistryConfig(Value, kw_only=True):
    """How registries are reached."""

    nondistributable_cidrs: UnsetType | None = msgspec.field(default=UNSET, name="AllowNondistributableArtifactsCIDRs")
    nondistributable_hostnames: UnsetType | None = msgspec.field(
        default=UNSET, name="AllowNondistributableArtifactsHostnames"
    )
    insecure_registry_cidrs: list[str] = msgspec.field(name="InsecureRegistryCIDRs")
    index_configs: dict[str, RegistryIndex]
    mirrors: list[str] | None


class RuntimeEntry(msgspec.Struct, kw_only=True):
    """An OCI runtime: its path, and since API 1.44 what it says that it can."""

    path: str
    status: dict[str, Any] | UnsetType = UNSET


class Commit(Value):
    """The commit that a program was made of."""

    id: str = msgspec.field(default="", name="ID")
    expected: str | UnsetType = UNSET


class FirewallInfo(Value):
    """What filters packets, and what else of it is worth knowing, as labels and values."""

    driver: str
    info: list[tuple[str, str]] = msgspec.field(default_factory=list)


class DiscoveredDevice(Value):
    """A device that containers can be given, by the kind of its description: `cdi`."""

    source: str
    id: str = msgspec.field(name="ID")


class SwarmInfo(Value):
    """A node that is in no swarm."""

    node_id: str = msgspec.field(default="", name="NodeID")
    node_addr: str = ""
    local_node_state: str = "inactive"
    control_available: bool = False
    error: str = ""
    remote_managers: None = None


class Info(Value, kw_only=True):
    """The answer of `GET /info`."""

    id: str = msgspec.field(name="ID")
    containers: int
    containers_running: int
    containers_paused: int
    containers_stopped: int
    images: int
    driver: str
    driver_status: list[list[str]]
    plugins: Plugins
    memory_limit: bool = True
    swap_limit: bool
    cpu_cfs_period: bool = True
    cpu_cfs_quota: bool = True
    cpu_shares: bool = msgspec.field(default=True, name="CPUShares")
    cpu_set: bool = msgspec.field(default=True, name="CPUSet")
    pids_limit: bool = True
    ipv4_forwarding: bool = msgspec.field(name="IPv4Forwarding")
    bridge_nf_iptables: bool | UnsetType = UNSET
    bridge_nf_ip6tables: bool | UnsetType = UNSET
    debug: bool
    open_files: int = msgspec.field(name="NFd")
    oom_kill_disable: bool
    tasks: int = msgspec.field(name="NGoroutines")
    system_time: str
    logging_driver: str
    cgroup_driver: str = "cgroupfs"
    cgroup_version: str
    event_listeners: int = msgspec.field(default=0, name="NEventsListener")
    kernel_version: str
    operating_system: str
    os_version: str = msgspec.field(name="OSVersion")
    os_type: str = msgspec.field(default="linux", name="OSType")
    architecture: str
    index_server_address: str
    registry_config: RegistryConfig
    cpus: int = msgspec.field(name="NCPU")
    memory_bytes: int = msgspec.field(name="MemTotal")
    generic_resources: None = None
    docker_root_dir: str
    http_proxy: str
    https_proxy: str
    no_proxy: str
    name: str
    labels: list[str]
    experimental_build: bool
    server_version: str
    runtimes: dict[str, RuntimeEntry]
    default_runtime: str
    default_runtime_reason: str = ""  # havre's own
    swarm: SwarmInfo
    live_restore_enabled: bool
    isolation: str = ""
    init_binary: str
    containerd_commit: Commit
    runc_commit: Commit
    init_commit: Commit
    security_options: list[str]
    firewall_backend: FirewallInfo | UnsetType = UNSET
    cdi_spec_dirs: list[str] = msgspec.field(name="CDISpecDirs")
    discovered_devices: list[DiscoveredDevice] | UnsetType = UNSET
    warnings: list[str] | None
    kernel_memory: bool | UnsetType = UNSET
    execution_driver: str | UnsetType = UNSET


class BuildCacheEntry(Value):
    """A record of the build cache; `shared` says that an image has the same layer."""

    id: str = msgspec.field(name="ID")
    type: str
    description: str
    in_use: bool
    shared: bool
    size: int
    created_at: str
    last_used_at: str
    usage_count: int


class KindUsage(Value, omit_defaults=True):
    """What one kind of object takes: how many there are and are in use, bytes; zeros are left out, as dockerd does."""

    active_count: int = 0
    total_count: int = 0
    reclaimable: int = 0
    total_size: int = 0
    items: Sequence[Value] = msgspec.field(default_factory=list)


class DiskUsage(Value):
    """The answer of `GET /system/df`; what was not asked for is UNSET, and null for clients before 1.52.

    The fields from `layers_size` (bytes) on are those that older clients know.
    """

    image_usage: KindUsage | UnsetType = UNSET
    container_usage: KindUsage | UnsetType = UNSET
    volume_usage: KindUsage | UnsetType = UNSET
    build_cache_usage: KindUsage | UnsetType = UNSET
    layers_size: int | UnsetType = UNSET
    images: Sequence[ImageSummary] | UnsetType | None = UNSET
    containers: Sequence[ContainerSummary] | UnsetType | None = UNSET
    volumes: Sequence[Value] | UnsetType | None = UNSET
    build_cache: Sequence[BuildCacheEntry] | UnsetType | None = UNSET
    builder_size: int | UnsetType = UNSET
