"""The small pure parts: capabilities, seccomp, security options, messages, the choice of a runtime, cgroup layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.errors import InvalidInput, Unavailable
from havre.linux.cgroups import decide_layout, parse_mounts
from havre.runtime import messages
from havre.runtime.capabilities import CAPABILITIES, DEFAULT, parse_mask, plan_capabilities
from havre.runtime.host import parse_release
from havre.runtime.plan import ContainerPlan, Rlimit
from havre.runtime.runtimes import OciRuntime, Runtimes, plan_default
from havre.runtime.seccomp import DEFAULT_PROFILE, render_seccomp
from havre.runtime.security import parse_security_opts


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(DEFAULT)),
        (("net_admin",), ("CHOWN",), {*DEFAULT, "CAP_NET_ADMIN"} - {"CAP_CHOWN"}),
        (("CAP_CHOWN",), ("CAP_CHOWN",), set(DEFAULT)),
        (("sys_time",), ("ALL",), {"CAP_SYS_TIME"}),
        (("all",), ("mknod",), set(CAPABILITIES) - {"CAP_MKNOD"}),
        ((), ("CAP_ALL",), set()),
    ],
)
def test_capabilities(add, drop, expected):
    assert set(plan_capabilities(add, drop, False, CAPABILITIES)) == expected


def test_privileged_gets_what_the_daemon_has():
    assert plan_capabilities((), ("ALL",), True, ("CAP_KILL",)) == ("CAP_KILL",)


def test_an_unknown_capability_is_named():
    with pytest.raises(InvalidInput, match='invalid capability: "foo"'):
        plan_capabilities(("foo",), (), False, CAPABILITIES)


def test_masks_name_their_bits():
    assert set(parse_mask(0xA80425FB)) == set(DEFAULT)
    assert len(CAPABILITIES) == 41


def rendered(capabilities=DEFAULT, machine="x86_64", kernel=(6, 12), profile=DEFAULT_PROFILE):
    return render_seccomp(profile, capabilities=capabilities, machine=machine, kernel=kernel)


def allowed(**more):
    rules = rendered(**more)["syscalls"]
    return {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_the_default_profile_refuses_what_escapes_are_made_of():
    names = allowed()
    assert {"read", "openat", "execve", "clone", "futex"} <= names
    refused = {"mount", "unshare", "setns", "bpf", "keyctl", "add_key", "request_key", "io_uring_setup", "kexec_load"}
    assert not names & (refused | {"userfaultfd", "perf_event_open", "init_module", "open_by_handle_at", "ptrace_x"})
    assert rendered()["defaultAction"] == "SCMP_ACT_ERRNO"


def test_capabilities_open_their_calls():
    assert {"mount", "unshare", "setns"} <= allowed(capabilities=("CAP_SYS_ADMIN",))
    assert "clone3" in allowed(capabilities=("CAP_SYS_ADMIN",))
    assert "reboot" in allowed(capabilities=("CAP_SYS_BOOT",))
    assert "chroot" not in allowed(capabilities=())


def test_new_namespaces_need_sys_admin():
    clone = [rule for rule in rendered()["syscalls"] if rule["names"] == ["clone"]]
    assert clone == [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    ]
    clone3 = [rule for rule in rendered()["syscalls"] if rule["names"] == ["clone3"]]
    assert clone3 == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]


def test_architecture_and_kernel_decide():
    assert "arch_prctl" in allowed()
    assert "arch_prctl" not in allowed(machine="aarch64")
    assert rendered(machine="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "ptrace" in allowed(kernel=(4, 8))
    assert "ptrace" not in allowed(kernel=(4, 7))


@pytest.mark.parametrize(
    "profile",
    [{}, [], {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "x", "name": "a", "names": ["b"]}]},
     {"defaultAction": "x", "syscalls": [{"names": ["a"], "action": "b", "includes": {"minKernel": "x"}}]},
     {"defaultAction": "x", "architectures": ["a"], "archMap": [{"architecture": "b"}]}],
)  # fmt: skip
def test_a_malformed_profile_is_refused(profile):
    with pytest.raises(InvalidInput, match="seccomp profile"):
        rendered(profile=profile)


def test_a_profile_is_read_as_go_reads_it():
    argument = {"INDEX": 0, "value": 2**64 - 1, "op": "SCMP_CMP_EQ"}
    rules = [{"NAMES": ["mkdir"], "Action": "SCMP_ACT_ERRNO", "args": [argument], "includes": None}, {"action": "x"}]
    assert rendered(profile={"DEFAULTACTION": "SCMP_ACT_ALLOW", "Syscalls": rules})["syscalls"] == [
        {
            "names": ["mkdir"],
            "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 2**64 - 1, "op": "SCMP_CMP_EQ"}],
        }
    ]


def test_a_users_profile_is_taken():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [{"name": "chmod", "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_KILL"]}}],
    }
    assert rendered(profile=profile, capabilities=())["syscalls"] == [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]
    assert rendered(profile=profile)["syscalls"] == []
    assert rendered(profile=profile)["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


def test_security_options():
    opts = ["seccomp=unconfined", "apparmor=mine", "no-new-privileges:true", "label=disable", "systempaths=unconfined"]
    security = parse_security_opts(opts)
    assert (security.seccomp, security.apparmor) == ("unconfined", "mine")
    assert security.no_new_privileges
    assert security.unmasked
    assert parse_security_opts(['seccomp={"defaultAction": "x"}']).seccomp == {"defaultAction": "x"}
    assert parse_security_opts(["no-new-privileges"]).no_new_privileges
    assert parse_security_opts(["writable-cgroups"]).writable_cgroups
    assert parse_security_opts(["writable-cgroups=false"]).writable_cgroups is False
    assert not parse_security_opts(["no-new-privileges=false"]).no_new_privileges


@pytest.mark.parametrize(
    "opt", ["foo", "foo=bar", "no-new-privileges=maybe", "writable-cgroups=maybe", "seccomp={", "seccomp=[]"]
)
def test_bad_security_options(opt):
    with pytest.raises(InvalidInput):
        parse_security_opts([opt])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("executable file `foo` not found in $PATH: No such file or directory",
         'exec: "foo": executable file not found in $PATH'),
        ("executable file `/foo` not found: No such file or directory",
         'exec: "/foo": stat /foo: no such file or directory'),
        ("the path `/etc/passwd` exists but it is not executable: Permission denied",
         'exec: "/etc/passwd": permission denied'),
        ("the path `/etc` is not a regular file: Operation not permitted",
         'exec: "/etc": is a directory: permission denied'),
        ("chdir to `/nope`: No such file or directory",
         'chdir to cwd ("/nope") set in config.json failed: no such file or directory'),
        ('runc create failed: unable to start container process: exec: "a": permission denied',
         'exec: "a": permission denied'),
        ('time="2026-01-01T00:00:00Z" level=error msg="exec failed: unable to start container process: '
         'exec: \\"foo\\": executable file not found in $PATH"', 'exec: "foo": executable file not found in $PATH'),
        ("the path `tool` exists but it is not executable: Permission denied",
         'exec: "tool": executable file not found in $PATH'),
        ("something else", "something else"),
    ],
)  # fmt: skip
def test_messages_are_dockers(said, words):
    assert messages.translate(said) == words
    assert messages.create_failed("crun", said).message == (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"crun create failed: unable to start container process: {words}: unknown"
    )


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("executable file `foo` not found in $PATH", 400),
        ("the path `/etc/passwd` exists but it is not executable: Permission denied", 400),
        ("the path `/etc` is not a regular file: Operation not permitted", 400),
        ("open `/proc/sys/net/x`: No such file or directory", 400),
        ("cannot open `/etc/passwd/x`: Not a directory", 400),
        ("invalid seccomp action `x`", 500),
    ],
)
def test_what_the_configuration_is_the_reason_of_is_a_bad_request(said, status):
    for error in (messages.create_failed("crun", said), messages.start_failed(said)):
        assert error.status == status
        assert ("Are you trying to mount a directory" in error.message) == ("Not a directory" in said)


def test_the_default_runtime_and_why():
    assert plan_default(["crun", "runc"], None, "v2", "") == ("crun", "crun, the fastest that is installed")
    assert plan_default(["crun", "runc"], None, "hybrid", "")[0] == "crun"
    assert plan_default(["crun", "runc"], None, "hybrid", "no perl")[1] == (
        "runc, as crun cannot create on hybrid cgroups: no perl"
    )
    assert plan_default(["runc"], None, "v2", "")[1] == "runc, as crun is not installed"
    assert plan_default(["crun", "runsc"], "runsc", "v2", "") == ("runsc", "runsc, as configured")
    with pytest.raises(Unavailable):
        plan_default([], None, "v2", "")
    with pytest.raises(Unavailable):
        plan_default(["crun"], None, "hybrid", "no perl")
    with pytest.raises(InvalidInput, match="kata"):
        plan_default(["crun"], "kata", "v2", "")


V1_MOUNT = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
NAMED_MOUNT = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd"
V2_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
OTHER_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755"


def test_cgroup_layouts():
    trees = parse_mounts("\n".join([OTHER_MOUNT, V1_MOUNT, NAMED_MOUNT, V2_MOUNT]))
    assert trees == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "name=systemd": Path("/sys/fs/cgroup/systemd"),
        "": Path("/sys/fs/cgroup/unified"),
    }
    assert decide_layout(trees, ["hugetlb"]) == "hybrid"
    assert decide_layout(trees, []) == "v1"
    assert decide_layout(parse_mounts(V2_MOUNT), ["memory"]) == "v2"


def test_kernel_releases():
    assert parse_release("6.12.9-amd64") == (6, 12)
    assert parse_release("odd") == (0, 0)


def test_few_open_files_are_runcs():
    def plan(name: str, soft: int) -> ContainerPlan:
        return ContainerPlan(rootfs=Path("/r"), args=("true",), rlimits=(Rlimit(name=name, soft=soft, hard=900),))

    found = {name: OciRuntime(name, Path("/usr/bin", name), Path("/s", name)) for name in ("crun", "runc")}
    both, alone = Runtimes(found, "crun", ""), Runtimes({"crun": found["crun"]}, "crun", "")
    for kind, soft, name in (
        ("nofile", 10, "runc"),
        ("nofile", 64, "crun"),
        ("nofile", -1, "crun"),
        ("core", 1, "crun"),
    ):
        assert both.fitting(plan(kind, soft)).name == name
    assert alone.fitting(plan("nofile", 64)).name == "crun"
    with pytest.raises(InvalidInput, match="ulimit nofile=10:900: crun needs 64 open files") as refused:
        alone.fitting(plan("nofile", 10))
    assert "runc" in str(refused.value.hint)
