"""`update`: limits of a running container, seen inside its control group, and the restart policy."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine
from support.raw import Reply, ask
from support.waiting import until


@pytest.fixture
def limited(engine: Engine) -> Iterator[str]:
    """A running container with 64 MB."""
    engine.out("run", "-d", "--name", "limited", "-m", "64m", "busybox", "sleep", "1000")
    yield "limited"
    engine.docker("rm", "-f", "limited")


def update(engine: Engine, name: str, **fields: Any) -> Reply:
    return ask(engine.socket, "POST", f"/containers/{name}/update", fields)


def limit(engine: Engine, name: str, v1: str, v2: str) -> str:
    """What the kernel says of a container's limit: a file of v1 (controller/name) or v2."""
    pid = engine.out("inspect", "--format", "{{.State.Pid}}", name)
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        controller, _, file = v1.partition("/")
        if controller in controllers.split(","):
            return (Path("/sys/fs/cgroup") / controller / group.lstrip("/") / file).read_text().strip()
    return (Path("/sys/fs/cgroup") / group.lstrip("/") / v2).read_text().strip()


def host_config(engine: Engine, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(engine.out("inspect", "--format", "{{json .HostConfig}}", name))
    return value


def test_limits_reach_the_kernel(engine: Engine, limited: str) -> None:
    engine.docker("update", "-m", "96m", "--cpu-shares", "512", "--pids-limit", "20", limited, check=0)
    assert limit(engine, limited, "memory/memory.limit_in_bytes", "memory.max") == str(96 << 20)
    assert limit(engine, limited, "pids/pids.max", "pids.max") == "20"
    if (shares := limit(engine, limited, "cpu/cpu.shares", "cpu.weight")) != "20":
        assert shares == "512"
    engine.docker("update", "-m", "256m", "--memory-swap", "512m", "--cpus", "0.5", limited, check=0)
    assert limit(engine, limited, "memory/memory.limit_in_bytes", "memory.max") == str(256 << 20)
    assert limit(engine, limited, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert limit(engine, limited, "pids/pids.max", "pids.max") == "20"
    engine.docker("update", "--pids-limit", "-1", "--cpuset-cpus", "0", limited, check=0)
    assert limit(engine, limited, "pids/pids.max", "pids.max") == "max"
    shown = host_config(engine, limited)
    assert (shown["Memory"], shown["NanoCpus"], shown["CpuShares"]) == (256 << 20, 500_000_000, 512)
    assert shown["CpusetCpus"] == "0"


def test_swap_alone(engine: Engine, limited: str) -> None:
    """It goes with the memory that is set; without any it is refused, by the kernel or before."""
    engine.docker("update", "--memory-swap", "100m", limited, check=0)
    shown = host_config(engine, limited)
    assert (shown["Memory"], shown["MemorySwap"]) == (64 << 20, 100 << 20)
    v1, v2 = (100 << 20, 36 << 20)  # of v1 it counts memory, too
    assert limit(engine, limited, "memory/memory.memsw.limit_in_bytes", "memory.swap.max") in (str(v1), str(v2))
    assert update(engine, limited, MemorySwap=32 << 20).status >= 400
    assert host_config(engine, limited)["MemorySwap"] == 100 << 20
    engine.docker("run", "-d", "--name", "free", "busybox", "sleep", "1000", check=0)
    assert update(engine, "free", MemorySwap=100 << 20).status >= 400
    engine.docker("rm", "-f", "free", check=0)


def test_of_a_stopped_container(engine: Engine, limited: str) -> None:
    engine.docker("stop", "-t", "0", limited, check=0)
    assert engine.out("update", "-m", "32m", limited) == limited
    engine.docker("start", limited, check=0)
    assert limit(engine, limited, "memory/memory.limit_in_bytes", "memory.max") == str(32 << 20)


def test_refusals_change_nothing(engine: Engine, limited: str) -> None:
    assert update(engine, limited, Memory=1).message == "Minimum memory limit allowed is 6MB"
    assert update(engine, limited, CpusetCpus="999").message.startswith("Requested CPUs are not available")
    assert "unknown policy 'nope'" in update(engine, limited, RestartPolicy={"Name": "nope"}).message
    assert "already set memoryswap limit" in update(engine, limited, Memory=1 << 30).message
    assert update(engine, limited, NanoCpus=500_000_000).json == {"Warnings": None}
    conflict = "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
    assert update(engine, limited, CpuQuota=20000).message.endswith(conflict)
    assert update(engine, "none").status == 404
    assert host_config(engine, limited)["Memory"] == 64 << 20


def test_restart_policy(engine: Engine, limited: str) -> None:
    engine.docker("update", "--restart", "on-failure:3", limited, check=0)
    assert host_config(engine, limited)["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    engine.docker("update", "--restart", "always", limited, check=0)
    first = engine.out("inspect", "--format", "{{.State.Pid}}", limited)
    os.kill(int(first), signal.SIGKILL)
    form = "{{.State.Running}} {{.State.Pid}}"
    until(lambda: engine.out("inspect", "--format", form, limited) not in (f"true {first}", "true 0"), "another run")
    until(lambda: engine.out("inspect", "--format", "{{.State.Status}}", limited) == "running", "the restart")
    engine.docker("update", "--restart", "no", limited, check=0)


def test_policy_and_automatic_removal_contradict(engine: Engine) -> None:
    engine.out("run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "1000")
    refused = update(engine, "passing", RestartPolicy={"Name": "always"})
    assert refused.status == 409
    assert refused.message.endswith("Restart policy cannot be updated because AutoRemove is enabled for the container")
    engine.docker("rm", "-f", "passing", check=0)
    until(lambda: engine.docker("inspect", "passing").returncode, "the removal")


def test_a_restart_that_is_waited_for_comes_whatever_the_new_policy(engine: Engine) -> None:
    def seen() -> tuple[str, int]:
        state = ask(engine.socket, "GET", "/containers/fails/json").json
        return state["State"]["Status"], state["RestartCount"]

    began = time.time()
    engine.out("run", "-d", "--name", "fails", "--restart", "always", "busybox", "false")
    until(lambda: seen() == ("restarting", 4), "the fourth restart, which is 0.8 s away")
    assert update(engine, "fails", RestartPolicy={"Name": "no"}).status == 200
    until(lambda: seen()[0] == "exited", "the end of restarts")
    assert seen() == ("exited", 4)
    window = ("--since", f"{began:.9f}", "--until", f"{time.time():.9f}", "--filter", "event=start")
    assert len(engine.out("events", *window, "--filter", "container=fails").splitlines()) == 5
    engine.out("rm", "fails")
