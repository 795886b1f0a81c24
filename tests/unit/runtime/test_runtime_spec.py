"""The OCI specification of a container, by value: golden documents for whole plans, and single decisions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from havre.errors import InvalidInput, Unsupported
from havre.linux.cgroups import Cgroups
from havre.linux.idmap import IdRange
from havre.runtime.capabilities import CAPABILITIES
from havre.runtime.plan import (
    Bind,
    BlockLimit,
    ContainerPlan,
    Device,
    DeviceRule,
    ExecPlan,
    Resources,
    Rlimit,
    Security,
    Tmpfs,
    User,
)
from havre.runtime.spec import HostFacts, merge_env, merge_tmpfs_options, render_exec, render_spec

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "spec"
V1 = Cgroups("v1", {"memory": Path("/sys/fs/cgroup/memory")})
V2 = Cgroups("v2", {"": Path("/sys/fs/cgroup")})
HOST = HostFacts(
    machine="x86_64", kernel=(6, 12), capabilities=CAPABILITIES, cgroups=V1, init=Path("/usr/bin/catatonit")
)
PLAIN = ContainerPlan(rootfs=Path("/rootfs"), args=("sh",), env=("PATH=/bin",), hostname="box")
RICH = replace(
    PLAIN,
    tty=True,
    console_size=(24, 80),
    init=True,
    user=User(uid=1000, gid=100, groups=(100, 50)),
    cwd="/work",
    domainname="example.org",
    readonly_rootfs=True,
    shm_size=1 << 20,
    mounts=(
        Bind(source=Path("/srv/a/b"), destination="/a/b", read_only=True),
        Bind(source=Path("/srv/a"), destination="/a", propagation="rslave", recursive=False),
        Tmpfs(destination="/run", options=("size=1m", "exec")),
    ),
    network="/run/netns/x",
    ipc="host",
    pid="/proc/7/ns/pid",
    cap_drop=("ALL",),
    cap_add=("net_admin", "CAP_SYS_PTRACE"),
    security=Security(no_new_privileges=True),
    devices=(Device(path="/dev/fuse", type="c", major=10, minor=229, access="rw"),),
    device_rules=(DeviceRule(type="b", major=7, access="r"),),
    resources=Resources(
        memory=64 << 20,
        memory_reservation=32 << 20,
        nano_cpus=1_500_000_000,
        cpu_shares=512,
        cpuset_cpus="0",
        pids_limit=50,
        blkio_weight=300,
        blkio_read_bps=(BlockLimit(major=8, minor=0, value=1000),),
    ),
    rlimits=(Rlimit(name="nofile", soft=10, hard=20), Rlimit(name="core", soft=-1, hard=-1)),
    oom_score_adj=100,
    sysctls={"kernel.msgmax": "1000"},
    annotations={"org.example": "yes"},
)


def without_seccomp(spec: dict[str, Any]) -> dict[str, Any]:
    linux = {key: value for key, value in spec["linux"].items() if key != "seccomp"}
    return {**spec, "linux": linux}


@pytest.mark.parametrize(
    ("name", "plan", "host"),
    [
        ("plain", PLAIN, HOST),
        ("rich", RICH, HOST),
        ("privileged", replace(PLAIN, privileged=True), HOST),
        ("v2", replace(PLAIN, resources=Resources(memory=1 << 20, memory_swappiness=5)), replace(HOST, cgroups=V2)),
    ],
)
def test_golden(name: str, plan: ContainerPlan, host: HostFacts) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    assert without_seccomp(render_spec(plan, host, "c" * 64)) == expected


@pytest.mark.parametrize("plan", [PLAIN, RICH, replace(PLAIN, privileged=True)])
def test_nothing_is_ever_inheritable(plan: ContainerPlan) -> None:
    assert set(render_spec(plan, HOST)["process"]["capabilities"]) == {"bounding", "effective", "permitted"}


def test_the_primary_group_is_among_the_additional_ones() -> None:
    user = render_spec(replace(PLAIN, user=User(uid=1, gid=2, groups=(3, 2))), HOST)["process"]["user"]
    assert user == {"uid": 1, "gid": 2, "additionalGids": [2, 3]}


@pytest.mark.parametrize(
    "cwd",
    ["/proc/self/fd/7", "//proc/self/fd/7", "/proc/./self/fd", "/proc/1/fd/3/../..", "/dev/fd/3", "/proc/self/cwd",
     "/proc/thread-self/fd/9", "/proc/self/task/1/fd/8", "/x/../proc/self/fd/7", "relative", ""],
)  # fmt: skip
def test_a_working_directory_behind_a_descriptor_is_refused(cwd: str) -> None:
    with pytest.raises(InvalidInput, match="working directory"):
        render_spec(replace(PLAIN, cwd=cwd), HOST)


def test_a_user_mount_takes_the_place_of_a_default() -> None:
    spec = render_spec(replace(PLAIN, mounts=(Bind(source=Path("/dev"), destination="/dev/"),)), HOST)
    assert [mount["destination"] for mount in spec["mounts"]] == ["/proc", "/sys", "/sys/fs/cgroup", "/dev/"]
    spec = render_spec(replace(PLAIN, mounts=(Tmpfs(destination="/dev/shm", options=("size=1g",)),)), HOST)
    shm = [mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm"]
    assert [mount["options"] for mount in shm] == [["noexec", "nosuid", "nodev", "size=1g", "rprivate"]]


@pytest.mark.parametrize(
    ("source", "destination", "user", "propagation", "guarded"),
    [
        ("/dev", "/dev/", User(uid=999), "rprivate", True),
        ("/dev/null", "/dev/null", User(gid=5), "rslave", True),
        ("/dev", "/dev", User(), "rprivate", False),
        ("/dev", "/dev", User(uid=999), "rshared", False),
        ("/s", "/dev", User(uid=999), "rprivate", False),
        ("/dev", "/s", User(uid=999), "rprivate", False),
    ],
)
def test_the_hosts_null_device_is_shown_to_others_read_only(
    source: str, destination: str, user: User, propagation: str, guarded: bool
) -> None:
    bind = Bind(source=Path(source), destination=destination, propagation=propagation)
    spec = render_spec(replace(PLAIN, user=user, mounts=(bind,)), HOST)
    guard = {"destination": "/dev/null", "type": "bind", "source": "/dev/null", "options": ["bind", "ro", "rprivate"]}
    assert (spec["mounts"][-1] == guard) is guarded


def test_parents_are_mounted_before_what_is_in_them() -> None:
    mounts = tuple(Bind(source=Path("/s"), destination=path) for path in ("/a/b/c", "/a", "/d", "/a/b"))
    spec = render_spec(replace(PLAIN, mounts=mounts), HOST)
    assert [mount["destination"] for mount in spec["mounts"][-4:]] == ["/a", "/d", "/a/b", "/a/b/c"]


def test_old_kernels_get_a_plain_read_only_bind() -> None:
    plan = replace(PLAIN, mounts=(Bind(source=Path("/s"), destination="/s", read_only=True),))
    for older in (replace(HOST, kernel=(5, 10)), replace(HOST, recursive_read_only=False)):
        assert render_spec(plan, older)["mounts"][-1]["options"] == ["rbind", "ro", "rprivate"]


def test_read_only_mounts_below_a_bind_that_are_insisted_upon() -> None:
    forced = Bind(source=Path("/s"), destination="/s", read_only=True, read_only_forced=True)
    plan = replace(PLAIN, mounts=(forced,))
    assert "rro" in render_spec(plan, HOST)["mounts"][-1]["options"]
    with pytest.raises(Unsupported, match="what is mounted below /s cannot be made read-only"):
        render_spec(plan, replace(HOST, recursive_read_only=False))


def test_another_user_namespace_is_joined_and_not_described() -> None:
    """Told the IDs as well, crun gives what it is called with to the container's root: the host's /dev/null."""
    plan = replace(PLAIN, user_namespace="/run/netns/x.user", ids=IdRange(100_000, 200_000, 5000))
    linux = render_spec(plan, HOST)["linux"]
    assert {"type": "user", "path": "/run/netns/x.user"} in linux["namespaces"]
    assert not linux.keys() & {"uidMappings", "gidMappings"}
    assert linux["sysctl"]["net.ipv4.ping_group_range"] == "0 4999"
    assert "user" not in {each["type"] for each in render_spec(PLAIN, HOST)["linux"]["namespaces"]}


def test_shared_mounts_reach_the_host() -> None:
    plan = replace(PLAIN, mounts=(Bind(source=Path("/s"), destination="/s", propagation="rshared"),))
    assert render_spec(plan, HOST)["linux"]["rootfsPropagation"] == "shared"


def test_limits_this_kernel_lacks_are_left_out() -> None:
    host = replace(HOST, cgroups=replace(V1, swap_limit=False, blkio_weight=False))
    plan = replace(PLAIN, resources=Resources(memory=1 << 20, blkio_weight=10))
    assert render_spec(plan, host)["linux"]["resources"]["memory"] == {"limit": 1 << 20}
    assert "blockIO" not in render_spec(plan, host)["linux"]["resources"]


def test_an_init_that_is_not_installed_is_an_error() -> None:
    with pytest.raises(Unsupported, match="init"):
        render_spec(replace(PLAIN, init=True), replace(HOST, init=None))


def test_no_command_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="no command"):
        render_spec(replace(PLAIN, args=()), HOST)


def test_exec_is_no_more_than_its_container() -> None:
    spec = render_spec(RICH, HOST)
    process = render_exec(ExecPlan(args=("id",), env=("PATH=/x", "A=1")), spec["process"], HOST)
    assert process["args"] == ["id"]
    assert process["env"] == ["PATH=/x", "A=1"]
    for inherited in ("user", "cwd", "capabilities", "rlimits", "noNewPrivileges", "oomScoreAdj"):
        assert process[inherited] == spec["process"][inherited]
    assert process["terminal"] is False
    assert "consoleSize" not in process


def _cgroup_mount(plan: ContainerPlan, host: HostFacts) -> dict[str, Any]:
    mounts = render_spec(plan, host)["mounts"]
    return next(mount for mount in mounts if mount["destination"] == "/sys/fs/cgroup")


def test_the_hosts_cgroup2_is_bound_not_mounted_anew() -> None:
    v2 = replace(HOST, cgroups=V2)
    host = replace(PLAIN, cgroupns="host")
    assert _cgroup_mount(host, v2) == {
        "destination": "/sys/fs/cgroup",
        "type": "bind",
        "source": "/sys/fs/cgroup",
        "options": ["bind", "ro", "nosuid", "noexec", "nodev", "rprivate"],
    }
    privileged = _cgroup_mount(replace(host, privileged=True), v2)
    assert (privileged["type"], "ro" in privileged["options"]) == ("bind", False)
    assert _cgroup_mount(replace(PLAIN, privileged=True), v2)["type"] == "bind"
    assert _cgroup_mount(replace(PLAIN, cgroupns="private"), v2)["type"] == "cgroup"
    assert _cgroup_mount(PLAIN, v2)["type"] == _cgroup_mount(host, HOST)["type"] == "cgroup"


def test_a_privileged_exec_keeps_the_containers_apparmor_profile() -> None:
    host = replace(HOST, apparmor_profile="default")
    plan = ExecPlan(args=("id",), privileged=True)
    for plain, profile in ((PLAIN, "default"), (replace(PLAIN, privileged=True), "unconfined")):
        assert render_exec(plan, render_spec(plain, host)["process"], host)["apparmorProfile"] == profile


def test_a_named_apparmor_profile_is_ignored_where_the_kernel_has_none() -> None:
    plan = replace(PLAIN, security=Security(apparmor="mine"))
    assert "apparmorProfile" not in render_spec(plan, HOST)["process"]


def test_exec_with_terminal_user_and_privileges() -> None:
    plan = ExecPlan(args=("sh",), tty=True, console_size=(1, 2), user=User(uid=5), privileged=True, cwd="/tmp")
    process = render_exec(plan, render_spec(PLAIN, HOST)["process"], HOST)
    assert process["consoleSize"] == {"height": 1, "width": 2}
    assert "TERM=xterm" in process["env"]
    assert process["user"] == {"uid": 5, "gid": 0, "additionalGids": [0]}
    assert process["capabilities"]["bounding"] == list(CAPABILITIES)
    assert "inheritable" not in process["capabilities"]
    with pytest.raises(InvalidInput):
        render_exec(replace(plan, cwd="/proc/self/fd/8"), render_spec(PLAIN, HOST)["process"], HOST)


def test_environments_merge_by_name() -> None:
    assert merge_env(["A=1", "B=2"], ["B=3", "C=", "A"]) == ["B=3", "C="]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ("noexec", "nosuid", "nodev", "rprivate")),
        (("exec",), ("nosuid", "nodev", "exec", "rprivate")),
        (("noexec", "mode=700"), ("nosuid", "nodev", "noexec", "mode=700", "rprivate")),
        (("ro", "rw"), ("noexec", "nosuid", "nodev", "rw", "rprivate")),
    ],
)
def test_tmpfs_options(given: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert merge_tmpfs_options(given) == expected


def test_a_bad_propagation_is_refused() -> None:
    with pytest.raises(InvalidInput, match="propagation"):
        render_spec(replace(PLAIN, mounts=(Bind(source=Path("/s"), destination="/s", propagation="odd"),)), HOST)
