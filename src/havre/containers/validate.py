"""Validates requests for containers. Every error is a 400 that names the field and what is expected.

Pure: depends on the request and on facts about the host passed by the caller. Where Docker has a message it is used
verbatim, because clients show it and tests match it. `mounts` validates mounts, `names` names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from havre.errors import InvalidInput
from havre.golang.ports import parse_host_port, parse_port
from havre.golang.signals import parse_signal
from havre.logs import DEFAULT_DRIVER, check_driver
from havre.oci.platform import Platform
from havre.runtime.capabilities import CAPABILITIES
from havre.runtime.runtimes import known_name
from havre.wire.config import Config, Healthcheck, HostConfig

MINIMUM_MEMORY = 6 << 20
HOSTNAME_MAX = 64
_SHORTEST_NS = 1_000_000
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")
_TMPFS_WORDS = (
    *("ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync", "remount", "mand"),
    *("nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    *("bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave", "rslave"),
    "defaults",
)
_RESTARTS = ("", "no", "always", "on-failure", "unless-stopped")
_RANGE_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Facts about the host for validation: CPUs and memory nodes, platform, runtimes, cgroup features."""

    cpus: int
    runtimes: Collection[str]
    platform: Platform
    swap_limit: bool = True
    blkio_weight: bool = True
    memory_nodes: int = 1
    cgroup_v1: bool = True


