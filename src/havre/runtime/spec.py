"""Renders a plan as an OCI runtime specification for crun or runc. Pure.

By default a container is confined as in Docker: fourteen capabilities (never inheritable), a seccomp filter, a new /dev
of six nodes, kernel files masked or read-only, sysfs and cgroups read-only, its own namespaces. `privileged` lifts all
of that but the namespaces.

Mount order: the kernel's file systems, /dev/shm, the init, then the plan's own by depth, so that a parent never covers
its child. A mount of the plan replaces a default one at the same destination.

Source: OCI runtime specification, "config.md" and "config-linux.md"; tests compare it with dockerd's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from havre.errors import InvalidInput, Unsupported
from havre.linux.cgroups import Cgroups, clean_group
from havre.runtime.apparmor import choose_profile
from havre.runtime.capabilities import plan_capabilities
from havre.runtime.plan import (
    HOST,
    PRIVATE,
    PROPAGATIONS,
    Bind,
    ContainerPlan,
    Device,
    ExecPlan,
    Hook,
    Mount,
    Tmpfs,
    User,
)
from havre.runtime.resources import render_resources
from havre.runtime.seccomp import DEFAULT_PROFILE, render_seccomp

OCI_VERSION = "1.0.2"
INIT_PATH = "/sbin/docker-init"
DEFAULT_CGROUP_PARENT = "/havre"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_KERNEL_MOUNTS = (
    # destination, type, source, options
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
)
_HARMLESS_IN_PROC = frozenset(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)
_WRITABLE_ON_READONLY_ROOT = ("/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")

_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro"}
_DESCRIPTOR_DIRECTORY = re.compile(r"(proc/(self|thread-self|\d+)|dev)/(task/\d+/)?(fd|cwd|root)")


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """The host's facts in a specification: `capabilities` that the daemon may grant, `devices` for privileged
    containers.

    `recursive_read_only`: the OCI runtime supports the mount option rro. `masked_paths` are those of containers that
    do not name theirs. `time_namespaces`: containers with a PID namespace of their own have a time namespace, too.
    """

    machine: str
    kernel: tuple[int, int]
    capabilities: tuple[str, ...]
    cgroups: Cgroups
    init: Path | None = None
    apparmor_profile: str = ""
    devices: tuple[Device, ...] = ()
    recursive_read_only: bool = True
    masked_paths: tuple[str, ...] = MASKED_PATHS
    time_namespaces: bool = False


def cgroup_path(plan: ContainerPlan, container_id: str) -> str:
    """The cgroup path of a container in each tree; `..` cannot lead above the root."""
    return clean_group(f"{plan.cgroup_parent or DEFAULT_CGROUP_PARENT}/{container_id}")


def render_spec(plan: ContainerPlan, host: HostFacts, container_id: str = "") -> dict[str, Any]:
    """The OCI runtime specification of a container.

    Raises InvalidInput for a contradictory plan, Unsupported for what this host lacks.
    """
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _render_process(plan, host),
        "root": {"path": str(plan.rootfs), **({"readonly": True} if plan.readonly_rootfs else {})},
        "mounts": _render_mounts(plan, host),
        "linux": _render_linux(plan, host, container_id),
    }
    if plan.uts == PRIVATE and plan.hostname:
        spec["hostname"] = plan.hostname
    if plan.annotations:
        spec["annotations"] = dict(plan.annotations)
    if plan.hooks:
        spec["hooks"] = _render_hooks(plan.hooks)
    return spec


def _render_hooks(hooks: Sequence[Hook]) -> dict[str, Any]:
    rendered: dict[str, Any] = {}
    for hook in hooks:
        values = {"args": list(hook.args), "env": list(hook.env), "timeout": hook.timeout_s}
        one = {"path": hook.path, **{name: value for name, value in values.items() if value}}
        rendered.setdefault(hook.when, []).append(one)
    return rendered


def render_exec(plan: ExecPlan, base: Mapping[str, Any], host: HostFacts) -> dict[str, Any]:
    """The `process` object of an exec, from `base`, that of the container."""
    process: dict[str, Any] = {
        **{key: base[key] for key in _INHERITED_BY_EXEC if key in base},
        "terminal": plan.tty,
        "args": list(plan.args),
        "env": merge_env(base["env"], (*(("TERM=xterm",) if plan.tty else ()), *plan.env)),
        "cwd": _check_cwd(plan.cwd or base["cwd"]),
        "user": _render_user(plan.user) if plan.user else base["user"],
    }
    if plan.privileged:
        process["capabilities"] = _render_capabilities(host.capabilities)  # the AppArmor profile stays, as in Docker
    if plan.tty and plan.console_size:
        process["consoleSize"] = _render_size(plan.console_size)
    return process


_INHERITED_BY_EXEC = ("capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "oomScoreAdj")


def merge_env(base: Iterable[str], more: Iterable[str]) -> list[str]:
    """Merge environments: a later NAME=value replaces an earlier one in place; a bare NAME in `more` removes it."""
    merged = {entry.partition("=")[0]: entry for entry in base}
    for entry in more:
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


# --- the process --------------------------------------------------------------------------------------------------


def _render_process(plan: ContainerPlan, host: HostFacts) -> dict[str, Any]:
    args = list(plan.args)
    if not args:
        raise InvalidInput("no command specified")
    if _wants_init(plan):
        args = [INIT_PATH, "--", *args]
    process: dict[str, Any] = {
        "terminal": plan.tty,
        "user": _render_user(plan.user),
        "args": args,
        "env": list(plan.env),
        "cwd": _check_cwd(plan.cwd),
        "capabilities": _render_capabilities(_granted(plan, host)),
        "noNewPrivileges": plan.security.no_new_privileges,
        "oomScoreAdj": plan.oom_score_adj,
    }
    if plan.tty and plan.console_size:
        process["consoleSize"] = _render_size(plan.console_size)
    if plan.rlimits:
        process["rlimits"] = [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": _rlimit(limit.soft), "hard": _rlimit(limit.hard)}
            for limit in plan.rlimits
        ]
    if profile := _apparmor(plan, host):
        process["apparmorProfile"] = profile
    return process


def _wants_init(plan: ContainerPlan) -> bool:
    return plan.init and plan.pid == PRIVATE


def _render_user(user: User) -> dict[str, Any]:
    # The primary group is repeated among the supplementary ones: otherwise a process could drop it and gain access to
    # files that deny that group.
    groups = [user.gid, *(group for group in user.groups if group != user.gid)]
    return {"uid": user.uid, "gid": user.gid, "additionalGids": groups}


def _render_capabilities(names: Sequence[str]) -> dict[str, Any]:
    return {kind: list(names) for kind in ("bounding", "effective", "permitted")}


def _granted(plan: ContainerPlan, host: HostFacts) -> tuple[str, ...]:
    return plan_capabilities(plan.cap_add, plan.cap_drop, plan.privileged, host.capabilities)


def _render_size(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _rlimit(value: int) -> int:
    return value if value >= 0 else 0xFFFFFFFFFFFFFFFF


def _apparmor(plan: ContainerPlan, host: HostFacts) -> str:
    return choose_profile(plan.security.apparmor, privileged=plan.privileged, default=host.apparmor_profile)


def _check_cwd(cwd: str) -> str:
    """Reject working directories through /proc/*/fd: the descriptor may be the runtime's, outside (CVE-2024-21626).

    Every prefix is checked, since `/proc/self/fd/7/..` leaves the descriptor only lexically.
    """
    if not cwd.startswith("/"):
        raise InvalidInput(f"the working directory '{cwd}' is invalid, it needs to be an absolute path")
    leading = "/"
    for part in cwd.split("/"):
        leading = posixpath.normpath(posixpath.join(leading, part))
        if _DESCRIPTOR_DIRECTORY.fullmatch(leading.lstrip("/")):
            raise InvalidInput(f"the working directory '{cwd}' is refused: it leads through a process's descriptors")
    return cwd


# --- mounts -------------------------------------------------------------------------------------------------------


def check_destination(destination: str, resolved: str) -> None:
    """Reject a mount on or below /proc, where it could fake the kernel's files (CVE-2019-16884).

    `resolved` is where the destination leads in the image, through its links. A few files that lxcfs replaces are
    allowed.
    InvalidInput, in runc's words; crun does not check.
    """
    if resolved == "/proc" or (resolved.startswith("/proc/") and resolved not in _HARMLESS_IN_PROC):
        raise InvalidInput(f'"{destination}" cannot be mounted because it is inside /proc')


def _render_mounts(plan: ContainerPlan, host: HostFacts) -> list[dict[str, Any]]:
    own = sorted(plan.mounts, key=lambda mount: posixpath.normpath(mount.destination).count("/"))
    taken = {posixpath.normpath(mount.destination) for mount in own}
    defaults = [*_kernel_mounts(plan, host), *([] if plan.shm_size is None else [_shm(plan)])]
    kept = [
        mount
        for mount in defaults
        if mount["destination"] not in taken and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    if _wants_init(plan):
        if host.init is None:
            raise Unsupported("no init program is installed", "install the package catatonit")
        kept.append(_mount(INIT_PATH, "bind", str(host.init), ("bind", "ro")))
    return kept + [_render_mount(mount, host) for mount in own] + _guard(plan)


def _guard(plan: ContainerPlan) -> list[dict[str, Any]]:
    """Where /dev/null inside is the host's, a read-only mount over it: crun would chown it to the user.

    Not where mounts made inside would propagate to the host.
    """
    binds = [mount for mount in plan.mounts if isinstance(mount, Bind)]
    shown = {str(bind.source) for bind in binds if str(bind.source) == posixpath.normpath(bind.destination)}
    is_root = plan.user.uid == plan.user.gid == 0
    if is_root or not shown & {"/dev", "/dev/null"} or _rootfs_propagation(plan) == "shared":
        return []
    return [_mount("/dev/null", "bind", "/dev/null", ("bind", "ro", "rprivate"))]


def _kernel_mounts(plan: ContainerPlan, host: HostFacts) -> list[dict[str, Any]]:
    mounts = [
        _mount(destination, kind, source, _kernel_options(plan, destination, options))
        for destination, kind, source, options in _KERNEL_MOUNTS
    ]
    if host.cgroups.layout == "v2" and _cgroupns(plan, host) == HOST:
        # A new cgroup2 mount from the host's namespace resets the options of all cgroup2 mounts: the host would lose
        # nsdelegate and memory_recursiveprot (cgroup-v2.rst, "Mounting").
        cgroup = next(mount for mount in mounts if mount["type"] == "cgroup")
        cgroup |= {"type": "bind", "source": str(host.cgroups.trees[""])}
        cgroup["options"] = ["bind", *cgroup["options"], "rprivate"]
    return mounts


def _kernel_options(plan: ContainerPlan, destination: str, options: tuple[str, ...]) -> tuple[str, ...]:
    if plan.readonly_rootfs:
        stays_writable = destination in _WRITABLE_ON_READONLY_ROOT
        options = options if stays_writable or "ro" in options else (*options, "ro")
    writable = plan.privileged and not plan.readonly_rootfs
    if destination == "/sys/fs/cgroup" and plan.security.writable_cgroups is not None:
        writable = plan.security.writable_cgroups
    return tuple(option for option in options if option != "ro") if writable else options


def _shm(plan: ContainerPlan) -> dict[str, Any]:
    if plan.shm_source or plan.ipc == HOST:
        return _mount("/dev/shm", "bind", str(plan.shm_source or "/dev/shm"), ("rbind", "rprivate"))
    options = ("nosuid", "noexec", "nodev", "mode=1777", f"size={plan.shm_size}")
    return _mount("/dev/shm", "tmpfs", "shm", options)


def _render_mount(mount: Mount, host: HostFacts) -> dict[str, Any]:
    if isinstance(mount, Tmpfs):
        options = merge_tmpfs_options(mount.options)
        return _mount(mount.destination, "tmpfs", "tmpfs", options)
    return _mount(mount.destination, "bind", str(mount.source), _bind_options(mount, host))


def _bind_options(bind: Bind, host: HostFacts) -> tuple[str, ...]:
    if bind.propagation not in PROPAGATIONS:
        raise InvalidInput(
            f"invalid mount propagation: {bind.propagation!r}, expected one of {', '.join(PROPAGATIONS)}"
        )
    options = ["rbind" if bind.recursive else "bind"]
    if bind.read_only:
        able = host.kernel >= (5, 12) and host.recursive_read_only
        if bind.read_only_forced and not able:
            raise Unsupported(
                f"what is mounted below {bind.destination} cannot be made read-only",
                "it takes Linux 5.12 and an OCI runtime with the mount option rro",
            )
        recursively = bind.recursive and bind.read_only_recursive and able
        options.append("rro" if recursively else "ro")
    # crun takes any propagation that begins with "r" as recursive, and then binds recursively
    propagation = bind.propagation if bind.recursive else bind.propagation.removeprefix("r")
    return (*options, *bind.restrictions, propagation)


def merge_tmpfs_options(options: Sequence[str]) -> tuple[str, ...]:
    """A tmpfs' options: adds noexec, nosuid, nodev unless their opposites are given."""
    merged = ["noexec", "nosuid", "nodev"]
    for option in options:
        negative = _OPPOSITES.get(option)
        positive = next((word for word, opposite in _OPPOSITES.items() if opposite == option), None)
        merged = [word for word in merged if word not in (option, negative, positive)]
        merged.append(option)
    return (*merged, "rprivate")


def _mount(destination: str, kind: str, source: str, options: Iterable[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


# --- namespaces, devices, confinement ---------------------------------------------------------------------------------


def _render_linux(plan: ContainerPlan, host: HostFacts, container_id: str) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "namespaces": _render_namespaces(plan, host),
        "cgroupsPath": cgroup_path(plan, container_id),
        "resources": render_resources(plan, host.cgroups),
        "devices": [_render_device(device) for device in (*plan.devices, *(host.devices if plan.privileged else ()))],
        "sysctl": _render_sysctls(plan),
    }
    if not (plan.privileged or plan.security.unmasked):
        linux["maskedPaths"] = list(host.masked_paths if plan.masked_paths is None else plan.masked_paths)
        linux["readonlyPaths"] = list(READONLY_PATHS if plan.readonly_paths is None else plan.readonly_paths)
    seccomp = _seccomp(plan, host)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    if plan.intel_rdt is not None:
        linux["intelRdt"] = dict(plan.intel_rdt)
    if propagation := _rootfs_propagation(plan):
        linux["rootfsPropagation"] = propagation
    return linux


def _render_namespaces(plan: ContainerPlan, host: HostFacts) -> list[dict[str, str]]:
    wanted = (
        ("user", plan.user_namespace or HOST),
        ("mount", PRIVATE),
        ("network", plan.network),
        ("uts", plan.uts),
        ("pid", plan.pid),
        ("ipc", plan.ipc),
        ("cgroup", _cgroupns(plan, host)),
        ("time", PRIVATE if host.time_namespaces and plan.pid == PRIVATE else HOST),
    )
    return [
        {"type": kind} if mode == PRIVATE else {"type": kind, "path": mode} for kind, mode in wanted if mode != HOST
    ]


def _cgroupns(plan: ContainerPlan, host: HostFacts) -> str:
    return plan.cgroupns or (PRIVATE if host.cgroups.layout == "v2" and not plan.privileged else HOST)


def _render_sysctls(plan: ContainerPlan) -> dict[str, str]:
    defaults = {}
    if plan.network != HOST:
        last_group = plan.ids.count - 1 if plan.ids else 2147483647
        defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last_group}"}
    if plan.domainname and plan.uts == PRIVATE:
        defaults["kernel.domainname"] = plan.domainname
    return {**defaults, **plan.sysctls}


def _render_device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _seccomp(plan: ContainerPlan, host: HostFacts) -> dict[str, Any] | None:
    profile = plan.security.seccomp
    if profile == "unconfined" or (profile is None and plan.privileged):
        return None
    if isinstance(profile, str):
        raise InvalidInput(f"invalid seccomp profile: {profile!r}")
    chosen = DEFAULT_PROFILE if profile is None else profile
    return render_seccomp(chosen, capabilities=_granted(plan, host), machine=host.machine, kernel=host.kernel)


def _rootfs_propagation(plan: ContainerPlan) -> str:
    words = {mount.propagation for mount in plan.mounts if isinstance(mount, Bind)}
    if words & {"shared", "rshared"}:
        return "shared"
    return "rslave" if words & {"slave", "rslave"} else ""
