"""Devices that a container asks for, as the host has them: device nodes, CDI names, and limits of block I/O."""

from __future__ import annotations

import os
from pathlib import Path

from havre.containers.surroundings.plan import BlockLimits
from havre.errors import Failed, InvalidInput
from havre.runtime import read_devices
from havre.runtime.plan import BlockLimit, Device
from havre.wire.config import HostConfig


def read_host_devices(host: HostConfig) -> tuple[Device, ...]:
    """The device nodes requested by path; of a directory, those below it. Blocking."""
    return tuple(
        found
        for device in host.devices or ()
        for found in read_devices(device.path_on_host, device.path_in_container, device.cgroup_permissions)
    )


def cdi_names(host: HostConfig, has_cdi: bool) -> list[str]:
    """The devices requested by CDI name. Raises `Failed` for other device drivers (GPUs): none are supported."""
    names: list[str] = []
    for request in host.device_requests or ():
        if not has_cdi or request.driver != "cdi" or not request.device_ids or request.capabilities:
            wanted = " ".join(f"[{' '.join(every)}]" for every in request.capabilities or ())
            raise Failed(f'could not select device driver "{request.driver}" with capabilities: [{wanted}]')
        names.extend(request.device_ids)
    return names


def read_block_limits(host: HostConfig) -> BlockLimits:
    """The block I/O limits with device numbers. Raises `InvalidInput` for a path that is not a device. Blocking."""
    return BlockLimits(
        weights=tuple(_weight(each.path, each.weight) for each in host.blkio_weight_device or ()),
        read_bps=tuple(_block_limit(each.path, each.rate) for each in host.blkio_device_read_bps or ()),
        write_bps=tuple(_block_limit(each.path, each.rate) for each in host.blkio_device_write_bps or ()),
        read_iops=tuple(_block_limit(each.path, each.rate) for each in host.blkio_device_read_iops or ()),
        write_iops=tuple(_block_limit(each.path, each.rate) for each in host.blkio_device_write_iops or ()),
    )


def _weight(path: str, value: int) -> BlockLimit:
    """A weight for a device; only the bfq scheduler supports weights."""
    limit = _block_limit(path, value)
    queue = Path(f"/sys/dev/block/{limit.major}:{limit.minor}/queue/scheduler")
    schedulers = queue.read_text() if queue.exists() else "none"
    if "[bfq]" not in schedulers:
        problem = f"block I/O weight of {path}: its scheduler is not bfq but {schedulers.strip()}"
        raise InvalidInput(problem, f"echo bfq > /sys/block/{Path(path).name}/queue/scheduler")
    return limit


def _block_limit(path: str, value: int) -> BlockLimit:
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        raise InvalidInput(f"block I/O limit of {path}: {error.strerror}") from error
    return BlockLimit(major=os.major(number), minor=os.minor(number), value=value)
