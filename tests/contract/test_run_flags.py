"""Every flag of `docker run`, by what it does inside the container; several flags to a container, to save time.

Cgroup files are looked for in both layouts. What is tested elsewhere is not here: streams and exit codes (test_run),
health (test_health), logs (test_log_drivers), networks, ports and volumes.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import HAVRE, Engine, Havred, serving
from support.engines import run as command
from support.raw import ask
from support.waiting import until


def run(engine: Engine, *arguments: str, stdin: str | None = None) -> str:
    """Output of a successful `docker run --rm`."""
    return engine.out("run", "--rm", *arguments, stdin=stdin)


def refused(engine: Engine, *arguments: str) -> str:
    """What is said of a container that cannot be made or started."""
    done = engine.docker("run", "--rm", *arguments, "busybox", "true", check=125)
    return done.stderr


def shell(engine: Engine, *options: str, script: str) -> list[str]:
    """The lines that a script prints."""
    return run(engine, *options, "busybox", "sh", "-c", script).splitlines()


def limits(engine: Engine, *options: str, files: str) -> list[str]:
    """The first words of some files of the container's cgroups, `v1|v2` each."""
    script = f"cd /sys/fs/cgroup; for f in {files}; do cat ${{f%|*}} 2>/dev/null || cat ${{f#*|}}; done"
    return shell(engine, *options, script=script.replace("for f in", "set -f; for f in"))


@pytest.fixture
def other(engine: Engine) -> Iterator[str]:
    """Another container that runs, whose namespaces may be shared."""
    options = ("--ipc", "shareable", "-v", "/inherited", "-v", "/etc:/from-host:ro")
    engine.out("run", "-d", "--name", "other", *options, "busybox", "sleep", "1000")
    yield "other"
    engine.docker("rm", "-f", "-v", "other", check=0)


