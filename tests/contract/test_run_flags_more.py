"""Flags of `docker run` that need something of their own around them: a disk, a parent group, signals, mounts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import HAVRE, Engine, Havred, serving
from support.engines import run as command
from support.raw import ask
from support.waiting import until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A block device of the test's own, whose scheduler knows weights."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    device = command("losetup", "--find", "--show", str(image)).strip()
    Path(f"/sys/block/{Path(device).name}/queue/scheduler").write_text("bfq")
    yield device
    command("losetup", "--detach", device)


class TestLimits:
    def test_weights_of_block_io(self, engine: Engine, disk: str) -> None:
        """They take effect, or it is said that the kernel has none."""
        script = "cat /sys/fs/cgroup/blkio/blkio*weight* /sys/fs/cgroup/io.bfq.weight 2>/dev/null; true"
        options = ("--blkio-weight", "300", "--blkio-weight-device", f"{disk}:400")
        done = engine.docker("run", "--rm", *options, "busybox", "sh", "-c", script, check=0)
        if "discarded" in done.stderr:
            assert "Block I/O weight or the cgroup is not mounted. Weight discarded." in done.stderr
            assert "Block I/O weight_device or the cgroup is not mounted. Weight-device discarded." in done.stderr
        else:
            number = os.stat(disk).st_rdev
            assert "300" in done.stdout.split()
            assert f"{os.major(number)}:{os.minor(number)} 400" in done.stdout

    def test_a_weight_that_the_device_s_scheduler_does_not_know(self, havred: Engine, disk: str) -> None:
        Path(f"/sys/block/{Path(disk).name}/queue/scheduler").write_text("none")
        done = havred.docker("run", "--rm", "--blkio-weight-device", f"{disk}:400", "busybox", "true")
        assert f"block I/O weight of {disk}: its scheduler is not bfq" in done.stderr or "discarded" in done.stderr

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
            for group in Path("/sys/fs/cgroup").glob(f"*/{name}"):
                group.rmdir()

    def test_what_is_for_windows_is_refused(self, engine: Engine) -> None:
        for option in ("--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops"):
            done = engine.docker("run", "--rm", option, "2", "busybox", "true")
            assert done.returncode != 0
            assert "windows" in done.stderr.lower()


class TestMounts:
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
