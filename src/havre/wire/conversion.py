"""Conversion of requests and answers for older API versions.

Handlers speak `NEWEST` only. A request of an older client is lifted before its handler sees it, and the answer lowered
afterwards, by the tables at the end: type of the request or answer, first version that no longer needs the change,
change. Changes are applied from the newest down, each once. What only older versions have is UNSET in an answer
until it is lowered to one of them.

    client 1.41 --request--> lift --> handler (1.55) --answer--> lower 1.52, lower 1.44, lower 1.42 --> client 1.41

Source: Docker Engine API, "version history"; where that is silent, dockerd 26's answers to both versions.
Why: docs/decisions/060.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from havre.errors import InvalidInput
from havre.wire.config import (
    OMITTED_OF_CONFIG,
    OMITTED_OF_IMAGES,
    OWN_OF_CONTAINERS,
    Config,
    CreateRequest,
    EndpointSettings,
    Mount,
    UpdateRequest,
)
from havre.wire.containers import ContainerDetails, ContainerSummary, NetworkSettings
from havre.wire.images import UNKNOWN, ImageDetails, ImageSummary
from havre.wire.system import DiskUsage, Info
from havre.wire.values import ZERO_TIME, without_empty
from havre.wire.versions import NEWEST, Version

T = TypeVar("T")
_Change = tuple[Version, Callable[[Any], None]]


def lift(body: T, version: Version) -> T:
    """Convert an older client's request in place to the meaning it had."""
    for until, change in _changes(_LIFTS, type(body)):
        if version < until:
            change(body)
    return body


def lower(answer: T, version: Version) -> T:
    """An answer, or each of a list of answers, changed in place for an older client."""
    if version < NEWEST:
        for item in answer if isinstance(answer, list) else (answer,):
            for until, change in _changes(_LOWERS, type(item)):
                if version < until:
                    change(item)
    return answer


def _changes(table: Mapping[type, Sequence[_Change]], kind: type) -> Sequence[_Change]:
    return next((table[base] for base in kind.__mro__ if base in table), ())


def _mounts(body: CreateRequest) -> Sequence[Mount]:
    return (body.host_config.mounts or ()) if body.host_config is not None else ()


def _lift_auto_remove(body: CreateRequest) -> None:
    """Before 1.25 the client removed the container."""
    if body.host_config is not None:
        body.host_config.auto_remove = False


def _lift_recursive_binds(body: CreateRequest) -> None:
    """`NonRecursive` came with 1.40."""
    for mount in _mounts(body):
        if mount.bind_options is not None:
            mount.bind_options.non_recursive = False


def _lift_private_ipc(body: CreateRequest) -> None:
    """Before 1.40 a container's IPC namespace was shareable by default."""
    if body.host_config is not None and not body.host_config.ipc_mode:
        body.host_config.ipc_mode = "shareable"


def _lift_host_cgroups(body: CreateRequest) -> None:
    """Before 1.41 containers shared the host's cgroup namespace by default."""
    if body.host_config is not None and not body.host_config.cgroupns_mode:
        body.host_config.cgroupns_mode = "host"


def _lift_annotations(body: CreateRequest) -> None:
    """`Annotations` came with 1.43."""
    if body.host_config is not None:
        body.host_config.annotations = None


def _lift_networks(body: CreateRequest) -> None:
    """Before 1.44 a container was created on one network; the others were connected afterwards."""
    endpoints = (body.networking_config and body.networking_config.endpoints_config) or ()
    if len(endpoints) > 1:
        raise InvalidInput(f"Container cannot be created with multiple network endpoints: {', '.join(endpoints)}")


def _lift_forced_recursion(body: CreateRequest) -> None:
    """`BindOptions.ReadOnlyForceRecursive` came with 1.44; rejected from an older client."""
    for mount in _mounts(body):
        if mount.bind_options is not None and mount.bind_options.read_only_force_recursive:
            raise InvalidInput("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")


def _lift_subpath(body: CreateRequest) -> None:
    """`VolumeOptions.Subpath` came with 1.45; rejected from an older client."""
    for mount in _mounts(body):
        if mount.volume_options is not None and mount.volume_options.subpath:
            raise InvalidInput("VolumeOptions.Subpath needs API v1.45 or newer")


def _lift_start_interval(body: CreateRequest) -> None:
    """`StartInterval` came with 1.44; ignored from an older client."""
    if body.healthcheck is not None:
        body.healthcheck.start_interval = 0


def _lift_mount_options(body: CreateRequest) -> None:
    """`CreateMountpoint` came with 1.42; options of another mount type were accepted until then."""
    for mount in _mounts(body):
        if mount.bind_options is not None:
            mount.bind_options.create_mountpoint = False
        if mount.type != "volume":
            mount.volume_options = None
        if mount.type != "tmpfs":
            mount.tmpfs_options = None


def _lift_pids_limit(body: UpdateRequest) -> None:
    """Limits on processes could not be updated before 1.40."""
    body.pids_limit = None


def _lower_container_config(answer: ImageDetails) -> None:
    """1.45 dropped the configuration that a classic build had recorded."""
    answer.container_config = without_empty(Config(), OMITTED_OF_CONFIG)