@pytest.fixture
def weighted_disk(tmp_path: Path) -> Iterator[str]:
    """A block device of the test's own, whose scheduler knows weights if the kernel has such a one."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    device = command("losetup", "--find", "--show", str(image)).strip()
    try:
        Path(f"/sys/block/{Path(device).name}/queue/scheduler").write_text("bfq")
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel without bfq
            raise
    yield device
    command("losetup", "--detach", device)


def _keeps(group: Path) -> bool:
    """Remove a group; true if it has members or children still."""
    try:
        group.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    return False


class TestLimits:
    def test_memory(self, engine: Engine) -> None:
        options = ("-m", "64m", "--memory-reservation", "32m", "--memory-swap", "96m", "--memory-swappiness", "7")
        files = (
            "'memory/memory.limit_in_bytes|memory.max' 'memory/memory.soft_limit_in_bytes|memory.low' "
            "'memory/memory.memsw.limit_in_bytes|memory.swap.max'"
        )
        seen = limits(engine, *options, files=files)
        assert seen[:2] == [str(64 << 20), str(32 << 20)]
        assert seen[2:] in ([str(96 << 20)], [str(32 << 20)], [])  # v1, v2, no accounting of swap
        swappiness = "cat /sys/fs/cgroup/memory/memory.swappiness 2>/dev/null || echo 7"
        assert shell(engine, *options, script=swappiness) == ["7"]

    def test_oom(self, engine: Engine) -> None:
        script = "cat /proc/self/oom_score_adj; grep -h oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control"
        seen = shell(engine, "--oom-score-adj", "300", "--oom-kill-disable", "-m", "64m", script=script + "; true")
        assert seen in (["300", "oom_kill_disable 1"], ["300"])
        assert "range for oom score adj is [-1000, 1000]" in refused(engine, "--oom-score-adj", "2000")

    def test_cpu(self, engine: Engine) -> None:
        options = ("--cpu-shares", "512", "--cpu-period", "50000", "--cpu-quota", "20000", "--cpuset-cpus", "0")
        files = "'cpu/cpu.shares|cpu.weight' 'cpu/cpu.cfs_period_us|cpu.max' 'cpuset/cpuset.cpus|cpuset.cpus'"
        shares, period, cpus = limits(engine, *options, "--cpuset-mems", "0", files=files)
        assert shares in ("512", "20", "59")
        assert period in ("50000", "20000 50000")
        assert cpus == "0"
        assert "Requested CPUs are not available" in refused(engine, "--cpuset-cpus", "997")
        assert "Requested memory nodes are not available" in refused(engine, "--cpuset-mems", "7")
        assert "shares" in refused(engine, "--cpu-shares", "-1")
        assert "Conflicting options: Nano CPUs and CPU Period" in refused(engine, "--cpus", "1", "--cpu-period", "5000")

    def test_real_time_that_the_parent_group_has_not_is_refused(self, engine: Engine) -> None:
        assert "rt" in refused(engine, "--cpu-rt-runtime", "1000")

    def test_processes_and_ulimits(self, engine: Engine) -> None:
        options = ("--pids-limit", "55", "--ulimit", "nofile=123:456", "--ulimit", "core=0", "--ulimit", "cpu=77")
        script = (
            "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max; "
            "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -t"
        )
        assert shell(engine, *options, script=script) == ["55", "123", "456", "0", "77"]

    def test_fewer_open_files_than_some_runtimes_need(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "few", "--ulimit", "nofile=10:20", "busybox", "sleep", "1000")
        assert engine.out("exec", "few", "sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["10", "20"]
        engine.out("rm", "-f", "few")

    def test_block_io(self, engine: Engine, disk: str) -> None:
        number = os.stat(disk).st_rdev
        options = (
            *("--device-read-bps", f"{disk}:1mb", "--device-write-bps", f"{disk}:2mb"),
            *("--device-read-iops", f"{disk}:30", "--device-write-iops", f"{disk}:40"),
        )
        files = ("read_bps", "write_bps", "read_iops", "write_iops")
        script = "".join(f"cat /sys/fs/cgroup/blkio/blkio.throttle.{name}_device;" for name in files)
        seen = shell(engine, *options, script=f"({script}) 2>/dev/null || cat /sys/fs/cgroup/io.max")
        words = {word for line in seen for word in line.split() if line.startswith(f"{os.major(number)}:")}
        # Some kernels take the limits and show none.
        assert not words or {str(1 << 20), str(2 << 20), "30", "40"} <= {word.rpartition("=")[2] for word in words}

    def test_weights_of_block_io(self, engine: Engine, weighted_disk: str) -> None:
        """They take effect, or it is said that the kernel has none."""
        script = "cat /sys/fs/cgroup/blkio/blkio*weight* /sys/fs/cgroup/io.bfq.weight 2>/dev/null; true"
        options = ("--blkio-weight", "300", "--blkio-weight-device", f"{weighted_disk}:400")
        done = engine.docker("run", "--rm", *options, "busybox", "sh", "-c", script, check=0)
        if "discarded" in done.stderr:
            assert "Block I/O weight or the cgroup is not mounted. Weight discarded." in done.stderr
            assert "Block I/O weight_device or the cgroup is not mounted. Weight-device discarded." in done.stderr
        else:
            number = os.stat(weighted_disk).st_rdev
            assert "300" in done.stdout.split()
            assert f"{os.major(number)}:{os.minor(number)} 400" in done.stdout

    def test_a_weight_that_the_device_s_scheduler_does_not_know(self, havred: Engine, weighted_disk: str) -> None:
        Path(f"/sys/block/{Path(weighted_disk).name}/queue/scheduler").write_text("none")
        done = havred.docker("run", "--rm", "--blkio-weight-device", f"{weighted_disk}:400", "busybox", "true")
        assert (
            f"block I/O weight of {weighted_disk}: its scheduler is not bfq" in done.stderr
            or "discarded" in done.stderr
        )

    def test_real_time_of_a_parent_group_that_has_some(self, engine: Engine) -> None:
        name = f"havre-test-rt-{os.getpid()}"
        parent = Path("/sys/fs/cgroup/cpu") / name
        options = ("--cgroup-parent", f"/{name}", "--cpu-rt-runtime", "10000", "--cpu-rt-period", "500000")
        if not (parent.parent / "cpu.rt_runtime_us").exists():  # refused, as without such a group
            assert "rt" in engine.docker("run", "--rm", *options, "busybox", "true", check=125).stderr
            return
        parent.mkdir()
        try:
            (parent / "cpu.rt_runtime_us").write_text("50000")
            script = "cat /sys/fs/cgroup/cpu/cpu.rt_runtime_us /sys/fs/cgroup/cpu/cpu.rt_period_us"
            assert engine.out("run", "--rm", *options, "busybox", "sh", "-c", script).split() == ["10000", "500000"]
        finally:
            # The engine may still be removing the container's groups in it.
            until(lambda: not any(map(_keeps, Path("/sys/fs/cgroup").glob(f"*/{name}"))), "an empty group")

    def test_what_is_for_windows_is_refused(self, engine: Engine) -> None:
        for option in ("--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops"):
            done = engine.docker("run", "--rm", option, "2", "busybox", "true")
            assert done.returncode != 0
            assert "windows" in done.stderr.lower()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A block device of the test's own."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    device = command("losetup", "--find", "--show", str(image)).strip()
    yield device
    command("losetup", "--detach", device)


class TestDevices:
    def test_devices_and_rules(self, engine: Engine) -> None:
        script = (
            "stat -c '%t:%T' /dev/my; head -c1 /dev/my | wc -c; "
            "for minor in 1 2; do mknod /tmp/$minor c 244 $minor; cat /tmp/$minor 2>&1; done; true"
        )
        options = ("--device", "/dev/zero:/dev/my:r", "--device-cgroup-rule", "c 244:1 rwm")
        seen = shell(engine, *options, script=script)
        assert seen[:2] == ["1:5", "1"]
        assert "Operation not permitted" not in seen[2]  # there is no such device, but asking is allowed
        assert "Operation not permitted" in seen[3]

    def test_a_missing_device_is_refused(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "--device", "/dev/nothing-here", "busybox", "true", check=127)
        assert "error gathering device information while adding custom device" in done.stderr

    def test_gpus_are_refused_without_a_driver(self, engine: Engine) -> None:
        assert 'could not select device driver "" with capabilities: [[gpu]]' in refused(engine, "--gpus", "all")


class TestMounts:
    def test_tmpfs_in_all_forms(self, engine: Engine) -> None:
        options = (
            *("--tmpfs", "/a", "--tmpfs", "/b:size=64k,mode=711,exec,uid=5"),
            *("--mount", "type=tmpfs,dst=/c,tmpfs-size=128k,tmpfs-mode=1770", "--shm-size", "5m"),
        )
        script = "grep -E ' (/a|/b|/c|/dev/shm) ' /proc/mounts; stat -c %a /a /b /c"
        seen = shell(engine, *options, script=script)
        text = {line.split()[1]: line.split()[3].split(",") for line in seen if " tmpfs " in line}
        assert {"noexec", "nosuid", "nodev"} <= set(text["/a"])
        assert {"size=64k", "mode=711", "uid=5"} <= set(text["/b"])
        assert "noexec" not in text["/b"]
        assert "size=128k" in text["/c"]
        assert "size=5120k" in text["/dev/shm"]
        assert seen[-3:] == ["1777", "711", "1770"]

    def test_bind_in_all_forms(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("data")
        options = (
            *("--mount", f"type=bind,src={tmp_path},dst=/rw"),
            *("--mount", f"type=bind,source={tmp_path},target=/ro,readonly"),
            *("--mount", f"type=bind,source={tmp_path},target=/slave,bind-propagation=private"),
            *("-v", f"{tmp_path}:/private:private,ro"),
        )
        script = "cat /rw/f; touch /rw/made; touch /ro/x; grep -E ' /(ro|rw|slave|private) ' /proc/self/mountinfo"
        seen = run(engine, *options, "busybox", "sh", "-c", script + "; true").splitlines()
        assert seen[0].startswith("data")
        assert (tmp_path / "made").exists()
        assert not (tmp_path / "x").exists()
        flags = {line.split()[4]: line for line in seen if " / " in line or "/" in line.split()[3]}
        assert flags["/ro"].split()[5].startswith("ro")
        assert flags["/private"].split()[5].startswith("ro")
        assert flags["/rw"].split()[5].startswith("rw")
        if command("findmnt", "-no", "PROPAGATION", "-T", str(tmp_path)).strip() == "private":
            asked = f"type=bind,src={tmp_path},dst=/x,bind-propagation=rshared"
            done = engine.docker("run", "--rm", "--mount", asked, "busybox", "true", check=125)
            assert "but it is not a shared mount" in done.stderr
        for wrong in ("type=bind,dst=/x", f"type=bind,src={tmp_path},dst=/x,bind-propagation=odd", "type=odd,dst=/x"):
            engine.docker("run", "--rm", "--mount", wrong, "busybox", "true", check=125)

    def test_volumes_from(self, engine: Engine, other: str) -> None:
        engine.out("exec", other, "touch", "/inherited/mark")
        script = "ls /inherited; test -e /from-host/passwd && touch /from-host/x 2>&1; touch /inherited/y && echo wrote"
        seen = shell(engine, "--volumes-from", other, script=script)
        assert seen[0] == "mark"
        assert "Read-only file system" in seen[1]
        assert seen[2] == "wrote"
        assert "Read-only" in shell(engine, "--volumes-from", f"{other}:ro", script="touch /inherited/z 2>&1; true")[0]
        refused(engine, "--volumes-from", "no-such-container")

    def test_volume_without_copy(self, engine: Engine) -> None:
        seen = shell(engine, "--mount", "type=volume,dst=/etc,volume-nocopy", script="ls /etc | grep -c passwd; true")
        assert seen == ["0"]
        assert shell(engine, "-v", "/etc", script="ls /etc | grep -c passwd; true") == ["1"]
        assert shell(engine, "-v", "relative/path", script="grep -c ' /relative/path ' /proc/mounts") == ["1"]

    def test_storage_opt(self, engine: Engine) -> None:
        assert "--storage-opt" in refused(engine, "--storage-opt", "size=1G")

    @pytest.mark.parametrize(
        ("option", "expected"),
        [
            ("bind-recursive=enabled", {"seen", "top", "below"}),
            ("bind-recursive=disabled", {"top", "below"}),
            ("bind-nonrecursive", {"top", "below"}),
            ("readonly,bind-recursive=writable", {"seen", "below"}),
            ("readonly,bind-recursive=readonly,bind-propagation=rprivate", {"seen"}),
            ("readonly", {"seen"}),
        ],
    )
    def test_what_is_mounted_below_a_bind(
        self, engine: Engine, tmp_path: Path, option: str, expected: set[str]
    ) -> None:
        (tmp_path / "sub").mkdir()
        command("mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "sub"))
        try:
            (tmp_path / "sub/seen").touch()
            script = "ls /m/sub; touch /m/x && echo top; touch /m/sub/y && echo below"
            mount = f"type=bind,src={tmp_path},dst=/m,{option}"
            done = engine.docker(
                "run", "--rm", "--mount", mount, "busybox", "sh", "-c", f"({script}) 2>/dev/null; true"
            )
        finally:
            command("umount", str(tmp_path / "sub"))
        assert set(done.stdout.split()) == expected

    @pytest.mark.parametrize(
        ("read_only", "options", "problem"),
        [
            (False, {"ReadOnlyNonRecursive": True}, "!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
            (False, {"ReadOnlyForceRecursive": True}, "!ReadOnly && BindOptions.ReadOnlyForceRecursive"),
            (
                True,
                {"ReadOnlyForceRecursive": True, "ReadOnlyNonRecursive": True},
                "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
            ),
        ],
    )
    def test_recursions_that_contradict(
        self, engine: Engine, tmp_path: Path, read_only: bool, options: dict[str, bool], problem: str
    ) -> None:
        mount = {"Type": "bind", "Source": str(tmp_path), "Target": "/m", "ReadOnly": read_only, "BindOptions": options}
        body = {"Image": "busybox", "HostConfig": {"Mounts": [mount]}}
        id = ask(engine.socket, "POST", "/containers/create", body).json["Id"]
        started = ask(engine.socket, "POST", f"/containers/{id}/start")
        engine.out("rm", id)
        assert (started.status, started.message) == (500, f"mount options conflict: {problem}")

    def test_a_runtime_that_knows_no_recursion(self, archive: Path, tmp_path: Path) -> None:
        """It says nothing of its features; by default nothing below is made read-only, and what insists fails."""
        program = tmp_path / "silent"
        program.write_text('#!/bin/sh\n[ "$1" = features ] && exit 1\nexec runc "$@"\n')
        program.chmod(0o755)
        mount = f"type=bind,src={tmp_path},dst=/m,readonly"
        with serving(Havred(["--add-runtime", f"silent={program}"]), archive) as engine:
            run = ("run", "--rm", "--runtime", "silent", "--mount")
            assert engine.docker(*run, mount, "busybox", "touch", "/m/x").returncode == 1
            forced = f"{mount},bind-recursive=readonly,bind-propagation=rprivate"
            assert "cannot be made read-only" in engine.docker(*run, forced, "busybox", "true", check=125).stderr
            runtimes = ask(engine.socket, "GET", "/info").json["Runtimes"]
            assert runtimes["silent"] == {"path": str(program)}

    def test_what_runtimes_can_is_told(self, engine: Engine) -> None:
        told = ask(engine.socket, "GET", "/v1.44/info").json["Runtimes"]["runc"]
        features = json.loads(told["status"]["org.opencontainers.runtime-spec.features"])
        assert {"rro", "rbind"} <= set(features["mountOptions"])
        assert set(ask(engine.socket, "GET", "/v1.43/info").json["Runtimes"]["runc"]) == {"path"}


def _remove_groups(name: str) -> None:
    """Remove the cgroups `name`; with `--rm` the group of a container in one may outlive the client for a moment."""
    for top in Path("/sys/fs/cgroup").glob(f"**/{name}"):
        until(lambda top=top: not any(each.is_dir() for each in top.iterdir()), f"the groups in {top} to go")
        top.rmdir()


class TestNamespaces:
    def show(self, engine: Engine, kind: str, *options: str) -> str:
        return run(engine, *options, "busybox", "readlink", f"/proc/self/ns/{kind}")

    @pytest.mark.parametrize("kind", ["ipc", "pid", "uts"])
    def test_host(self, engine: Engine, kind: str) -> None:
        assert self.show(engine, kind, f"--{kind}", "host") == os.readlink(f"/proc/self/ns/{kind}")

    @pytest.mark.parametrize("kind", ["ipc", "pid"])
    def test_of_another_container(self, engine: Engine, other: str, kind: str) -> None:
        theirs = engine.out("exec", other, "readlink", f"/proc/self/ns/{kind}")
        assert self.show(engine, kind, f"--{kind}", f"container:{other}") == theirs
        assert "No such container" in refused(engine, f"--{kind}", "container:no-such")

    def test_shared_memory_of_another_container(self, engine: Engine, other: str) -> None:
        engine.out("exec", other, "touch", "/dev/shm/mark")
        assert shell(engine, "--ipc", f"container:{other}", script="ls /dev/shm") == ["mark"]

    def test_a_private_ipc_namespace_is_not_shared(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "private", "--ipc", "private", "busybox", "sleep", "1000")
        said = engine.docker("run", "--rm", "--ipc", "container:private", "busybox", "true", check=125).stderr
        engine.out("rm", "-f", "private")
        assert "non-shareable IPC" in said
        assert shell(engine, "--ipc", "none", script="grep -c /dev/shm /proc/mounts; true") == ["0"]

    def test_cgroup_namespace(self, engine: Engine) -> None:
        mine = os.readlink("/proc/self/ns/cgroup")
        assert self.show(engine, "cgroup", "--cgroupns", "host") == mine
        assert self.show(engine, "cgroup", "--cgroupns", "private") != mine
        assert "invalid" in engine.docker("create", "--cgroupns", "odd", "busybox", check=125).stderr

    def test_user_namespace(self, engine: Engine) -> None:
        assert self.show(engine, "user", "--userns", "host") == os.readlink("/proc/self/ns/user")
        assert "invalid" in engine.docker("create", "--userns", "odd", "busybox", check=125).stderr

    def test_sysctls(self, engine: Engine) -> None:
        options = ("--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.shmmax=12345", "--domainname", "d.test")
        script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/kernel/domainname"
        assert shell(engine, *options, script=script) == ["0", "12345", "d.test"]

    def test_cgroup_parent(self, engine: Engine) -> None:
        parent = f"havre-test-{os.getpid()}"
        seen = shell(engine, "--cgroup-parent", f"/{parent}", "--cgroupns", "host", script="cat /proc/self/cgroup")
        assert any(f"/{parent}/" in line for line in seen)
        _remove_groups(parent)

    def test_cgroup_parent_stays_below_the_hierarchy(self, engine: Engine) -> None:
        name = f"havre-test-{os.getpid()}"
        outside = Path("/", name)
        for parent in (f"../../../../{name}", f"/../../../../{name}", f"/{name}/x/../../../../{name}"):
            options = ("--cgroup-parent", parent, "--cgroupns", "host")
            seen = shell(engine, *options, script="cut -d: -f3 /proc/self/cgroup")
            assert any(re.fullmatch(rf"/(.*/)?{name}/[0-9a-f]{{64}}", line) for line in seen)
            assert not any(".." in line for line in seen)
            assert not outside.exists()
        _remove_groups(name)


class TestIdentity:
    def test_user_groups_and_names(self, engine: Engine) -> None:
        options = ("-u", "1234:567", "--group-add", "890", "--group-add", "daemon", "-h", "named", "-w", "/tmp/new")
        user, group, groups, *rest = shell(engine, *options, script="id -u; id -g; id -G; hostname; pwd")
        assert (user, group, rest) == ("1234", "567", ["named", "/tmp/new"])
        assert set(groups.split()) == {"567", "890", "1"}
        assert "Unable to find group no-such-group" in refused(engine, "--group-add", "no-such-group")

    def test_hosts_and_resolver(self, engine: Engine) -> None:
        options = (
            *("--add-host", "one:10.1.1.1", "--add-host", "gate:host-gateway", "--add-host", "six=[2001:db8::1]"),
            *("--dns", "10.2.2.2", "--dns-search", "a.test", "--dns-option", "ndots:3"),
        )
        seen = shell(engine, *options, script="cat /etc/hosts /etc/resolv.conf")
        assert "10.1.1.1\tone" in seen
        assert "172.17.0.1\tgate" in seen
        assert "2001:db8::1\tsix" in seen
        assert {"nameserver 10.2.2.2", "search a.test"} <= set(seen)
        assert any(line.startswith("options") and "ndots:3" in line for line in seen)

    def test_mac_address(self, engine: Engine) -> None:
        script = "cat /sys/class/net/eth0/address"
        assert shell(engine, "--mac-address", "92:d0:c6:0a:29:33", script=script) == ["92:d0:c6:0a:29:33"]

    def test_environment_and_labels_from_files(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "env").write_text("# comment\nA=1\nB=two words\n")
        (tmp_path / "labels").write_text("x=1\n")
        options = ("--env-file", str(tmp_path / "env"), "-e", "C=3", "--entrypoint", "sh")
        assert run(engine, *options, "busybox", "-c", "echo $A $B $C") == "1 two words 3"
        cid = tmp_path / "cid"
        options = ("--label-file", str(tmp_path / "labels"), "-l", "z=3", "--annotation", "note=this")
        more = ("--stop-timeout", "7", "--stop-signal", "USR1", "--cidfile", str(cid), "--platform", "linux/amd64")
        identifier = engine.out("create", *options, *more, "busybox")
        shown = json.loads(engine.out("inspect", identifier))[0]
        engine.out("rm", identifier)
        assert cid.read_text() == identifier
        assert {"x": "1", "z": "3"}.items() <= shown["Config"]["Labels"].items()
        assert shown["HostConfig"]["Annotations"] == {"note": "this"}
        assert (shown["Config"]["StopTimeout"], shown["Config"]["StopSignal"]) == (7, "USR1")
        assert "container ID file found" in refused(engine, "--cidfile", str(cid))

    def test_stop_signal_and_timeout(self, engine: Engine) -> None:
        script = "trap 'echo usr1; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
        engine.out("run", "-d", "--name", "stopme", "--stop-signal", "USR1", "busybox", "sh", "-c", script)
        until(lambda: engine.out("logs", "stopme"), "the trap")
        engine.out("stop", "stopme")
        assert engine.out("inspect", "-f", "{{.State.ExitCode}}", "stopme") == "3"
        engine.out("rm", "stopme")
        engine.out("run", "-d", "--name", "stopme", "--stop-timeout", "0", "busybox", "sleep", "1000")
        engine.out("stop", "stopme")
        assert engine.out("inspect", "-f", "{{.State.ExitCode}}", "stopme") == "137"
        engine.out("rm", "stopme")

    def test_init(self, engine: Engine) -> None:
        seen = shell(engine, "--init", script="cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$")
        assert "docker-init" in seen[0]
        assert seen[1] != "1"

    def test_what_linux_has_not(self, engine: Engine) -> None:
        assert "isolation" in refused(engine, "--isolation", "hyperv")
        assert "unknown or invalid runtime name" in refused(engine, "--runtime", "no-such-runtime")


class TestSecurity:
    STATUS = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\n\\t'"

    def test_privileges(self, engine: Engine) -> None:
        options = ("--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "--cap-drop", "ALL")
        assert shell(engine, *options, "--cap-add", "CHOWN", script=self.STATUS) == [
            "CapEff:0000000000000001NoNewPrivs:1Seccomp:0"
        ]
        assert "Seccomp:2" in shell(engine, script=self.STATUS)[0]

    def test_seccomp_profile_from_a_file(self, engine: Engine, tmp_path: Path) -> None:
        rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
        profile = tmp_path / "profile.json"
        profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
        seen = shell(engine, "--security-opt", f"seccomp={profile}", script="mkdir /x 2>&1; true")
        assert seen == ["mkdir: can't create directory '/x': Operation not permitted"]
        profile.write_text("{")
        refused(engine, "--security-opt", f"seccomp={profile}")

    def test_system_paths(self, engine: Engine) -> None:
        masked = "grep -c -E ' /proc/(sys|kcore|timer_list) ' /proc/mounts; true"
        assert int(shell(engine, script=masked)[0]) >= 2
        assert shell(engine, "--security-opt", "systempaths=unconfined", script=masked) == ["0"]

    def test_labels_of_systems_that_the_kernel_lacks(self, engine: Engine) -> None:
        if not Path("/sys/kernel/security/apparmor").exists():
            shown = "{{.AppArmorProfile}}"
            id = engine.out("create", "--security-opt", "apparmor=odd", "busybox", "true").strip()
            assert engine.out("inspect", "--format", shown, id).strip() == "odd"
            engine.out("start", "-a", id)
            assert engine.out("inspect", "--format", shown, id).strip() == ""
            engine.out("rm", id)
        assert "invalid --security-opt" in refused(engine, "--security-opt", "nothing=known")

    def test_privileged(self, engine: Engine) -> None:
        seen = shell(engine, "--privileged", script=self.STATUS + "; echo; ls /dev | grep -c kmsg")
        own = re.search(r"CapEff:\t(\w+)", Path("/proc/self/status").read_text())
        assert own
        assert seen[0] == f"CapEff:{own[1]}NoNewPrivs:0Seccomp:0"
        assert seen[1] == "1"

    def test_read_only(self, engine: Engine) -> None:
        seen = shell(engine, "--read-only", "--tmpfs", "/tmp", script="touch /x 2>&1; touch /tmp/x && echo wrote")
        assert "Read-only file system" in seen[0]
        assert seen[1] == "wrote"


class TestClients:
    def test_annotations_reach_the_oci_runtime(self, engine: Engine) -> None:
        given = {"note": "this", "example.com/other": "that"}
        options = [f"--annotation={name}={value}" for name, value in given.items()]
        id = engine.out("run", "-d", *options, "busybox", "sleep", "1000")
        specifications = [json.loads(path.read_text()) for path in (engine.root / "run").glob(f"**/{id}/config.json")]
        engine.out("rm", "-f", id)
        assert specifications
        assert all(each["annotations"].items() >= given.items() for each in specifications)

    @pytest.mark.parametrize(("streams", "expected"), [(("stdout",), ("out\n", "")), (("stderr",), ("", "err\n"))])
    def test_attach_to_some_streams(self, engine: Engine, streams: tuple[str, ...], expected: tuple[str, str]) -> None:
        options = [word for stream in streams for word in ("-a", stream)]
        for client in (engine.docker, engine.havre):
            done = client("run", "--rm", *options, "busybox", "sh", "-c", "echo out; echo err >&2", check=0)
            assert (done.stdout, done.stderr) == expected

    @pytest.mark.parametrize("program", ["docker", str(HAVRE)])
    def test_signals_are_passed_on_unless_told_otherwise(self, engine: Engine, program: str) -> None:
        script = "trap 'echo got it; exit 7' USR1; echo ready; while :; do sleep 0.05; done"
        for option, code in (("--sig-proxy=true", 7), ("--sig-proxy=false", None)):
            command = [program, "run", "--rm", "--name", "signalled", option, "busybox", "sh", "-c", script]
            with subprocess.Popen(command, env=engine.env, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None
                assert client.stdout.readline() == "ready\n"
                if code is None:
                    client.kill()
                    assert engine.out("inspect", "-f", "{{.State.Running}}", "signalled") == "true"
                    engine.out("kill", "-s", "USR1", "signalled")
                else:
                    client.send_signal(signal.SIGUSR1)
                    assert client.communicate(timeout=20)[0] == "got it\n"
                    assert client.returncode == code
            until(lambda: "signalled" not in engine.out("ps", "-a", "--format", "{{.Names}}"), "the end")

    def test_a_platform_that_is_not_here_or_not_known(self, engine: Engine) -> None:
        for client in (engine.docker, engine.havre):
            options = ("run", "--rm", "--pull", "never", "--platform")
            assert client(*options, "linux", "busybox", "echo", "it runs", check=0).stdout == "it runs\n"
            said = client(*options, "linux/arm64", "busybox", "true", check=125).stderr
            assert "does not match the specified platform: wanted linux/arm64, actual: linux/amd64" in said
            said = client(*options, "foo", "busybox", "true").stderr
            assert '"foo": unknown operating system or architecture' in said

    def test_link_local_addresses(self, engine: Engine) -> None:
        engine.out("network", "create", "wire")
        options = ("--network", "wire", "--link-local-ip", "169.254.9.8")
        assert "169.254.9.8/16" in engine.out("run", "--rm", *options, "busybox", "ip", "addr")
        options += ("--link-local-ip", "169.254.9.9", "--name", "wired")  # two of one subnet: one is the other's second
        engine.out("run", "-d", *options, "busybox", "sleep", "1000")
        engine.out("network", "disconnect", "wire", "wired")
        assert engine.out("exec", "wired", "ls", "/sys/class/net") == "lo"
        engine.out("rm", "-f", "wired")
        engine.out("network", "rm", "wire")

    def test_what_programs_know_a_container_by(self, engine: Engine) -> None:
        engine.out("run", "--name", "marked", "busybox", "test", "-f", "/.dockerenv")
        assert engine.out("diff", "marked") == ""
        engine.out("rm", "marked")

    def test_an_empty_command_is_not_found(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "busybox", "", check=127)
        assert 'exec: "": executable file not found in $PATH' in done.stderr

    def test_a_link_to_nobody_is_refused_at_creation(self, engine: Engine) -> None:
        done = engine.docker("create", "--link", "no-such:alias", "busybox", check=1)
        assert "could not get container for no-such: No such container: no-such" in done.stderr


def test_what_has_no_effect_any_more(engine: Engine) -> None:
    """Kernel memory is taken and left, as the kernel has no such limit; nothing is verified by default."""
    for run in (engine.docker, engine.havre):
        options = ("--kernel-memory", "100m", "--disable-content-trust", "--name", "old")
        assert run("run", *options, "busybox", "echo", "hi", check=0).stdout == "hi\n"
        assert engine.out("inspect", "-f", "{{.HostConfig.KernelMemory}} {{.HostConfig.Memory}}", "old") == "0 0"
        engine.out("rm", "old")


def test_what_nobody_can_verify_is_refused(havred: Engine) -> None:
    """docker's own command line asks Notary's server, which is gone."""
    trust = "--disable-content-trust=false"
    for words in (("run", trust, "busybox"), ("create", trust, "busybox"), ("pull", trust, "x"), ("push", trust, "x")):
        assert "content trust is not supported" in havred.havre(*words, check=125 if "busybox" in words else 1).stderr
    havred.env["DOCKER_CONTENT_TRUST"] = "1"
    try:
        assert "content trust is not supported" in havred.havre("run", "busybox", check=125).stderr
        havred.havre("run", "--rm", "--disable-content-trust", "busybox", "true", check=0)
    finally:
        del havred.env["DOCKER_CONTENT_TRUST"]
    assert havred.out("ps", "-aq") == ""
