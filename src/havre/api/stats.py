"""Statistics of containers in Docker's shape, once or as a stream.

Source: Docker Engine API, "ContainerStats". Fields that the cgroup version does not provide are omitted, as by
dockerd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.containers.streams.stats import Figures, Reading
from havre.linux.usage import Block, Interface, Usage
from havre.wire.times import rfc3339
from havre.wire.values import ZERO_TIME

_BLOCK_LISTS = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip


def present_figures(figures: Figures) -> dict[str, Any]:
    """A reading in Docker's shape."""
    now, before = figures.now, figures.before
    shown: dict[str, Any] = {
        "read": _time(now),
        "preread": _time(before),
        "pids_stats": _pids(now.usage) if now.usage else {},
        "blkio_stats": _blocks(now.usage),
        "os_type": "linux",
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now.usage) if now.usage else {},
    }
    if figures.id:
        shown |= {"name": f"/{figures.name}", "id": figures.id}
    if now.interfaces:
        shown["networks"] = {name: _interface(each) for name, each in now.interfaces.items()}
    return shown


def _time(reading: Reading) -> str:
    return rfc3339(reading.at_ns) if reading.at_ns else ZERO_TIME


def _pids(usage: Usage) -> dict[str, int]:
    return {"current": usage.pids} | ({"limit": usage.pids_limit} if usage.pids_limit else {})


def _cpu(reading: Reading) -> dict[str, Any]:
    usage = reading.usage
    if usage is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    spent: dict[str, Any] = {
        "total_usage": usage.cpu_ns,
        "usage_in_kernelmode": usage.cpu_system_ns,
        "usage_in_usermode": usage.cpu_user_ns,
    }
    if usage.cpu_each_ns:
        spent["percpu_usage"] = usage.cpu_each_ns
    return {
        "cpu_usage": spent,
        "system_cpu_usage": reading.host_cpu_ns,
        "online_cpus": reading.cpus,
        "throttling_data": {
            "periods": usage.periods,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_ns,
        },
    }


def _memory(usage: Usage) -> dict[str, Any]:
    peak = {} if usage.memory_peak is None else {"max_usage": usage.memory_peak}
    return {"usage": usage.memory, **peak, "stats": usage.memory_detail, "limit": usage.memory_limit}


def _blocks(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return dict.fromkeys(_BLOCK_LISTS)
    empty: dict[str, Any] = {name: [] for name in _BLOCK_LISTS}
    return empty | {
        "io_service_bytes_recursive": _block_list(usage.io_bytes),
        "io_serviced_recursive": _block_list(usage.io_operations),
    }


def _block_list(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    return [{"major": each.major, "minor": each.minor, "op": each.op, "value": each.value} for each in blocks]


def _interface(each: Interface) -> dict[str, int]:
    names = ("bytes", "packets", "errors", "dropped")
    received = {f"rx_{name}": value for name, value in zip(names, each.rx, strict=True)}
    return received | {f"tx_{name}": value for name, value in zip(names, each.tx, strict=True)}


async def _stats(call: Call) -> web.StreamResponse:
    stream, one_shot = call.flag("stream", True), call.flag("one-shot")
    stats = call.services.stats
    stats.check(call.name, stream=stream, one_shot=one_shot)
    if not stream:
        return call.json(present_figures(await stats.once(call.name, one_shot=one_shot)))
    response = await call.stream()
    async for figures in stats.stream(call.name):
        await response.write(msgspec.json.encode(present_figures(figures)) + b"\n")
    return response


def register(router: Router) -> None:
    """Add the route of statistics."""
    router.add("GET", "/containers/{name}/stats", _stats)
