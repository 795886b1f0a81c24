"""Plans a container's run for the runtime from its row and the facts about its surroundings. Pure.

Container (row)  +  Surroundings (looked up by `assemble`)  --plan_container-->  runtime.ContainerPlan
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from havre.containers.container import Container, MountOptions, MountPoint
from havre.containers.surroundings.cdi import Edits
from havre.errors import Failed, InvalidInput
from havre.runtime.plan import (
    HOST,
    PRIVATE,
    Bind,
    BlockLimit,
    ContainerPlan,
    Device,
    DeviceRule,
    Mount,
    Resources,
    Rlimit,
    Security,
    Tmpfs,
    User,
)
from havre.wire.config import Config, HostConfig, TmpfsOptions, Ulimit

_DEVICE_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class BlockLimits:
    """Per-device limits with resolved device numbers."""

    weights: tuple[BlockLimit, ...] = ()
    read_bps: tuple[BlockLimit, ...] = ()
    write_bps: tuple[BlockLimit, ...] = ()
    read_iops: tuple[BlockLimit, ...] = ()
    write_iops: tuple[BlockLimit, ...] = ()


_ROOT = User()
_DEFAULT_SECURITY = Security()
_NO_BLOCK_LIMITS = BlockLimits()
_NO_EDITS = Edits()


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Facts that the row does not have: paths, numbers and namespaces at present.

    `sources` are host paths by a mount's destination; `files` are the binds of hosts, hostname and resolv.conf; `edits`
    are those of CDI devices; namespaces are PRIVATE, HOST or a path to join, `user_namespace` is a path, or "" for the
    host's.
    """

    rootfs: Path
    sources: Mapping[str, Path]
    files: tuple[Bind, ...] = ()
    user: User = _ROOT
    network: str = PRIVATE
    user_namespace: str = ""
    ipc: str = PRIVATE
    pid: str = PRIVATE
    shm_source: Path | None = None
    security: Security = _DEFAULT_SECURITY
    devices: tuple[Device, ...] = ()
    edits: Edits = _NO_EDITS
    device_rules: tuple[DeviceRule, ...] = ()
    blocks: BlockLimits = _NO_BLOCK_LIMITS
    default_ulimits: tuple[Ulimit, ...] = ()
    init: bool = False
    cgroup_parent: str = ""
    link_variables: tuple[str, ...] = ()
    kept_descriptors: tuple[int, ...] = ()


def plan_container(container: Container, found: Surroundings) -> ContainerPlan:
    """The plan of a container's next run."""
    config, host = container.spec.config, container.spec.host_config
    return ContainerPlan(
        rootfs=found.rootfs,
        args=(container.spec.path, *container.spec.args),
        env=(*plan_env(config, config.hostname, found.link_variables), *found.edits.env),
        cwd=config.working_dir or "/",
        user=replace(found.user, groups=(*found.user.groups, *found.edits.groups)),
        tty=config.tty,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        kept_descriptors=found.kept_descriptors,
        console_size=_console_size(host),
        hostname=config.hostname,
        domainname=config.domainname,
        init=found.init if host.init is None else host.init,
        mounts=plan_binds(container, found),
        readonly_rootfs=host.readonly_rootfs,
        shm_size=None if host.ipc_mode == "none" else host.shm_size,
        shm_source=found.shm_source,
        network=found.network,
        ipc=found.ipc,
        pid=found.pid,
        uts=HOST if host.uts_mode == "host" else PRIVATE,
        cgroupns=host.cgroupns_mode,
        user_namespace=found.user_namespace,
        ids=container.run.ids,
        privileged=host.privileged,
        cap_add=tuple(host.cap_add or ()),
        cap_drop=tuple(host.cap_drop or ()),
        security=found.security,
        masked_paths=None if host.masked_paths is None else tuple(host.masked_paths),
        readonly_paths=None if host.readonly_paths is None else tuple(host.readonly_paths),
        devices=(*found.devices, *found.edits.devices),
        device_rules=found.device_rules,
        resources=plan_resources(host, found.blocks),
        hooks=found.edits.hooks,
        intel_rdt=found.edits.intel_rdt,
        rlimits=plan_rlimits(host.ulimits or (), found.default_ulimits),
        oom_score_adj=host.oom_score_adj,
        sysctls=dict(host.sysctls or {}),
        annotations=dict(host.annotations or {}),
        cgroup_parent=host.cgroup_parent or found.cgroup_parent,
        runtime=container.spec.host_config.runtime,
    )


