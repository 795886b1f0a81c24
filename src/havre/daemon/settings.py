"""Translates the configuration into the settings of each room, at the start and at a reload."""

from __future__ import annotations

import os
import platform
import re
import socket
from dataclasses import replace
from pathlib import Path

from havre import __version__
from havre.containers.create.configure import DEFAULT_SHM_SIZE, Defaults
from havre.containers.surroundings.assembly import DaemonDefaults
from havre.containers.validate import HostLimits
from havre.daemon.config import DaemonConfig
from havre.daemon.configvalues import parse_oldest
from havre.daemon.hosts import api_addresses
from havre.dataplane.hostfiles import Resolver
from havre.dataplane.ipam import parse_pools
from havre.networks.defaultbridge import DefaultBridge
from havre.networks.networks import NetworkOptions, tag_for
from havre.oci.platform import platform_of_processor
from havre.plugins import Directories, Plugins
from havre.registry import RegistryConfig
from havre.runtime import Runtime
from havre.runtime.plan import Security
from havre.system.info import Identity
from havre.wire.config import Ulimit
from havre.wire.versions import OLDEST, Version

MIN_API_VARIABLE = "DOCKER_MIN_API_VERSION"


def plugins_of(config: DaemonConfig) -> Plugins:
    """Plugins of all kinds, found in the directories that Docker uses."""
    own = config.exec_root / "plugins"
    directories = Directories(
        sockets=(own, Path("/run/docker/plugins")),
        specs=(own, Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins")),
    )
    return Plugins(directories)


def registries_of(config: DaemonConfig) -> RegistryConfig:
    """The settings for registries."""
    limits = config.registry_limits
    if config.max_download_attempts:
        limits = replace(limits, attempts=config.max_download_attempts)
    return RegistryConfig(mirrors=config.registry_mirrors, insecure=config.insecure_registries, limits=limits)


def network_options(config: DaemonConfig) -> NetworkOptions:
    """The settings of the default bridge and of all networks."""
    bridge = DefaultBridge(
        link=config.bridge,
        bip=config.bip,
        bip6=config.bip6,
        fixed_cidr=config.fixed_cidr,
        fixed_cidr6=config.fixed_cidr_v6,
        gateway=config.default_gateway,
        gateway6=config.default_gateway_v6,
        host_binding=config.ip,
        icc=config.icc,
        masquerade=config.ip_masq,
        ipv6=config.ipv6,
        mtu=config.mtu,
    )
    return NetworkOptions(
        tag=tag_for(config.exec_root),
        bridge=bridge,
        resolver=Resolver(servers=config.dns, search=config.dns_search, options=config.dns_opts),
        pools=parse_pools(config.default_address_pools),
        defaults=config.default_network_opts,
        relays=config.userland_proxy,
        forwarding=config.ip_forward,
        publish_policy=config.publish_policy,
        host_gateways=config.host_gateway_ips,
        api=tuple(api_addresses(config)),
        ruled=frozenset(version for version, on in ((4, config.iptables), (6, config.ip6tables)) if on),
    )


def daemon_defaults(config: DaemonConfig, security: Security) -> DaemonDefaults:
    """The daemon's settings for every start of a container."""
    ulimits = tuple(Ulimit(name=each.name, soft=each.soft, hard=each.hard) for each in config.default_ulimits)
    directories = tuple(map(Path, config.cdi_spec_dirs))
    return DaemonDefaults(ulimits, config.init, config.cgroup_parent, directories, security)


def container_defaults(config: DaemonConfig, runtime: Runtime) -> Defaults:
    """The defaults of new containers."""
    unified = runtime.host.cgroups.layout == "v2"
    return Defaults(
        runtime=runtime.default,
        cgroupns_mode=config.default_cgroupns_mode or ("private" if unified else "host"),
        unified_cgroups=unified,
        ipc_mode=config.default_ipc_mode or "private",
        hostname=socket.gethostname(),
        log_driver=config.log_driver,
        log_options=config.log_opts,
        shm_size=config.default_shm_size or DEFAULT_SHM_SIZE,
        init=config.init,
        masked_paths=runtime.host.masked_paths,
        roots=(str(config.data_root), str(config.exec_root)),
    )


def identity_of(config: DaemonConfig) -> Identity:
    """The daemon's own facts for `info`."""
    return Identity(
        version=__version__,
        data_root=config.data_root,
        exec_root=config.exec_root,
        debug=config.debug,
        experimental=config.experimental,
        mirrors=config.registry_mirrors,
        insecure_registries=config.insecure_registries,
        labels=config.labels,
        log_driver=config.log_driver,
        cdi_directories=config.cdi_spec_dirs,
        remapped=bool(config.userns_remap),
        authorization_plugins=tuple(dict.fromkeys(config.authorization_plugins)),
        seccomp_profile=config.seccomp_profile or "builtin",
        buildkit=config.features.get("buildkit", True),
        no_new_privileges=config.no_new_privileges,
        rules=config.iptables or config.ip6tables,
        relays=config.userland_proxy,
        oldest_api=str(oldest_version(config)),
    )


def oldest_version(config: DaemonConfig) -> Version:
    """The oldest API version to speak: `min-api-version`, or DOCKER_MIN_API_VERSION, which comes before it."""
    if given := os.environ.get(MIN_API_VARIABLE):
        return parse_oldest(given, MIN_API_VARIABLE)
    return parse_oldest(config.min_api_version, "min-api-version") if config.min_api_version else OLDEST


def host_limits(runtime: Runtime) -> HostLimits:
    """The host's abilities, against which new containers are checked."""
    flags = re.search(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return HostLimits(
        cpus=os.cpu_count() or 1,
        runtimes=runtime.binaries,
        platform=platform_of_processor(platform.machine(), flags[1].split() if flags else ()),
        swap_limit=runtime.host.cgroups.swap_limit,
        blkio_weight=runtime.host.cgroups.blkio_weight,
        cgroup_v1=runtime.host.cgroups.layout != "v2",
        memory_nodes=max(sum(1 for _ in Path("/sys/devices/system/node").glob("node[0-9]*")), 1),
    )