def _lower_identity(answer: ImageDetails) -> None:
    """1.53 added Identity."""
    answer.identity = UNSET


def _lower_empty_texts(answer: ImageDetails) -> None:
    """1.52 left out Parent, Comment, DockerVersion and Author where they are empty."""
    answer.parent = answer.parent or ""
    answer.comment = answer.comment or ""
    answer.docker_version = answer.docker_version or ""
    answer.author = answer.author or ""


def _lower_empty_config(answer: ImageDetails) -> None:
    """1.52 left out Cmd, Entrypoint, Env, Labels, OnBuild, User, Volumes and WorkingDir where they are empty."""
    answer.config = _with_defaults(answer.config, OMITTED_OF_IMAGES)


def _lower_config_of_containers(answer: ImageDetails) -> None:
    """1.50 dropped what only containers have of the configuration, such as Hostname; before, it was empty."""
    own = set(OWN_OF_CONTAINERS).difference(OMITTED_OF_CONFIG)
    answer.config = _with_defaults(answer.config, own)


def _with_defaults(config: Config, names: Collection[str]) -> Config:
    """A configuration with the defaults of the fields `names` that are UNSET."""
    plain = Config()
    return replace(config, **{name: getattr(plain, name) for name in names if getattr(config, name) is UNSET})


def _lower_descriptor(answer: ImageDetails | ImageSummary) -> None:
    """1.48 added Descriptor."""
    if answer.manifests is UNSET:
        answer.descriptor = UNSET


def _lower_counted_containers(answer: ImageSummary) -> None:
    """1.51 counts the containers of images; before, Containers was -1."""
    answer.containers = UNKNOWN


def _lower_no_date(answer: ImageDetails) -> None:
    """Before 1.44 an image without a date had the first of all there."""
    answer.created = answer.created or ZERO_TIME


def _lower_virtual_size(answer: ImageDetails | ImageSummary) -> None:
    """1.44 dropped VirtualSize, which had been equal to Size for years."""
    answer.virtual_size = answer.size


def _lower_df_images(answer: DiskUsage) -> None:
    """1.44 dropped the images' VirtualSize."""
    for image in _given(answer.images):
        _lower_virtual_size(image)


def _given(rows: Sequence[T] | UnsetType | None) -> Sequence[T]:
    return () if rows is UNSET or rows is None else rows


def _lower_df(answer: DiskUsage) -> None:
    """1.52 told each kind's usage in sums; before, what had not been asked for was null."""
    answer.image_usage = answer.container_usage = answer.volume_usage = answer.build_cache_usage = UNSET
    answer.layers_size = 0 if answer.layers_size is UNSET else answer.layers_size
    answer.images = None if answer.images is UNSET else answer.images
    answer.containers = None if answer.containers is UNSET else answer.containers
    answer.volumes = None if answer.volumes is UNSET else answer.volumes
    answer.build_cache = None if answer.build_cache is UNSET else answer.build_cache


def _lower_empty_digests(answer: ImageSummary) -> None:
    """Before 1.43 an image without digests or tags had null there."""
    answer.repo_tags = answer.repo_tags or None
    answer.repo_digests = answer.repo_digests or None


def _lower_network_settings(answer: ContainerDetails) -> None:
    """1.52 dropped what a container has on the default bridge from beside its networks."""
    shown = answer.network_settings
    main = shown.networks.get("bridge") or shown.networks.get("default") or EndpointSettings()
    answer.network_settings = NetworkSettings(
        bridge="",
        sandbox_id=shown.sandbox_id,
        sandbox_key=shown.sandbox_key,
        ports=shown.ports,
        hairpin_mode=False,
        link_local_ipv6_address="",
        link_local_ipv6_prefix_len=0,
        secondary_ip_addresses=None,
        secondary_ipv6_addresses=None,
        endpoint_id=main.endpoint_id,
        gateway=main.gateway,
        global_ipv6_address=main.global_ipv6_address,
        global_ipv6_prefix_len=main.global_ipv6_prefix_len,
        ip_address=main.ip_address,
        ip_prefix_len=main.ip_prefix_len,
        ipv6_gateway=main.ipv6_gateway,
        mac_address=main.mac_address,
        networks=shown.networks,
    )


def _lower_on_build(answer: ContainerDetails) -> None:
    """1.52 left out OnBuild where it is empty."""
    answer.config = _with_defaults(answer.config, ("on_build",))


def _lower_health(answer: ContainerSummary) -> None:
    """1.52 added Health."""
    answer.health = UNSET


def _lower_annotations(answer: ContainerSummary) -> None:
    """1.46 added HostConfig.Annotations."""
    answer.host_config.annotations = UNSET


def _lower_df_health(answer: DiskUsage) -> None:
    """1.52 added the containers' Health."""
    for row in _given(answer.containers):
        _lower_health(row)


def _lower_df_annotations(answer: DiskUsage) -> None:
    """1.46 added the containers' HostConfig.Annotations."""
    for row in _given(answer.containers):
        _lower_annotations(row)