def plan_env(config: Config, hostname: str, link_variables: Sequence[str] = ()) -> tuple[str, ...]:
    """PATH, HOSTNAME, TERM and variables of links, overridden by the container's; `NAME` without a value removes one.

    HOME is set by the runtime from the image's passwd file, also if it is empty.
    """
    variables = dict([DEFAULT_PATH.split("=", 1), ["HOSTNAME", hostname]])
    if config.tty:
        variables["TERM"] = "xterm"
    for variable in (*link_variables, *(config.env or ())):
        name, given, value = variable.partition("=")
        if given and (value or name != "HOME"):
            variables[name] = value
        else:
            variables.pop(name, None)
    return tuple(f"{name}={value}" for name, value in variables.items())


def _console_size(host: HostConfig) -> tuple[int, int] | None:
    rows, columns = (host.console_size or [0, 0])[:2]
    return (rows, columns) if rows and columns else None


def plan_binds(container: Container, found: Surroundings) -> tuple[Mount, ...]:
    """Binds, volumes and tmpfs, parents first; hosts, hostname and resolv.conf unless a mount covers them."""
    planned: list[Mount] = [
        _plan_mount(point, container.spec.mount_options.get(point.destination, MountOptions()), found.sources)
        for point in container.spec.mounts
    ]
    for destination, options in (container.spec.host_config.tmpfs or {}).items():
        planned.append(Tmpfs(destination=destination, options=tuple(filter(None, options.split(",")))))
    planned.extend(found.edits.mounts)
    covered = {mount.destination for mount in planned}
    read_only = container.spec.host_config.readonly_rootfs
    planned.extend(replace(file, read_only=read_only) for file in found.files if file.destination not in covered)
    return tuple(sorted(planned, key=lambda mount: mount.destination.count("/")))


def _plan_mount(point: MountPoint, options: MountOptions, sources: Mapping[str, Path]) -> Mount:
    if point.type == "tmpfs":
        return Tmpfs(destination=point.destination, options=_tmpfs_options(options.tmpfs, read_only=not point.rw))
    for wrong, text in (
        (options.read_only_non_recursive and point.rw, "!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        (options.read_only_force_recursive and point.rw, "!ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        (
            options.read_only_force_recursive and options.read_only_non_recursive,
            "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
        ),
    ):
        if wrong:
            raise Failed(f"mount options conflict: {text}")
    return Bind(
        source=sources[point.destination],
        destination=point.destination,
        read_only=not point.rw,
        propagation=point.propagation or "rprivate",
        recursive=not options.non_recursive,
        read_only_recursive=not options.read_only_non_recursive,
        read_only_forced=options.read_only_force_recursive,
    )


def _tmpfs_options(options: TmpfsOptions | None, *, read_only: bool) -> tuple[str, ...]:
    words = ["ro"] if read_only else []
    if options is not None and options.mode:
        words.append(f"mode={options.mode:o}")
    if options is not None and options.size_bytes:
        words.append(f"size={options.size_bytes}")
    return tuple(words)


def plan_resources(host: HostConfig, blocks: BlockLimits) -> Resources:
    """The limits of the cgroup."""
    return Resources(
        memory=host.memory,
        memory_reservation=host.memory_reservation,
        memory_swap=host.memory_swap,
        memory_swappiness=host.memory_swappiness,
        oom_kill_disable=bool(host.oom_kill_disable),
        nano_cpus=host.nano_cpus,
        cpu_shares=host.cpu_shares,
        cpu_period_us=host.cpu_period,
        cpu_quota_us=host.cpu_quota,
        cpu_realtime_period_us=host.cpu_realtime_period,
        cpu_realtime_runtime_us=host.cpu_realtime_runtime,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        pids_limit=host.pids_limit,
        blkio_weight=host.blkio_weight,
        blkio_weight_devices=blocks.weights,
        blkio_read_bps=blocks.read_bps,
        blkio_write_bps=blocks.write_bps,
        blkio_read_iops=blocks.read_iops,
        blkio_write_iops=blocks.write_iops,
    )


def parse_device_rule(text: str) -> DeviceRule:
    """A `--device-cgroup-rule`: `TYPE MAJOR:MINOR ACCESS`, with `*` for any number. Raises `InvalidInput`."""
    match = _DEVICE_RULE.fullmatch(text)
    if match is None:
        raise InvalidInput(f"invalid device cgroup rule format: '{text}'", "expected as in 'c 42:* rmw'")
    kind, major, minor, access = match.groups()
    return DeviceRule(
        type=kind,
        major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor),
        access=access,
    )


def plan_rlimits(asked: Sequence[Ulimit], defaults: Iterable[Ulimit]) -> tuple[Rlimit, ...]:
    """The container's own limits, and the daemon's defaults for the others."""
    limits = {limit.name: limit for limit in (*defaults, *asked)}
    return tuple(Rlimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in limits.values())
