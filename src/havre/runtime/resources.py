"""Renders a plan's device rules and limits as the `resources` of an OCI runtime specification. Pure.

Source: OCI runtime specification, "config-linux.md"; tests compare it with dockerd's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from havre.linux.cgroups import Cgroups
from havre.runtime.plan import BlockLimit, ContainerPlan, DeviceRule, Resources

DEFAULT_CPU_PERIOD_US = 100_000

# Devices that every container may use: zero, null, urandom, random, tty, console; fuse is denied by name.
_DEVICE_RULES = (
    *(DeviceRule(type="c", major=1, minor=minor) for minor in (5, 3, 9, 8)),
    DeviceRule(type="c", major=5, minor=0),
    DeviceRule(type="c", major=5, minor=1),
)
_FUSE = (10, 229)


def render_resources(plan: ContainerPlan, cgroups: Cgroups) -> dict[str, Any]:
    """The OCI `resources` of a container: which devices it may use, and its limits."""
    return {"devices": _render_device_rules(plan), **render_limits(plan.resources, cgroups)}


def render_limits(limits: Resources, cgroups: Cgroups) -> dict[str, Any]:
    """The OCI `resources` without device rules; unset limits, and those that `cgroups` do not support, are omitted."""
    parts = {
        "memory": _memory(limits, cgroups),
        "cpu": _cpu(limits),
        "blockIO": _block_io(limits, cgroups),
        "pids": {"limit": limits.pids_limit} if limits.pids_limit and limits.pids_limit > 0 else {},
    }
    return {name: part for name, part in parts.items() if part}


def _render_device_rules(plan: ContainerPlan) -> list[dict[str, Any]]:
    if plan.privileged:
        return [{"allow": True, "access": "rwm"}]
    allowed = [
        *_DEVICE_RULES,
        *(DeviceRule(type=d.type, major=d.major, minor=d.minor, access=d.access) for d in plan.devices),
        *plan.device_rules,
    ]
    deny_fuse = {"allow": False, "type": "c", "major": _FUSE[0], "minor": _FUSE[1], "access": "rwm"}
    rules = [{"allow": False, "access": "rwm"}, deny_fuse]
    return rules + [_render_rule(rule) for rule in allowed]


def _render_rule(rule: DeviceRule) -> dict[str, Any]:
    rendered: dict[str, Any] = {"allow": True, "type": rule.type, "access": rule.access}
    if rule.major is not None:
        rendered["major"] = rule.major
    if rule.minor is not None:
        rendered["minor"] = rule.minor
    return rendered


def _memory(limits: Resources, cgroups: Cgroups) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    if limits.memory > 0:
        memory["limit"] = limits.memory
    if limits.memory_reservation > 0:
        memory["reservation"] = limits.memory_reservation
    swap = limits.memory_swap or 2 * limits.memory
    if swap and cgroups.swap_limit:
        memory["swap"] = swap
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0 and cgroups.layout != "v2":
        memory["swappiness"] = limits.memory_swappiness
    if limits.oom_kill_disable and cgroups.layout != "v2":
        memory["disableOOMKiller"] = True
    return memory


def _cpu(limits: Resources) -> dict[str, Any]:
    quota, period = limits.cpu_quota_us, limits.cpu_period_us
    if limits.nano_cpus > 0:
        period = DEFAULT_CPU_PERIOD_US
        quota = limits.nano_cpus * period // 1_000_000_000
    values: dict[str, Any] = {
        "shares": limits.cpu_shares,
        "quota": quota,
        "period": period,
        "realtimePeriod": limits.cpu_realtime_period_us,
        "realtimeRuntime": limits.cpu_realtime_runtime_us,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
    }
    return {name: value for name, value in values.items() if value}


def _block_io(limits: Resources, cgroups: Cgroups) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "throttleReadBpsDevice": _block_limits(limits.blkio_read_bps, "rate"),
        "throttleWriteBpsDevice": _block_limits(limits.blkio_write_bps, "rate"),
        "throttleReadIOPSDevice": _block_limits(limits.blkio_read_iops, "rate"),
        "throttleWriteIOPSDevice": _block_limits(limits.blkio_write_iops, "rate"),
    }
    if cgroups.blkio_weight:
        rendered["weight"] = limits.blkio_weight
        rendered["weightDevice"] = _block_limits(limits.blkio_weight_devices, "weight")
    return {name: value for name, value in rendered.items() if value}


def _block_limits(limits: Sequence[BlockLimit], name: str) -> list[dict[str, int]]:
    return [{"major": limit.major, "minor": limit.minor, name: limit.value} for limit in limits]