def _lower_aliases(answer: ContainerDetails) -> None:
    """Before 1.45 the short ID and the host name stood among the aliases on user-defined networks."""

    def with_names(endpoint: EndpointSettings) -> EndpointSettings:
        aliases = dict.fromkeys([*(endpoint.aliases or ()), answer.id[:12], answer.config.hostname])
        return replace(endpoint, aliases=list(aliases))

    answer.network_settings.networks = {
        name: endpoint if name in ("default", "bridge", "host", "none") else with_names(endpoint)
        for name, endpoint in answer.network_settings.networks.items()
    }


def _lower_discovered_devices(answer: Info) -> None:
    """1.50 added DiscoveredDevices."""
    answer.discovered_devices = UNSET


def _lower_bridge_filter(answer: Info) -> None:
    """1.50 dropped BridgeNfIptables and BridgeNfIp6tables."""
    answer.bridge_nf_iptables = answer.bridge_nf_ip6tables = False


def _lower_firewall(answer: Info) -> None:
    """1.49 added FirewallBackend."""
    answer.firewall_backend = UNSET


def _lower_expected_commits(answer: Info) -> None:
    """1.49 dropped the commits' Expected, which had been equal to their ID."""
    for commit in (answer.containerd_commit, answer.runc_commit, answer.init_commit):
        commit.expected = commit.id


def _lower_nondistributable(answer: Info) -> None:
    """Before 1.47 AllowNondistributableArtifactsCIDRs and -Hostnames were null."""
    answer.registry_config.nondistributable_cidrs = answer.registry_config.nondistributable_hostnames = None


def _lower_kernel_memory(answer: Info) -> None:
    """1.42 dropped KernelMemory."""
    answer.kernel_memory = True


def _lower_runtimes(answer: Info) -> None:
    """1.44 added the features of runtimes."""
    for runtime in answer.runtimes.values():
        runtime.status = UNSET


def _lower_execution_driver(answer: Info) -> None:
    """1.25 dropped ExecutionDriver."""
    answer.execution_driver = "<not supported>"


def _lower_security_options(answer: Info) -> None:
    """Before 1.25 they were bare names: `seccomp` for `name=seccomp,profile=builtin`."""
    answer.security_options = [option.partition(",")[0].removeprefix("name=") for option in answer.security_options]


def _lower_builder_size(answer: DiskUsage) -> None:
    """1.42 dropped BuilderSize, the sum of the caches' sizes."""
    answer.builder_size = sum(entry.size for entry in _given(answer.build_cache))


_LIFTS: Mapping[type, Sequence[_Change]] = {
    CreateRequest: (
        (Version(1, 45), _lift_subpath),
        (Version(1, 44), _lift_networks),
        (Version(1, 44), _lift_forced_recursion),
        (Version(1, 44), _lift_start_interval),
        (Version(1, 43), _lift_annotations),
        (Version(1, 42), _lift_mount_options),
        (Version(1, 41), _lift_host_cgroups),
        (Version(1, 40), _lift_private_ipc),
        (Version(1, 40), _lift_recursive_binds),
        (Version(1, 25), _lift_auto_remove),
    ),
    UpdateRequest: ((Version(1, 40), _lift_pids_limit),),
}
_LOWERS: Mapping[type, Sequence[_Change]] = {
    ContainerDetails: (
        (Version(1, 52), _lower_network_settings),
        (Version(1, 52), _lower_on_build),
        (Version(1, 45), _lower_aliases),
    ),
    ContainerSummary: (
        (Version(1, 52), _lower_health),
        (Version(1, 46), _lower_annotations),
    ),
    ImageDetails: (
        (Version(1, 53), _lower_identity),
        (Version(1, 52), _lower_empty_texts),
        (Version(1, 52), _lower_empty_config),
        (Version(1, 50), _lower_config_of_containers),
        (Version(1, 48), _lower_descriptor),
        (Version(1, 45), _lower_container_config),
        (Version(1, 44), _lower_virtual_size),
        (Version(1, 44), _lower_no_date),
    ),
    ImageSummary: (
        (Version(1, 51), _lower_counted_containers),
        (Version(1, 48), _lower_descriptor),
        (Version(1, 44), _lower_virtual_size),
        (Version(1, 43), _lower_empty_digests),
    ),
    DiskUsage: (
        (Version(1, 52), _lower_df),
        (Version(1, 52), _lower_df_health),
        (Version(1, 46), _lower_df_annotations),
        (Version(1, 44), _lower_df_images),
        (Version(1, 42), _lower_builder_size),
    ),
    Info: (
        (Version(1, 50), _lower_discovered_devices),
        (Version(1, 50), _lower_bridge_filter),
        (Version(1, 49), _lower_firewall),
        (Version(1, 49), _lower_expected_commits),
        (Version(1, 47), _lower_nondistributable),
        (Version(1, 44), _lower_runtimes),
        (Version(1, 42), _lower_kernel_memory),
        (Version(1, 25), _lower_security_options),
        (Version(1, 25), _lower_execution_driver),
    ),
}
