"""Statuses, words and confinement of containers as dockerd 29 has them, where dockerd 26 differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine, Havred, serving
from support.engines import run as command
from support.raw import ask


@pytest.fixture
def idle(havred: Engine) -> Iterator[str]:
    """The name of a container that sleeps."""
    havred.out("run", "-d", "-t", "--name", "idle", "busybox", "sleep", "1000")
    yield "idle"
    havred.docker("rm", "-f", "idle", check=0)


def host_config(engine: Engine, **asked: Any) -> dict[str, Any]:
    """The host configuration of a container made with `asked`, as it is shown."""
    id = ask(engine.socket, "POST", "/containers/create", {"Image": "busybox", "HostConfig": asked}).json["Id"]
    shown = ask(engine.socket, "GET", f"/containers/{id}/json").json["HostConfig"]
    ask(engine.socket, "DELETE", f"/containers/{id}")
    return shown  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        ("", "1", 'height "": invalid syntax'),
        ("1", "", 'width "": invalid syntax'),
        ("+1", "1", 'height "+1": invalid syntax'),
        ("-100", "1", 'height "-100": value out of range'),
        ("1", "4294967296", 'width "4294967296": value out of range'),
        ("not-a-number", "1", 'height "not-a-number": invalid syntax'),
    ],
)
def test_a_size_that_no_terminal_has(havred: Engine, idle: str, height: str, width: str, words: str) -> None:
    exec = ask(havred.socket, "POST", f"/containers/{idle}/exec", {"Cmd": ["true"], "Tty": True}).json["Id"]
    for target in (f"/containers/{idle}", f"/exec/{exec}"):
        reply = ask(havred.socket, "POST", f"{target}/resize?h={height.replace('+', '%2B')}&w={width}")
        assert (reply.status, reply.message) == (400, f"invalid resize {words}")


def test_an_exec_of_a_program_that_is_not_there_is_127(havred: Engine, idle: str) -> None:
    havred.docker("exec", idle, "nothing", check=127)
    havred.docker("exec", idle, "/etc/passwd", check=126)
    havred.docker("exec", "-u", "nobody-of-that-name", idle, "true", check=126)


def test_negative_cpu_shares(havred: Engine) -> None:
    asked = {"Image": "busybox", "HostConfig": {"CpuShares": -1}}
    reply = ask(havred.socket, "POST", "/containers/create", asked)
    assert (reply.status, reply.message) == (400, "invalid CPU shares (-1): value must be a positive integer")


def test_privileged_containers_have_no_lists_of_paths(engine: Engine) -> None:
    for asked, masked in (({}, None), ({"MaskedPaths": ["/x"]}, ["/x"])):
        shown = host_config(engine, Privileged=True, **asked)
        assert (shown["MaskedPaths"], shown["ReadonlyPaths"]) == (masked, None)
    assert host_config(engine, MaskedPaths=[])["MaskedPaths"] == []


def test_the_default_paths_are_shown_and_masked(havred: Engine) -> None:
    shown = host_config(havred)
    listed = (
        "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug "
        "/proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
    )
    heat = sorted(map(str, Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle")))
    assert shown["MaskedPaths"] == [*listed.split(), *heat]
    assert shown["ReadonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    assert havred.out("run", "--rm", "busybox", "cat", "/proc/interrupts") == ""
    assert "CPU0" in havred.out("run", "--rm", "--privileged", "busybox", "cat", "/proc/interrupts")


def time_namespace(engine: Engine, *options: str) -> str:
    return engine.out("run", "--rm", *options, "busybox", "readlink", "/proc/self/ns/time")


def test_containers_have_a_time_namespace_where_the_runtime_has_them(havred: Engine, idle: str) -> None:
    hosts = str(Path("/proc/self/ns/time").readlink())
    first, other = (havred.out("exec", idle, "readlink", f"/proc/{who}/ns/time") for who in ("1", "self"))
    assert first == other != hosts
    assert time_namespace(havred) not in (first, hosts)
    since = havred.out("exec", idle, "cut", "-d.", "-f1", "/proc/uptime")
    assert abs(int(since) - int(Path("/proc/uptime").read_text().split(".")[0])) < 60, "its clocks are the host's"
    # runc knows the time namespace since 1.2
    assert (time_namespace(havred, "--runtime", "runc") != hosts) == ('"time"' in command("runc", "features"))


def test_time_namespaces_can_be_switched_off(archive: Path) -> None:
    with serving(Havred(["--feature", "time-namespaces=false"]), archive) as engine:
        assert time_namespace(engine) == str(Path("/proc/self/ns/time").readlink())
        assert "time-namespaces" not in engine.log.read_text()


_MAKE_GROUP = (
    "cd /sys/fs/cgroup; [ -f cgroup.procs ] || cd pids; "
    "cd .$(sed -n 's/^0::\\|.*:pids://p' /proc/self/cgroup | tail -1) 2>/dev/null; mkdir child && rmdir child"
)


@pytest.mark.parametrize(
    ("options", "writable"),
    [
        ((), False),
        (("--security-opt", "writable-cgroups=true"), True),
        (("--security-opt", "writable-cgroups=true", "--read-only"), True),
        (("--security-opt", "writable-cgroups=false"), False),
        (("--privileged",), True),
        (("--privileged", "--security-opt", "writable-cgroups=false"), False),
    ],
)
def test_cgroups_are_writable_if_asked_for(havred: Engine, options: tuple[str, ...], writable: bool) -> None:
    done = havred.docker("run", "--rm", "--cgroupns", "private", *options, "busybox", "sh", "-c", _MAKE_GROUP)
    assert (done.returncode == 0, "Read-only file system" in done.stderr) == (writable, not writable), done.stderr


def test_cgroups_are_writable_by_the_bare_word(havred: Engine) -> None:
    options = ("--cgroupns", "private", "--security-opt", "writable-cgroups")
    havred.havre("run", "--rm", *options, "busybox", "sh", "-c", _MAKE_GROUP, check=0)


def test_a_bad_word_for_writable_cgroups(havred: Engine) -> None:
    asked = {"Image": "busybox", "HostConfig": {"SecurityOpt": ["writable-cgroups=potato"]}}
    reply = ask(havred.socket, "POST", "/containers/create", asked)
    assert (reply.status, reply.message) == (400, 'invalid --security-opt 2: "writable-cgroups=potato"')
