"""Limits, figures and devices on cgroup v2: what containers ask for, as the kernel's own files tell it."""

from __future__ import annotations

import json

import pytest

from support.machine import Machine


def _files(host: Machine, options: str, *names: str) -> list[str]:
    """What a container with `options` reads in the files of its own cgroup."""
    return host.out(f"havre run --rm {options} busybox sh -c 'cd /sys/fs/cgroup; cat {' '.join(names)}'").splitlines()


@pytest.mark.parametrize(
    ("options", "names", "found"),
    [
        ("-m 64m", ["memory.max", "memory.swap.max"], ["67108864", "67108864"]),
        ("-m 64m --memory-swap 80m", ["memory.max", "memory.swap.max"], ["67108864", "16777216"]),
        ("-m 64m --memory-swap -1", ["memory.swap.max"], ["max"]),
        ("-m 64m --memory-reservation 32m", ["memory.low"], ["33554432"]),
        ("--cpus 1.5", ["cpu.max"], ["150000 100000"]),
        ("--cpu-quota 20000 --cpu-period 50000", ["cpu.max"], ["20000 50000"]),
        ("--cpuset-cpus 1 --cpuset-mems 0", ["cpuset.cpus", "cpuset.cpus.effective", "cpuset.mems"], ["1", "1", "0"]),
        ("--pids-limit 33", ["pids.max"], ["33"]),
        ("--device-read-bps /dev/vda:1mb", ["io.max"], ["254:0 rbps=1048576 wbps=max riops=max wiops=max"]),
        (
            "--device-write-iops /dev/vda:20 --device-read-iops /dev/vda:10",
            ["io.max"],
            ["254:0 rbps=max wbps=max riops=10 wiops=20"],
        ),
    ],
)
def test_a_limit_is_in_the_file_of_the_kernel(host: Machine, options: str, names: list[str], found: list[str]) -> None:
    assert _files(host, options, *names) == found


def test_shares_become_weights_as_with_dockerd(host: Machine) -> None:
    (weight,) = _files(host, "--cpu-shares 2048", "cpu.weight")
    assert int(weight) > int(_files(host, "--cpu-shares 512", "cpu.weight")[0])


def test_an_update_changes_a_running_container(host: Machine) -> None:
    host.out("havre run -d --name grown -m 64m --memory-swap 128m busybox sleep 600")
    host.out("havre update -m 96m --memory-swap 96m --cpus 0.25 --pids-limit 40 --cpuset-cpus 0 grown")
    read = "havre exec grown sh -c 'cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max pids.max cpuset.cpus'"
    assert host.out(read).splitlines() == ["100663296", "0", "25000 100000", "40", "0"]


def test_a_program_beyond_its_memory_is_killed_and_said_so(host: Machine) -> None:
    since = host.out("date +%s")
    host.run("havre run --name hungry -m 32m --memory-swap 32m busybox sh -c 'x=a; while :; do x=$x$x; done'")
    assert host.out("havre inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' hungry") == "true 137"
    events = host.out(
        f"havre events --since {since} --until $(date +%s.%N) --filter container=hungry --format '{{{{.Action}}}}'"
    )
    assert "oom" in events.split()


def test_a_paused_container_does_not_run(host: Machine) -> None:
    host.out("havre run -d --name held busybox sh -c 'while sleep 0.1; do echo tick; done'")
    group = host.out("havre inspect -f '{{.State.Pid}}' held | xargs -I{} sed -n s/^0:://p /proc/{}/cgroup")
    host.out("havre pause held")
    assert "frozen 1" in host.out(f"cat /sys/fs/cgroup{group}/cgroup.events")
    lines = host.out("havre logs held | wc -l")
    assert host.out("sleep 1; havre logs held | wc -l") == lines
    host.out("havre unpause held")
    host.until(f'[ "$(havre logs held | wc -l)" -gt {lines} ]', 20)


def test_stats_are_those_of_the_kernel(host: Machine) -> None:
    host.out(
        "havre run -d --name measured -m 128m busybox "
        "sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=20; while :; do :; done'"
    )
    stats = json.loads(host.out("curl -s --unix-socket /run/havre.sock 'http://d/containers/measured/stats?stream=0'"))
    assert stats["memory_stats"]["limit"] == 128 << 20
    assert stats["memory_stats"]["usage"] > 20 << 20
    assert stats["memory_stats"]["stats"]["shmem"] >= 20 << 20
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > stats["precpu_stats"]["cpu_usage"]["total_usage"]
    assert stats["cpu_stats"]["online_cpus"] == 2
    assert stats["pids_stats"]["current"] == 1
    assert "max_usage" not in stats["memory_stats"]


def test_only_devices_that_were_given_can_be_opened(host: Machine) -> None:
    opening = "sh -c 'mknod /tmp/disk b 254 0 && head -c1 /tmp/disk >/dev/null'"
    refused = host.run(f"havre run --rm busybox {opening}")
    assert refused.code != 0
    assert "Operation not permitted" in refused.err
    assert host.run(f"havre run --rm --device-cgroup-rule 'b 254:0 rm' busybox {opening}").code == 0
    assert host.run("havre run --rm --device /dev/vda:/dev/disk:r busybox head -c1 /dev/disk").code == 0
    assert host.run("havre run --rm --device /dev/vda:/dev/disk:r busybox sh -c 'echo >/dev/disk'").code != 0


def test_a_private_cgroup_namespace_shows_the_container_as_the_root(host: Machine) -> None:
    assert host.out("havre run --rm busybox cat /proc/self/cgroup") == "0::/"
    assert host.out("havre run --rm --cgroupns host busybox cat /proc/self/cgroup") != "0::/"
    host.out("mount -o remount,nsdelegate,memory_recursiveprot /sys/fs/cgroup")  # the runtime's mount has cleared them


def test_ulimits_and_the_size_of_shared_memory(host: Machine) -> None:
    shown = host.out(
        "havre run --rm --ulimit nofile=100:200 --shm-size 8m busybox sh -c 'ulimit -Sn; ulimit -Hn; df -k /dev/shm'"
    ).split()
    assert shown[:2] == ["100", "200"]
    assert shown[shown.index("shm") + 1] == "8192"


def test_limits_of_huge_pages(host: Machine) -> None:
    assert host.out("havre run --rm busybox sh -c 'ls /sys/fs/cgroup | grep -c hugetlb'") != "0"


def test_nothing_is_left_in_the_tree_of_cgroups(host: Machine) -> None:
    host.out("havre run --rm -m 64m busybox true")
    host.until(
        '[ -z "$(havre ps -aq)" ] && '
        "[ -z \"$(find /sys/fs/cgroup -type d -regextype egrep -regex '.*[0-9a-f]{64}.*')\" ]",
        20,
    )


@pytest.mark.parametrize("option", ["--memory-swappiness 10", "--oom-kill-disable"])
def test_what_this_kernel_cannot_limit_is_said(host: Machine, option: str) -> None:
    ran = host.run(f"havre run --rm -m 64m {option} busybox echo ran")
    assert ran.out == "ran\n"
    assert "WARNING: Your kernel does not support" in ran.err


def test_real_time_scheduling_is_refused_and_nothing_is_left(host: Machine) -> None:
    refused = host.run("havre run --name timely --cpu-rt-runtime 1000 busybox true")
    assert refused.code == 125
    assert "real-time" in refused.err
    assert host.out("havre ps -aq --filter name=timely") == ""
