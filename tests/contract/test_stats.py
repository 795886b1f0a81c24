"""`stats`: figures in docker's shape, that are those of the container and of nothing else."""

from __future__ import annotations

import json
import time
from typing import Any

from support.engines import Engine
from support.raw import ask, streaming
from support.waiting import until

BUSY = "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>/dev/null; touch /ready; while :; do :; done"
BLOCKS = {
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
}  # fmt: skip


def test_figures_of_a_busy_container(engine: Engine) -> None:
    identifier = engine.out(
        "run", "-d", "--name", "busy", "-m", "100m", "--pids-limit", "50", "busybox", "sh", "-c", BUSY
    )
    until(lambda: engine.docker("exec", "busy", "test", "-e", "/ready").returncode == 0, "the container")
    shown: dict[str, Any] = ask(engine.socket, "GET", "/containers/busy/stats?stream=false").json
    assert (shown["id"], shown["name"]) == (identifier, "/busy")
    assert shown["read"] > shown["preread"] > "2020"
    now, before = shown["cpu_stats"], shown["precpu_stats"]
    spent = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now["system_cpu_usage"] - before["system_cpu_usage"]
    assert 0.02 < spent / passed * now["online_cpus"] <= 1.3
    assert now["cpu_usage"]["usage_in_usermode"] + now["cpu_usage"]["usage_in_kernelmode"] > 0
    memory = shown["memory_stats"]
    assert memory["limit"] == 100 << 20
    assert 20 << 20 <= memory["usage"] < 60 << 20
    assert {"inactive_file", "active_file", "pgfault"} <= set(memory["stats"])
    assert shown["pids_stats"] == {"current": 1, "limit": 50}
    assert set(shown["blkio_stats"]) == BLOCKS
    assert set(shown["networks"]) == {"eth0"}
    assert set(shown["networks"]["eth0"]) == {
        f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors", "dropped")
    }
    form = "{{.Name}} {{.ID}} {{.MemUsage}} {{.PIDs}}"
    name, short, used, *_, pids = engine.out("stats", "--no-stream", "--format", form, "busy").split()
    assert (name, short, pids) == ("busy", identifier[:12], "1")
    assert 20 <= float(used.removesuffix("MiB")) < 60
    engine.docker("rm", "-f", "busy", check=0)


def test_one_shot_and_what_does_not_run(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "quiet", "--network", "host", "busybox", "sleep", "1000")
    shown = ask(engine.socket, "GET", "/containers/quiet/stats?stream=0&one-shot=1").json
    assert shown["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert "networks" not in shown
    both = ask(engine.socket, "GET", "/containers/quiet/stats?stream=1&one-shot=1")
    assert (both.status, both.message) == (400, "cannot have stream=true and one-shot=true")
    assert ask(engine.socket, "GET", "/containers/none/stats").status == 404
    engine.docker("stop", "-t", "0", "quiet", check=0)
    stopped = ask(engine.socket, "GET", "/containers/quiet/stats?stream=0").json
    assert (stopped["read"], stopped["pids_stats"], stopped["memory_stats"]) == ("0001-01-01T00:00:00Z", {}, {})
    engine.docker("rm", "quiet", check=0)


def test_a_stream_ends_with_the_removal_not_with_the_next_reading(engine: Engine) -> None:
    delays_s = []
    for _ in range(3):
        engine.out("create", "--name", "leaving", "busybox")
        with streaming(engine.socket, "GET", "/containers/leaving/stats?stream=1") as answer:
            answer.readline()
            read = time.monotonic()
            ask(engine.socket, "DELETE", "/containers/leaving")
            assert not answer.read()
        delays_s.append(time.monotonic() - read)
    assert min(delays_s) < 0.5


def test_network_figures_follow_the_traffic(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "talker", "busybox", "sleep", "1000")

    def received() -> int:
        shown = ask(engine.socket, "GET", "/containers/talker/stats?stream=0&one-shot=1").json
        return int(shown["networks"]["eth0"]["rx_bytes"])

    before = received()
    gateway = engine.out("inspect", "--format", "{{.NetworkSettings.Gateway}}", "talker")
    engine.docker("exec", "talker", "ping", "-c", "2", "-i", "0.2", "-s", "1000", gateway, check=0)
    assert received() - before >= 2000
    engine.docker("rm", "-f", "talker", check=0)


def test_our_command_line_shows_the_same(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "busy", "busybox", "sh", "-c", "while :; do :; done")
    row = json.loads(havred.havre("stats", "--no-stream", "--format", "json", "busy", check=0).stdout)
    assert (row["Name"], row["PIDs"]) == ("busy", "1")
    assert float(row["CPUPerc"].removesuffix("%")) > 2
    table = havred.havre("stats", "--no-stream", check=0).stdout
    assert table.split("\n")[0].split()[:3] == ["CONTAINER", "ID", "NAME"]
    havred.docker("rm", "-f", "busy", check=0)


def test_our_command_line_shows_limits(havred: Engine) -> None:
    options = ("--pids-limit", "55", "--cpus", "0.05")
    havred.out("run", "-d", "--name", "held", *options, "busybox", "sh", "-c", "while :; do :; done")
    form = ("stats", "--no-stream", "--format", "{{.PIDsLimit}} {{.CPUThrottled}}", "held")
    limit, throttled = havred.havre(*form, check=0).stdout.split()
    assert limit == "55"
    assert float(throttled.removesuffix("%")) > 20
    havred.docker("rm", "-f", "held", check=0)


def test_a_child_killed_for_want_of_memory_is_told_while_the_container_runs(engine: Engine) -> None:
    begun = engine.out("info", "--format", "{{.SystemTime}}")
    script = "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000"
    limits = ("-m", "32m", "--memory-swap", "32m")
    engine.out("run", "-d", "--name", "hungry", *limits, "busybox", "sh", "-c", script)
    form = "{{.State.OOMKilled}} {{.State.Status}}"
    until(lambda: engine.out("inspect", "--format", form, "hungry") == "true running", "the kernel's kill")
    window = ("--since", begun, "--until", engine.out("info", "--format", "{{.SystemTime}}"))
    told = engine.out("events", *window, "--filter", "container=hungry", "--format", "{{.Action}}").splitlines()
    assert "oom" in told
    engine.docker("rm", "-f", "hungry", check=0)