def check_config(config: Config) -> None:
    """Validate the process: directory, environment, signal, health check, ports."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidInput(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    for variable in config.env or ():
        if variable.partition("=")[0] == "":
            raise InvalidInput(f"invalid environment variable: {variable}", "expected NAME=VALUE")
        if "\0" in variable:
            raise InvalidInput("invalid environment variable: it contains a NUL character")
    if len(config.hostname) > HOSTNAME_MAX:
        raise InvalidInput(f'hostname "{config.hostname}" is too long (maximum {HOSTNAME_MAX} bytes)')
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if config.healthcheck is not None:
        _check_healthcheck(config.healthcheck)
    for port in config.exposed_ports or ():
        parse_port(port)


def _check_healthcheck(health: Healthcheck) -> None:
    durations = (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    )
    for name, value in durations:
        if value != 0 and value < _SHORTEST_NS:
            raise InvalidInput(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidInput("Retries in Healthcheck cannot be negative")
    if health.test and health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidInput(f"Unknown healthcheck type '{health.test[0]}'", "expected NONE, CMD or CMD-SHELL")


def _check_ports(host: HostConfig) -> None:
    for port, bindings in (host.port_bindings or {}).items():
        parse_port(port)
        for binding in bindings or ():
            if binding.host_port:
                parse_host_port(binding.host_port)


def check_host_config(host: HostConfig, limits: HostLimits) -> list[str]:
    """Validate the host configuration; returns warnings. Resets what this host does not support, as Docker does."""
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidInput("can't create 'AutoRemove' container with restart policy")
    for entry in host.extra_hosts or ():
        _check_extra_host(entry)
    _check_ports(host)
    check_restart_policy(host)
    _check_capabilities("CapAdd", host.cap_add)
    _check_capabilities("CapDrop", host.cap_drop)
    _check_modes(host)
    check_driver(host.log_config.type or DEFAULT_DRIVER, host.log_config.config or {})
    known_name(host.runtime, limits.runtimes)
    for path, options in (host.tmpfs or {}).items():
        _check_tmpfs(path, options)
    for option in host.storage_opt or ():
        if option != "size":
            raise InvalidInput(f"Unknown option {option}")
        raise InvalidInput("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    if "" in (host.annotations or {}):
        raise InvalidInput("invalid Annotations: the empty string is not permitted as an annotation key")
    return check_resources(host, limits) + _warnings(host)


def _check_tmpfs(path: str, options: str) -> None:
    if not path.startswith("/"):
        raise InvalidInput(f"invalid mount path: '{path}' mount path must be absolute")
    if not path.strip("/"):
        raise InvalidInput("invalid specification: destination can't be '/'")
    for option in filter(None, options.split(",")):
        name, given, _ = option.partition("=")
        if name not in (_TMPFS_VALUES if given else _TMPFS_WORDS):
            raise InvalidInput(f'invalid tmpfs option "{option}"', "as of mount(8)")


def _check_extra_host(entry: str) -> None:
    name, colon, address = entry.partition(":")
    if not colon or not name:
        raise InvalidInput(f'bad format for add-host: "{entry}"', "expected NAME:ADDRESS")
    if address != "host-gateway" and not re.fullmatch(r"\[?[0-9a-fA-F:.]+\]?", address):
        raise InvalidInput(f'invalid IP address in add-host: "{address}"')


def check_restart_policy(host: HostConfig) -> None:
    """Validate the policy's name and count."""
    policy = host.restart_policy
    if policy.name not in _RESTARTS:
        raise InvalidInput(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidInput("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidInput("invalid restart policy: maximum retry count cannot be negative")


def _check_modes(host: HostConfig) -> None:
    sharing = (
        ("IPC", host.ipc_mode, ("", "host", "private", "shareable", "none")),
        ("PID", host.pid_mode, ("", "host")),
        ("UTS", host.uts_mode, ("", "host")),
        ("cgroup namespace", host.cgroupns_mode, ("", "host", "private")),
        ("USER", host.userns_mode, ("", "host", "auto")),
    )
    for name, mode, known in sharing:
        joins = name in ("IPC", "PID") and mode.startswith("container:") and mode != "container:"
        if mode not in known and not joins:
            raise InvalidInput(f"invalid {name} mode: {mode}", f"expected one of {', '.join(filter(None, known))}")
    if host.network_mode in ("container", "container:"):
        raise InvalidInput("Invalid network mode: invalid container format container:<name|id>")
    if host.isolation not in ("", "default"):
        raise InvalidInput(f"Invalid isolation: \"{host.isolation}\" - linux only supports 'default'")


def check_resources(host: HostConfig, limits: HostLimits) -> list[str]:
    """Validate memory, CPU, block I/O and process limits; returns warnings."""
    _check_memory(host)
    _check_cpu(host, limits)
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidInput("Range of blkio weight is from 10 to 1000")
    if host.io_maximum_bandwidth or host.io_maximum_iops:
        raise InvalidInput("Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidInput(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidInput("SHM size can not be less than 0")
    warnings = []
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if host.memory > 0 and host.memory_swap != -1 and not limits.swap_limit:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
    if not limits.blkio_weight:
        warnings += _discard_weights(host)
    if not limits.cgroup_v1:
        warnings += _discard_v1(host)
    return warnings


def _discard_v1(host: HostConfig) -> list[str]:
    """Reset what only the controllers of cgroup v1 can do."""
    warnings = []
    if host.memory_swappiness not in (None, -1):
        host.memory_swappiness = None
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
    if host.oom_kill_disable:
        host.oom_kill_disable = False
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    return warnings


def _discard_weights(host: HostConfig) -> list[str]:
    discarded = []
    if host.blkio_weight:
        host.blkio_weight = 0
        discarded.append("weight or the cgroup is not mounted. Weight discarded.")
    if host.blkio_weight_device:
        host.blkio_weight_device = []
        discarded.append("weight_device or the cgroup is not mounted. Weight-device discarded.")
    return [f"Your kernel does not support Block I/O {text}" for text in discarded]


def _check_memory(host: HostConfig) -> None:
    if host.memory != 0 and host.memory < MINIMUM_MEMORY:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidInput("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidInput(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < MINIMUM_MEMORY:
        raise InvalidInput("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidInput("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: HostConfig, limits: HostLimits) -> None:
    if host.nano_cpus > 0 and host.cpu_period > 0:
        raise InvalidInput("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus > 0 and host.cpu_quota > 0:
        raise InvalidInput("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if not 0 <= host.nano_cpus <= limits.cpus * 1_000_000_000:
        raise InvalidInput(
            f"Range of CPUs is from 0.01 to {limits.cpus}.00, as there are only {limits.cpus} CPUs available"
        )
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidInput("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if not limits.cgroup_v1 and (host.cpu_realtime_period or host.cpu_realtime_runtime):
        raise InvalidInput("Your kernel does not support CPU real-time scheduler", "cgroup v2 has no limits for it")
    if host.cpu_shares < 0:
        raise InvalidInput(
            f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer",
            "0 is the default, which is 1024",
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidInput("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for name, value in (("cpus", host.cpuset_cpus), ("mems", host.cpuset_mems)):
        if value and not _RANGE_LIST.fullmatch(value):
            raise InvalidInput(f"Invalid value {value} for cpuset {name}", "expected a list such as 0-2,7")
    _check_available("CPUs", host.cpuset_cpus, limits.cpus)
    _check_available("memory nodes", host.cpuset_mems, limits.memory_nodes)


def _check_available(noun: str, asked: str, count: int) -> None:
    highest = max(map(int, re.findall(r"\d+", asked)), default=0)
    if highest >= count:
        available = f"0-{count - 1}" if count > 1 else "0"
        problem = f"Requested {noun} are not available - requested {asked}, available: {available}"
        raise InvalidInput(problem, f"the highest asked for is {highest}")


def _check_capabilities(field: str, names: Sequence[str] | None) -> None:
    """Validate names with or without CAP_, in any case; ALL stands for all."""
    for name in names or ():
        full = "CAP_" + name.upper().removeprefix("CAP_")
        if full != "CAP_ALL" and full not in CAPABILITIES:
            raise InvalidInput(f'invalid {field}: unknown capability: "{full}"')


def _warnings(host: HostConfig) -> list[str]:
    if host.network_mode == "host" and host.port_bindings:
        return ["Published ports are discarded when using host network mode"]
    return []
