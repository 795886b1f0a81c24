"""Resource usage of a control group on v1, v2 and hybrid hosts, and traffic of a network namespace's interfaces.

    figure      v1 (and hybrid)                                    v2
    CPU         cpuacct.usage, cpuacct.usage_percpu, .stat          cpu.stat (usage_usec, user_usec, system_usec)
    throttling  cpu.stat                                            cpu.stat
    memory      memory.usage_in_bytes, .max_usage_in_bytes, .stat   memory.current, memory.stat
    block I/O   blkio.throttle.io_*_recursive                       io.stat
    processes   pids.current, pids.max                              the same

Hybrid hosts have v1's controllers and files. A missing file (the controller is not mounted, the group was removed)
counts as empty. Blocking.

Source: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst; proc_stat(5), proc_pid_net(5).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from havre.linux.cgroups import Cgroups, below

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_MEMORY_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True, slots=True)
class Block:
    """One counter of a block device: `op` is the kernel's word for the direction, `value` bytes or operations."""

    major: int
    minor: int
    op: str
    value: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Times in nanoseconds, memory in bytes. `memory_limit` is the host's memory without a limit.

    `pids_limit` 0 is unlimited. `memory_peak` None and `cpu_each_ns` () mean that this layout does not report them.
    """

    cpu_ns: int
    cpu_user_ns: int
    cpu_system_ns: int
    cpu_each_ns: tuple[int, ...]
    periods: int
    throttled_periods: int
    throttled_ns: int
    memory: int
    memory_peak: int | None
    memory_limit: int
    memory_detail: dict[str, int]
    pids: int
    pids_limit: int
    io_bytes: tuple[Block, ...] = ()
    io_operations: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Interface:
    """Traffic counters of one interface."""

    rx: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))
    """Bytes, packets, errors, dropped."""
    tx: tuple[int, int, int, int] = field(default=(0, 0, 0, 0))


def read_usage(cgroups: Cgroups, group: str) -> Usage:
    """Read the usage of `group` (as in `/havre/ID`)."""
    if cgroups.layout == "v2":
        return _read_v2(below(cgroups.trees[""], group))
    trees = {name: below(tree, group) for name, tree in cgroups.trees.items()}
    return _read_v1(trees)


def _read_v1(trees: dict[str, Path]) -> Usage:
    nowhere = Path("/nonexistent")
    accounting, memory = trees.get("cpuacct", nowhere), trees.get("memory", nowhere)
    blocks, pids = trees.get("blkio", nowhere), trees.get("pids", nowhere)
    ticks = _pairs(accounting / "cpuacct.stat")
    throttling = _pairs(trees.get("cpu", nowhere) / "cpu.stat")
    return Usage(
        cpu_ns=_number(accounting / "cpuacct.usage"),
        cpu_user_ns=ticks.get("user", 0) * _TICK_NS,
        cpu_system_ns=ticks.get("system", 0) * _TICK_NS,
        cpu_each_ns=tuple(int(each) for each in _text(accounting / "cpuacct.usage_percpu").split()),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
        memory=_number(memory / "memory.usage_in_bytes"),
        memory_peak=_number(memory / "memory.max_usage_in_bytes"),
        memory_limit=_limit(memory / "memory.limit_in_bytes"),
        memory_detail=_pairs(memory / "memory.stat"),
        pids=_number(pids / "pids.current"),
        pids_limit=_number(pids / "pids.max"),
        io_bytes=_blocks_v1(blocks / "blkio.throttle.io_service_bytes_recursive"),
        io_operations=_blocks_v1(blocks / "blkio.throttle.io_serviced_recursive"),
    )


def _read_v2(group: Path) -> Usage:
    cpu = _pairs(group / "cpu.stat")
    io = _text(group / "io.stat")
    return Usage(
        cpu_ns=cpu.get("usage_usec", 0) * 1000,
        cpu_user_ns=cpu.get("user_usec", 0) * 1000,
        cpu_system_ns=cpu.get("system_usec", 0) * 1000,
        cpu_each_ns=(),
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory=_number(group / "memory.current"),
        memory_peak=None,
        memory_limit=_limit(group / "memory.max"),
        memory_detail=_pairs(group / "memory.stat"),
        pids=_number(group / "pids.current"),
        pids_limit=_number(group / "pids.max"),
        io_bytes=parse_io_stat(io, {"rbytes": "read", "wbytes": "write"}),
        io_operations=parse_io_stat(io, {"rios": "read", "wios": "write"}),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def _number(file: Path) -> int:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else 0  # "max"


def _limit(file: Path) -> int:
    return min(_number(file) or _MEMORY_BYTES, _MEMORY_BYTES)


def _pairs(file: Path) -> dict[str, int]:
    return {key: int(value) for key, _, value in (line.partition(" ") for line in _text(file).splitlines())}


def _blocks_v1(file: Path) -> tuple[Block, ...]:
    """Parse lines like `8:0 Read 4096`; the sum at the end has no device and is skipped."""
    lines = (line.split() for line in _text(file).splitlines())
    return tuple(Block(*_device(words[0]), words[1], int(words[2])) for words in lines if len(words) == 3)


def parse_io_stat(text: str, wanted: dict[str, str]) -> tuple[Block, ...]:
    """Parse lines like `8:0 rbytes=4096 wbytes=0 rios=1 ...`; `wanted` maps the keys to the words for `op`."""
    found = []
    for line in text.splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        found += [Block(*_device(device), op, int(values[key])) for key, op in wanted.items() if key in values]
    return tuple(found)


def _device(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)


def read_interfaces(pid: int) -> dict[str, Interface]:
    """Interfaces, without loopback, of the network namespace of process `pid`; empty when it has ended."""
    try:
        text = Path(f"/proc/{pid}/net/dev").read_text()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL):  # EINVAL: a zombie has no network namespace
            raise
        return {}
    return parse_net_dev(text)


def parse_net_dev(text: str) -> dict[str, Interface]:
    """Parse /proc/PID/net/dev: two heading lines, then `name:` and eight counters each for receive and transmit."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, figures = line.partition(":")
        numbers = [int(each) for each in figures.split()]
        if (name := name.strip()) != "lo":
            rx, tx = numbers[0:4], numbers[8:12]
            found[name] = Interface((rx[0], rx[1], rx[2], rx[3]), (tx[0], tx[1], tx[2], tx[3]))
    return found


def read_host_cpu() -> tuple[int, int]:
    """The time all CPUs spent in any state, idle included, in nanoseconds; and the number of CPUs."""
    lines = Path("/proc/stat").read_text().splitlines()
    ticks = sum(int(each) for each in lines[0].split()[1:8])
    return ticks * _TICK_NS, sum(1 for line in lines[1:] if line.startswith("cpu"))
