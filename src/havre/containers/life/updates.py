"""`update`: changes limits of a container, also while it runs, and its restart policy.

request --plan_update (pure)--> host configuration, validated as at creation --> OCI runtime, then the row

Fields that the request omits (0, "", null) are kept, except that a pids limit of 0 or less removes the limit. If
anything is refused, neither the kernel's limits nor the row change.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from havre.aio import in_thread
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.vocabulary import PolicyChanged
from havre.containers.live import Index, Live
from havre.containers.surroundings.devices import read_block_limits
from havre.containers.surroundings.plan import plan_resources
from havre.containers.validate import HostLimits, check_resources, check_restart_policy
from havre.errors import Conflict, HavreError, InvalidInput
from havre.wire.config import HostConfig

LIMITS = (
    "cpu_shares", "memory", "nano_cpus", "blkio_weight", "blkio_weight_device", "blkio_device_read_bps",
    "blkio_device_write_bps", "blkio_device_read_iops", "blkio_device_write_iops", "cpu_period", "cpu_quota",
    "cpu_realtime_period", "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "memory_reservation", "memory_swap",
    "pids_limit",
)  # fmt: skip
"""The fields of a host configuration that can be updated, besides the restart policy."""


class Updates:
    """Changes containers' limits and restart policies."""

    def __init__(self, index: Index, lifecycle: Lifecycle, limits: HostLimits) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._limits = limits

    async def update(self, ref: str, asked: HostConfig) -> Sequence[str]:
        """Apply the limits and the policy of `asked`; returns warnings. Raises `InvalidInput`, `Conflict`, `Failed`."""
        return await self._update(self._index.get(ref), asked)

    async def _update(self, live: Live, asked: HostConfig) -> Sequence[str]:
        container = live.container
        check_restart_policy(asked)
        async with live.lock:
            self._index.check_sound(live)
            asked = with_memory(asked, container.spec.host_config)
            warnings = check_resources(asked, self._limits)
            if live.removing:
                raise Conflict(f"container {container.id} is marked for removal and cannot be updated")
            try:
                new = plan_update(container.spec.host_config, asked)
                limited = asked.pids_limit is not None or any(getattr(asked, name) for name in LIMITS)
                if live.process is not None and limited:
                    blocks = await in_thread(read_block_limits, asked)
                    await live.process.update(plan_resources(limits_to_apply(new, asked), blocks))
            except HavreError as error:
                raise type(error)(f"Cannot update container {container.id}: {error.message}", error.hint) from None
            container.respecify(host_config=new)
            self._lifecycle.turn(live, PolicyChanged(new.restart_policy))
            await self._index.save(container)
        self._lifecycle.publish(container, "update")
        return warnings


def plan_update(host: HostConfig, asked: HostConfig) -> HostConfig:
    """The configuration after the update. Pure. Raises `InvalidInput` for conflicts with the present one."""
    for given, kept, conflict in (
        (asked.nano_cpus, host.cpu_period, "Nano CPUs cannot be updated as CPU Period"),
        (asked.nano_cpus, host.cpu_quota, "Nano CPUs cannot be updated as CPU Quota"),
        (asked.cpu_period, host.nano_cpus, "CPU Period cannot be updated as NanoCPUs"),
        (asked.cpu_quota, host.nano_cpus, "CPU Quota cannot be updated as NanoCPUs"),
    ):
        if given > 0 and kept > 0:
            raise InvalidInput(f"Conflicting options: {conflict} has already been set")
    if asked.memory_swap == 0 and 0 < host.memory_swap < asked.memory:
        raise InvalidInput(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    if asked.restart_policy.name and host.auto_remove:
        raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
    changes = {name: value for name in LIMITS if (value := getattr(asked, name))}
    if asked.pids_limit is not None:
        changes["pids_limit"] = max(asked.pids_limit, 0)
    if asked.restart_policy.name:
        changes["restart_policy"] = asked.restart_policy
    return replace(host, **changes)


def with_memory(asked: HostConfig, host: HostConfig) -> HostConfig:
    """The request, completed with the present memory limit if it has a swap limit only."""
    return replace(asked, memory=host.memory) if asked.memory_swap and not asked.memory else asked


def limits_to_apply(new: HostConfig, asked: HostConfig) -> HostConfig:
    """The limits to apply: those requested; memory and swap always together, because the kernel compares them."""
    wanted = {name: getattr(asked, name) for name in LIMITS}
    if asked.memory or asked.memory_swap:
        wanted |= {"memory": new.memory, "memory_swap": new.memory_swap}
    return HostConfig(**wanted)
