"""`docker run`: what a container is given, seen from inside it, and what comes out of it."""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path

import pytest

from support.engines import Engine


def run(engine: Engine, *arguments: str, stdin: str | None = None) -> str:
    """Output of a successful `docker run --rm`."""
    return engine.out("run", "--rm", *arguments, stdin=stdin)


def status_field(engine: Engine, field: str, *options: str) -> str:
    """A field of /proc/self/status inside a container."""
    text = run(engine, *options, "busybox", "cat", "/proc/self/status")
    return re.search(rf"^{field}:\s*(.*)$", text, re.M)[1]  # type: ignore[index]


class TestOutcome:
    def test_output_goes_where_the_program_sent_it(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2", check=0)
        assert (done.stdout, done.stderr) == ("out\n", "err\n")

    @pytest.mark.parametrize("code", [0, 1, 7, 255])
    def test_exit_code_is_the_containers(self, engine: Engine, code: int) -> None:
        engine.docker("run", "--rm", "busybox", "sh", "-c", f"exit {code}", check=code)

    def test_death_by_signal_is_128_and_the_signal(self, engine: Engine) -> None:
        engine.out("run", "-d", "--name", "killed", "busybox", "sleep", "1000")
        engine.docker("kill", "killed", check=0)
        assert engine.out("wait", "killed") == "137"
        engine.out("rm", "killed")

    def test_command_not_found_is_127(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "busybox", "no-such-program", check=127)
        assert 'exec: "no-such-program": executable file not found in $PATH' in done.stderr

    def test_absolute_command_not_found_is_127(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "busybox", "/no/such", check=127)
        assert "no such file or directory" in done.stderr

    def test_command_that_cannot_be_executed_is_126(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "busybox", "/etc/passwd", check=126)
        assert "permission denied" in done.stderr

    def test_directory_as_command_is_126(self, engine: Engine) -> None:
        engine.docker("run", "--rm", "busybox", "/etc", check=126)

    def test_failed_start_leaves_nothing_with_rm(self, engine: Engine) -> None:
        engine.docker("run", "--rm", "--name", "gone", "busybox", "no-such-program", check=127)
        assert engine.out("ps", "-aq", "--filter", "name=gone") == ""

    def test_missing_image_with_pull_never_is_125(self, engine: Engine) -> None:
        done = engine.docker("run", "--pull", "never", "no-such-image", check=125)
        assert "No such image: no-such-image:latest" in done.stderr

    def test_workdir_that_is_a_file_is_refused(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "-w", "/etc/passwd", "busybox", "true", check=125)
        assert "Cannot mkdir: /etc/passwd is not a directory" in done.stderr
        below = engine.docker("run", "--rm", "-w", "/etc/passwd/x", "busybox", "true", check=125)
        assert "not a directory" in below.stderr

    def test_detached_prints_the_id(self, engine: Engine) -> None:
        identifier = engine.out("run", "-d", "busybox", "true")
        assert re.fullmatch("[0-9a-f]{64}", identifier)
        assert engine.out("wait", identifier) == "0"
        assert engine.out("rm", identifier) == identifier

    def test_without_rm_it_stays_with_its_code(self, engine: Engine) -> None:
        engine.docker("run", "--name", "stays", "busybox", "sh", "-c", "exit 3", check=3)
        assert engine.out("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "stays") == "exited 3"
        engine.out("rm", "stays")

    def test_large_output_arrives_whole(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "busybox", "head", "-c", "20000000", "/dev/zero", check=0)
        assert len(done.stdout) == 20_000_000


class TestStdin:
    def test_reaches_the_program_and_ends(self, engine: Engine) -> None:
        assert run(engine, "-i", "busybox", "cat", stdin="one\ntwo\n") == "one\ntwo"

    def test_large_input_arrives_whole(self, engine: Engine) -> None:
        data = "0123456789abcdef" * 500_000
        done = engine.docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat | md5sum", stdin=data, check=0)
        assert done.stdout.split()[0] == hashlib.md5(data.encode()).hexdigest()

    def test_without_i_there_is_none(self, engine: Engine) -> None:
        assert run(engine, "busybox", "cat", stdin="unheard") == ""


class TestProcess:
    def test_environment(self, engine: Engine, tmp_path: Path) -> None:
        file = tmp_path / "env"
        file.write_text("# a comment\nFROM_FILE=1\n")
        shown = run(
            engine, "-e", "GIVEN=x y", "--env-file", str(file), "--hostname", "h1", "busybox", "env"
        ).splitlines()
        assert {"GIVEN=x y", "FROM_FILE=1", "HOSTNAME=h1", "HOME=/root"} <= set(shown)
        assert any(line.startswith("PATH=/usr/local/sbin:/usr/local/bin:") for line in shown)

    def test_working_directory_is_made(self, engine: Engine) -> None:
        assert run(engine, "-w", "/made/for/you", "busybox", "pwd") == "/made/for/you"

    @pytest.mark.parametrize(
        ("user", "expected"),
        [("1000", "1000:0"), ("1000:2000", "1000:2000"), ("nobody", "65534:65534"), ("root", "0:0")],
    )
    def test_user(self, engine: Engine, user: str, expected: str) -> None:
        assert run(engine, "-u", user, "busybox", "sh", "-c", "echo $(id -u):$(id -g)") == expected

    def test_unknown_user_is_refused(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "-u", "whoever", "busybox", "true")
        assert done.returncode in {125, 126}
        assert "unable to find user whoever: no matching entries in passwd file" in done.stderr

    def test_supplementary_groups(self, engine: Engine) -> None:
        groups = run(engine, "-u", "1000:1000", "--group-add", "1234", "busybox", "id", "-G").split()
        assert set(groups) == {"1000", "1234"}

    def test_entrypoint_replaces_and_takes_arguments(self, engine: Engine) -> None:
        assert run(engine, "--entrypoint", "echo", "busybox", "a", "b") == "a b"

    def test_hostname_by_default_is_the_short_id(self, engine: Engine) -> None:
        identifier = engine.out("run", "-d", "busybox", "hostname")
        engine.out("wait", identifier)
        assert engine.out("logs", identifier) == identifier[:12]
        engine.out("rm", identifier)

    def test_init_is_pid_1_and_reaps(self, engine: Engine) -> None:
        comm = run(engine, "--init", "busybox", "cat", "/proc/1/comm")
        assert comm in {"docker-init", "catatonit", "tini"}

    def test_program_is_pid_1_without_init(self, engine: Engine) -> None:
        assert run(engine, "busybox", "sh", "-c", "echo $$") == "1"

    def test_ulimit(self, engine: Engine) -> None:
        assert run(engine, "--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn") == "100\n200"

    def test_only_the_three_standard_descriptors(self, engine: Engine) -> None:
        assert run(engine, "busybox", "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"], (
            "the last is the directory"
        )


class TestIsolation:
    def test_default_capabilities(self, engine: Engine) -> None:
        assert status_field(engine, "CapEff") == "00000000a80425fb"
        assert status_field(engine, "CapBnd") == "00000000a80425fb"
        assert status_field(engine, "CapInh") == "0000000000000000"

    def test_capabilities_dropped_and_added(self, engine: Engine) -> None:
        assert status_field(engine, "CapEff", "--cap-drop", "ALL") == "0000000000000000"
        assert status_field(engine, "CapEff", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == f"{1 << 12:016x}"
        assert status_field(engine, "CapEff", "--cap-add", "sys_time") == f"{0xA80425FB | 1 << 25:016x}"

    def test_unknown_capability_is_refused(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "--cap-add", "FLY", "busybox", "true", check=125)
        assert "CAP_FLY" in done.stderr

    def test_a_user_has_no_effective_capability(self, engine: Engine) -> None:
        assert status_field(engine, "CapEff", "-u", "1000") == "0000000000000000"

    def test_calls_that_the_profile_is_too_old_for_do_not_exist(self, engine: Engine, tmp_path: Path) -> None:
        """A libc falls back to older calls upon ENOSYS alone."""
        script = "for (457..469, 1000, 272) { $! = 0; syscall($_, 0x10000000, 0, 0, 0, 0, 0); print $!+0, ' ' }"
        (tmp_path / "script").write_text(script)
        perl = ("chroot", "/host", "/usr/bin/perl", "/tmp/script")
        places = (*((f"/{name}", name) for name in ("usr", "lib", "lib64")), (str(tmp_path), "tmp"))
        host = tuple(word for source, name in places for word in ("-v", f"{source}:/host/{name}:ro"))
        expected = [str(errno.ENOSYS)] * 14 + [str(errno.EPERM)]
        id = engine.out("run", "-d", *host, "busybox", "sleep", "1000")
        assert engine.out("exec", id, *perl).split() == expected
        engine.docker("rm", "-f", id, check=0)
        assert engine.out("run", "--rm", *host, "busybox", *perl).split() == expected

    def test_seccomp_filters_by_default(self, engine: Engine) -> None:
        assert status_field(engine, "Seccomp") == "2"
        assert status_field(engine, "Seccomp", "--security-opt", "seccomp=unconfined") == "0"

    def test_no_new_privileges(self, engine: Engine) -> None:
        assert status_field(engine, "NoNewPrivs") == "0"
        assert status_field(engine, "NoNewPrivs", "--security-opt", "no-new-privileges") == "1"

    def test_mount_is_not_permitted(self, engine: Engine) -> None:
        engine.docker("run", "--rm", "busybox", "mount", "-t", "tmpfs", "none", "/mnt", check=1)

    def test_privileged_may_mount_and_sees_devices(self, engine: Engine) -> None:
        assert status_field(engine, "Seccomp", "--privileged") == "0"
        script = (
            "mkdir -p /m && mount -t tmpfs none /m && test -w /proc/sys/kernel && ls /dev/loop-control || ls /dev/kmsg"
        )
        run(engine, "--privileged", "busybox", "sh", "-c", script)

    def test_masked_and_readonly_paths(self, engine: Engine) -> None:
        assert run(engine, "busybox", "sh", "-c", "wc -c < /proc/keys; wc -c </proc/timer_list") == "0\n0"
        done = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        assert done.returncode != 0
        assert "Read-only file system" in done.stderr

    def test_devices_are_dockers(self, engine: Engine) -> None:
        listed = run(engine, "busybox", "ls", "/dev").split()
        assert {
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "tty",
            "fd",
            "stdin",
            "stdout",
            "stderr",
            "ptmx",
            "pts",
            "shm",
            "mqueue",
        } <= set(listed)
        assert not {"sda", "vda", "kmsg", "mem", "loop0"} & set(listed)

    def test_mknod_is_bounded_by_the_device_cgroup(self, engine: Engine) -> None:
        done = engine.docker(
            "run", "--rm", "busybox", "sh", "-c", "mknod /tmp/vda b 254 0 && head -c 1 /tmp/vda", check=1
        )
        assert "Operation not permitted" in done.stderr

    def test_sys_is_read_only(self, engine: Engine) -> None:
        engine.docker("run", "--rm", "busybox", "mkdir", "/sys/kernel/x", check=1)

    def test_processes_of_the_host_are_invisible(self, engine: Engine) -> None:
        assert int(run(engine, "busybox", "sh", "-c", "ls -d /proc/[0-9]* | wc -l")) < 5


class TestLimits:
    MEMORY = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    PIDS = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null"

    def test_memory(self, engine: Engine) -> None:
        assert run(engine, "--memory", "64m", "busybox", "sh", "-c", self.MEMORY + " || true") == str(64 << 20)

    def test_memory_is_enforced(self, engine: Engine) -> None:
        script = "dd if=/dev/zero of=/dev/null bs=200M count=1"
        engine.docker(
            "run",
            "--name",
            "oom",
            "--memory",
            "32m",
            "--memory-swap",
            "32m",
            "busybox",
            "sh",
            "-c",
            f"exec {script}",
            check=137,
        )
        told = engine.out("inspect", "--format", "{{.State.OOMKilled}}", "oom")
        # dockerd learns of it by an event, which the exit may overtake.
        assert told == "true" or engine.name == "dockerd"
        engine.out("rm", "oom")

    def test_memory_below_the_minimum_is_refused(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "--memory", "1m", "busybox", "true", check=125)
        assert "Minimum memory limit allowed is 6MB" in done.stderr

    def test_pids(self, engine: Engine) -> None:
        assert run(engine, "--pids-limit", "33", "busybox", "sh", "-c", self.PIDS + " || true") == "33"

    def test_cpus(self, engine: Engine) -> None:
        script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max"
        assert run(engine, "--cpus", "0.5", "busybox", "sh", "-c", script) == "50000"

    def test_too_many_cpus_are_refused(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "--cpus", "999", "busybox", "true", check=125)
        assert "Range of CPUs is from 0.01 to" in done.stderr

    def test_shm_size(self, engine: Engine) -> None:
        shown = run(engine, "--shm-size", "16m", "busybox", "df", "-k", "/dev/shm").splitlines()[-1].split()
        assert shown[1] == "16384"


class TestFiles:
    def test_bind_mount_writes_through(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "given").write_text("from outside")
        assert (
            run(engine, "-v", f"{tmp_path}:/data", "busybox", "sh", "-c", "cat /data/given; echo inside > /data/made")
            == "from outside"
        )
        assert (tmp_path / "made").read_text() == "inside\n"

    def test_read_only_bind_mount(self, engine: Engine, tmp_path: Path) -> None:
        done = engine.docker("run", "--rm", "-v", f"{tmp_path}:/data:ro", "busybox", "touch", "/data/x", check=1)
        assert "Read-only file system" in done.stderr

    def test_v_makes_the_missing_host_folder(self, engine: Engine, tmp_path: Path) -> None:
        run(engine, "-v", f"{tmp_path}/new/folder:/data", "busybox", "touch", "/data/x")
        assert (tmp_path / "new/folder/x").exists()

    def test_mount_refuses_the_missing_host_folder(self, engine: Engine, tmp_path: Path) -> None:
        option = f"type=bind,source={tmp_path}/missing,target=/data"
        done = engine.docker("run", "--rm", "--mount", option, "busybox", "true", check=125)
        assert "bind source path does not exist" in done.stderr

    def test_named_volume_outlives_the_container(self, engine: Engine) -> None:
        run(engine, "-v", "kept:/data", "busybox", "sh", "-c", "echo hello > /data/x")
        assert run(engine, "-v", "kept:/data:ro", "busybox", "cat", "/data/x") == "hello"
        assert engine.out("volume", "rm", "kept") == "kept"

    def test_new_volume_holds_what_the_image_has_there(self, engine: Engine) -> None:
        assert "root:" in run(engine, "-v", "copied:/etc", "busybox", "cat", "/etc/passwd")
        engine.out("volume", "rm", "copied")

    def test_anonymous_volume_goes_with_rm(self, engine: Engine) -> None:
        before = set(engine.out("volume", "ls", "-q").split())
        run(engine, "-v", "/data", "busybox", "touch", "/data/x")
        assert set(engine.out("volume", "ls", "-q").split()) == before

    def test_tmpfs(self, engine: Engine) -> None:
        shown = run(
            engine,
            "--tmpfs",
            "/scratch:size=1m,mode=700",
            "busybox",
            "sh",
            "-c",
            "grep /scratch /proc/mounts; stat -c %a /scratch",
        )
        assert "tmpfs /scratch tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=700" in shown
        assert shown.endswith("700")

    def test_read_only_root(self, engine: Engine) -> None:
        done = engine.docker("run", "--rm", "--read-only", "busybox", "touch", "/x", check=1)
        assert "Read-only file system" in done.stderr

    def test_writes_stay_in_the_container(self, engine: Engine) -> None:
        run(engine, "busybox", "sh", "-c", "rm -rf /etc/passwd; echo x > /new")
        assert run(engine, "busybox", "sh", "-c", "ls /etc/passwd; ls /new 2>/dev/null; true") == "/etc/passwd"

    @pytest.mark.parametrize("bad", ["/host:relative", "/host:/", "a/b:/x", "/host:/x:bogus"])
    def test_bad_volume_is_refused(self, engine: Engine, bad: str) -> None:
        engine.docker("run", "--rm", "-v", bad, "busybox", "true", check=125)


class TestNetwork:
    def test_bridge_by_default(self, engine: Engine) -> None:
        shown = run(engine, "busybox", "ip", "-4", "-o", "addr", "show", "eth0")
        assert re.search(r"inet 172\.17\.0\.\d+/16", shown)
        assert "default via 172.17.0.1 dev eth0" in run(engine, "busybox", "ip", "route")

    def test_none_has_loopback_alone(self, engine: Engine) -> None:
        assert run(engine, "--network", "none", "busybox", "sh", "-c", "ls /sys/class/net") == "lo"

    def test_host_shares_the_hosts(self, engine: Engine) -> None:
        links = run(engine, "--network", "host", "busybox", "ls", "/sys/class/net").split()
        assert "eth0" not in links
        assert "lo" in links

    def test_hosts_file_names_the_container(self, engine: Engine) -> None:
        lines = run(
            engine, "--hostname", "me", "--add-host", "other:10.1.2.3", "busybox", "cat", "/etc/hosts"
        ).splitlines()
        assert "127.0.0.1\tlocalhost" in lines
        assert "10.1.2.3\tother" in lines
        assert any(re.fullmatch(r"172\.17\.0\.\d+\tme", line) for line in lines)

    def test_dns_options(self, engine: Engine) -> None:
        shown = run(engine, "--dns", "10.9.8.7", "--dns-search", "example.test", "busybox", "cat", "/etc/resolv.conf")
        assert "nameserver 10.9.8.7" in shown
        assert "search example.test" in shown

    def test_containers_reach_each_other(self, engine: Engine) -> None:
        engine.out(
            "run", "-d", "--name", "server", "busybox", "sh", "-c", "echo page > /index.html; httpd -f -p 80 -h /"
        )
        address = engine.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "server")
        fetch = "for i in $(seq 50); do wget -q -O- http://$0/ 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
        assert run(engine, "busybox", "sh", "-c", fetch, address) == "page"
        engine.out("rm", "-f", "server")
