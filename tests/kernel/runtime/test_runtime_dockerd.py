"""Our specification beside the one a real dockerd gives to its runtime, for the same `docker run`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from havre.runtime.host import read_host
from havre.runtime.plan import Bind, ContainerPlan, Device, DeviceRule, Resources, Rlimit, Security, Tmpfs, User
from havre.runtime.spec import HostFacts, render_spec
from support.boxes import make_rootfs
from support.engines import Dockerd, serving

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not shutil.which("dockerd"), reason="docker.io is not installed")]

PLAIN = ContainerPlan(rootfs=Path("/"), args=("sleep", "1000"))
CASES: dict[str, tuple[list[str], ContainerPlan]] = {
    "plain": ([], PLAIN),
    "privileged": (["--privileged"], replace(PLAIN, privileged=True)),
    "all-capabilities": (["--cap-add", "ALL"], replace(PLAIN, cap_add=("ALL",))),
    "few-capabilities": (
        ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "sys_time"],
        replace(PLAIN, cap_drop=("ALL",), cap_add=("NET_ADMIN", "sys_time")),
    ),
    "limits": (
        [*("-m", "64m", "--memory-reservation", "32m", "--cpus", "1.5", "--cpu-shares", "512", "--pids-limit", "50"),
         *("--cpuset-cpus", "0", "--ulimit", "nofile=1000:2000", "--oom-score-adj", "100", "--oom-kill-disable")],
        replace(
            PLAIN,
            resources=Resources(
                memory=64 << 20, memory_reservation=32 << 20, nano_cpus=1_500_000_000, cpu_shares=512, pids_limit=50,
                cpuset_cpus="0", oom_kill_disable=True,
            ),
            rlimits=(Rlimit(name="nofile", soft=1000, hard=2000),),
            oom_score_adj=100,
        ),
    ),
    "confined": (
        ["--read-only", "--security-opt", "no-new-privileges", "--user", "alice", "--group-add", "root", "--init"],
        replace(
            PLAIN,
            readonly_rootfs=True,
            security=Security(no_new_privileges=True),
            user=User(uid=1000, gid=1000, groups=(100, 50, 0)),
            init=True,
        ),
    ),
    "mounts": (
        [*("-v", "/usr:/mnt/usr:ro", "-v", "/usr:/mnt:rw", "--tmpfs", "/t:size=1m,exec", "--shm-size", "32m")],
        replace(
            PLAIN,
            mounts=(
                Bind(source=Path("/usr"), destination="/mnt/usr", read_only=True),
                Bind(source=Path("/usr"), destination="/mnt"),
                Tmpfs(destination="/t", options=("size=1m", "exec")),
            ),
            shm_size=32 << 20,
        ),
    ),
    "host-namespaces": (
        [*("--ipc", "host", "--pid", "host", "--uts", "host", "--cgroupns", "private"),
         *("--sysctl", "net.core.somaxconn=9")],
        replace(
            PLAIN, ipc="host", pid="host", uts="host", cgroupns="private", sysctls={"net.core.somaxconn": "9"}
        ),
    ),
    "devices": (
        ["--device", "/dev/null:/dev/foo:r", "--device-cgroup-rule", "c 10:200 rw", "-t"],
        replace(
            PLAIN,
            devices=(Device(path="/dev/foo", type="c", major=1, minor=3, access="r"),),
            device_rules=(DeviceRule(type="c", major=10, minor=200, access="rw"),),
            tty=True,
        ),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    rootfs = tmp_path_factory.mktemp("rootfs")
    make_rootfs(rootfs)
    with serving(Dockerd(["--bridge", "none", "--iptables=false"])) as engine:
        archive = shutil.make_archive(str(rootfs), "tar", rootfs)
        engine.out("import", archive, "box")
        yield engine


@pytest.fixture(scope="module")
def host() -> HostFacts:
    return replace(read_host(), time_namespaces=False)  # dockerd 26 makes none


@pytest.mark.parametrize("case", CASES)
def test_same_specification(dockerd: Dockerd, host: HostFacts, case: str) -> None:
    flags, plan = CASES[case]
    container_id = dockerd.out("run", "-d", "--network", "none", *flags, "box", "sleep", "1000")
    try:
        theirs = json.loads(next((dockerd.root / "run").rglob(f"{container_id}/config.json")).read_text())
        ours = render_spec(plan, host, container_id)
        for part, read in PARTS.items():
            assert read(ours) == read(theirs), part
        assert set(ours["linux"].get("maskedPaths", [])) >= set(theirs["linux"].get("maskedPaths", []))
    finally:
        dockerd.out("rm", "-f", container_id)


def _seccomp(spec: dict[str, Any]) -> Any:
    profile = spec["linux"].get("seccomp")
    if profile is None:
        return None
    rules = {
        (name, rule["action"], rule.get("errnoRet"), json.dumps(rule.get("args"), sort_keys=True))
        for rule in profile["syscalls"]
        for name in rule["names"]
    }
    return profile["defaultAction"], profile["defaultErrnoRet"], profile["architectures"], rules


def _mounts(spec: dict[str, Any]) -> Any:
    own = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")  # the engine's
    init = "/sbin/docker-init"  # another program
    return [
        (mount["destination"], mount["type"], mount["source"] * (mount["destination"] != init), set(mount["options"]))
        for mount in sorted(spec["mounts"], key=lambda mount: mount["destination"])
        if mount["destination"] not in own
    ]


def _devices(spec: dict[str, Any]) -> Any:
    rules = spec["linux"]["resources"]["devices"]
    if rules[-1] == {"allow": True, "access": "rwm"}:
        return "all"  # of a privileged container's rules only the last one counts
    return {json.dumps(rule, sort_keys=True) for rule in rules}


def _resources(spec: dict[str, Any]) -> Any:
    resources = {key: dict(value) for key, value in spec["linux"]["resources"].items() if key != "devices" and value}
    if not resources.get("memory", {}).get("disableOOMKiller", True):
        del resources["memory"]["disableOOMKiller"]  # false is the default
    return {key: value for key, value in resources.items() if value}


PARTS = {
    "capabilities": lambda spec: {kind: set(names) for kind, names in spec["process"]["capabilities"].items()},
    "seccomp": _seccomp,
    "user": lambda spec: {**spec["process"]["user"], "additionalGids": set(spec["process"]["user"]["additionalGids"])},
    "args": lambda spec: spec["process"]["args"],
    "terminal": lambda spec: spec["process"].get("terminal", False),
    "no new privileges": lambda spec: spec["process"].get("noNewPrivileges", False),
    "rlimits": lambda spec: spec["process"].get("rlimits"),
    "oom score": lambda spec: spec["process"]["oomScoreAdj"],
    "root": lambda spec: spec["root"].get("readonly", False),
    "mounts": _mounts,
    "namespaces": lambda spec: {namespace["type"] for namespace in spec["linux"]["namespaces"]},
    "sysctls": lambda spec: spec["linux"].get("sysctl", {}),
    "read-only paths": lambda spec: spec["linux"].get("readonlyPaths"),
    "device rules": _devices,
    "resources": _resources,
    "propagation": lambda spec: spec["linux"].get("rootfsPropagation"),
}
