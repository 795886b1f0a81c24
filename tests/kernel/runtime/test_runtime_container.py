"""What a container does and is confined to, seen from inside it, under every OCI runtime."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from havre.errors import Conflict, HavreError
from havre.runtime.plan import Bind, Device, ExecPlan, Resources, Rlimit, Tmpfs, User
from support.boxes import Box, collect, execute, stuck


def test_output_and_exit_code(boxed):
    async def body(box: Box) -> None:
        before = time.time()
        out, err, end = await box.run("sh", "-c", "echo out; echo err >&2; exit 3")
        assert (out, err, end.code, end.oom_killed) == (b"out\n", b"err\n", 3, False)
        assert before - 1 <= end.finished_at <= time.time() + 1

    boxed(body)


def test_everything_written_arrives_once(boxed):
    async def body(box: Box) -> None:
        out, _, end = await box.run("seq", "1", "200000")
        assert out == b"".join(b"%d\n" % number for number in range(1, 200001))
        assert end.code == 0

    boxed(body)


def test_the_oci_runtime_knows_what_runs_and_keeps_nothing_of_what_ended(boxed):
    async def body(box: Box) -> None:
        known = box.run_root / "oci" / box.name

        def told(container_id: str) -> str:
            command = [box.name, f"--root={known}", "state", container_id]
            state: str = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["status"]
            return state

        container_id = box.new_id()
        process = await box.runtime.create(container_id, box.plan("cat", open_stdin=True, stdin_once=True), None)
        assert told(container_id) == "created"
        await process.start()
        assert told(container_id) == "running"
        await process.close_stdin()
        assert (await process.wait()).code == 0
        await box.runtime.cleanup(container_id)
        assert not (known / container_id).exists()

    boxed(body)


def test_input_is_taken_whole_and_ends(boxed):
    async def body(box: Box) -> None:
        data = os.urandom(700_000)
        process = await box.runtime.create(box.new_id(), box.plan("cat", open_stdin=True, stdin_once=True), None)

        async def feed() -> None:
            await process.write_stdin(data)
            await process.close_stdin()

        feeding = asyncio.create_task(feed())
        out, _, end = await collect(process)
        await feeding
        assert out == data
        assert end.code == 0
        await box.runtime.cleanup(process.id)

    boxed(body)


def test_terminal_with_size_and_resize(boxed):
    async def body(box: Box) -> None:
        script = "stty size; until stty size | grep '21 41'; do sleep 0.01; done; exit 5"
        more = {"tty": True, "open_stdin": True, "console_size": (33, 77)}
        process = await box.runtime.create(box.new_id(), box.plan("sh", "-c", script, **more), None)
        output = process.output.subscribe()
        await process.start()
        seen = bytearray()
        async for stream, data in output:
            assert stream == 1
            seen += data
            if seen == b"33 77\r\n":
                await process.resize(20, 40)
                await process.resize(21, 41)
        assert seen.endswith(b"21 41\r\n")
        assert (await process.wait()).code == 5
        await box.runtime.cleanup(process.id)

    boxed(body)


def test_kill_gives_128_and_the_signal(boxed):
    async def body(box: Box) -> None:
        async with box.started("sleep", "1000") as process:
            await process.kill(signal.SIGKILL)
            assert (await process.wait()).code == 137
            with pytest.raises(Conflict):
                await process.kill(signal.SIGTERM)

    boxed(body)


def test_pause_stops_it_and_resume_lets_it_go_on(boxed):
    async def body(box: Box) -> None:
        async with box.started("sh", "-c", "while read x; do echo $x; done", open_stdin=True) as process:
            output = process.output.subscribe()
            await process.pause()
            await process.write_stdin(b"one\n")
            reading = asyncio.ensure_future(anext(output))
            assert not (await asyncio.wait([reading], timeout=0.2))[0]
            await process.resume()
            assert await reading == (1, b"one\n")
            await process.kill(signal.SIGKILL)
            await process.wait()

    boxed(body)


def test_capabilities_are_dockers_and_never_inheritable(boxed):
    async def body(box: Box) -> None:
        out, _, _ = await box.run("cat", "/proc/self/status")
        masks = dict(line.split(":\t") for line in out.decode().splitlines() if line.startswith(("Cap", "Seccomp:")))
        assert masks["CapInh"] == masks["CapAmb"] == "0000000000000000"
        assert masks["CapPrm"] == masks["CapEff"] == masks["CapBnd"] == "00000000a80425fb"
        assert masks["Seccomp"] == "2"
        out, _, _ = await box.run("cat", "/proc/self/status", cap_drop=("ALL",), cap_add=("net_admin",))
        assert b"CapBnd:\t0000000000001000" in out

    boxed(body)


def test_kernel_files_are_masked_or_read_only(boxed):
    async def body(box: Box) -> None:
        script = (
            "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; touch /sys/x; mount"
        )
        out, err, _ = await box.run("sh", "-c", script)
        assert out.split()[:2] == [b"0", b"0"]
        assert err.count(b"Read-only file system") == 2
        assert b"proc on /proc/sys type proc (ro" in out
        assert b"sysfs on /sys type sysfs (ro" in out

    boxed(body)


def test_dev_holds_what_docker_gives(boxed):
    async def body(box: Box) -> None:
        out, _, _ = await box.run("ls", "/dev", devices=(Device(path="/dev/mynull", type="c", major=1, minor=3),))
        expected = b"fd full mqueue mynull null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
        assert set(out.split()) - {b"core", b"console"} == set(expected)
        _, err, end = await box.run("sh", "-c", "echo x > /dev/mynull; cat /dev/kmsg")
        assert end.code != 0
        assert b"/dev/kmsg" in err

    boxed(body)


def test_limits_hold_inside(boxed):
    async def body(box: Box) -> None:
        limits = Resources(memory=32 << 20, nano_cpus=500_000_000, pids_limit=20)
        script = "for i in $(seq 30); do sleep 5 & done; exit 0"
        _, err, _ = await box.run("sh", "-c", script, resources=limits)
        assert b"fork" in err
        _, _, end = await box.run("dd", "if=/dev/zero", "of=/dev/null", "bs=60M", "count=1", resources=limits)
        assert end.code == 137
        assert end.oom_killed
        out, _, _ = await box.run("sh", "-c", "ulimit -n", rlimits=(Rlimit(name="nofile", soft=100, hard=200),))
        assert out == b"100\n"

    boxed(body)


def test_a_child_killed_for_memory_counts_as_oom(boxed):
    async def body(box: Box) -> None:
        script = "dd if=/dev/zero of=/dev/null bs=60M count=1; exit 7"
        _, _, end = await box.run("sh", "-c", script, resources=Resources(memory=32 << 20))
        assert (end.code, end.oom_killed) == (7, True)

    boxed(body)


def test_mounts(boxed, tmp_path: Path):
    (tmp_path / "file").write_text("from the host")

    async def body(box: Box) -> None:
        mounts = (
            Bind(source=tmp_path, destination="/mnt", read_only=True),
            Bind(source=tmp_path, destination="/rw"),
            Tmpfs(destination="/mnt2", options=("size=1m", "mode=700")),
        )
        script = "cat /mnt/file; touch /mnt/x; touch /rw/y; touch /z; mount | grep -E ' on /(mnt2|dev/shm) '"
        out, err, _ = await box.run("sh", "-c", script, mounts=mounts, readonly_rootfs=True, shm_size=2 << 20)
        assert out.startswith(b"from the host")
        assert err.count(b"Read-only file system") == 2
        assert (tmp_path / "y").exists()
        assert b"tmpfs on /mnt2 type tmpfs (rw,nosuid,nodev,noexec,relatime,size=1024k,mode=700" in out
        assert b"shm on /dev/shm type tmpfs (rw,nosuid,nodev,noexec,relatime,size=2048k" in out

    boxed(body)


def test_namespaces_hostname_and_sysctls(boxed):
    async def body(box: Box) -> None:
        script = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo $$; readlink /proc/self/ns/net"
        out, _, _ = await box.run("sh", "-c", script, hostname="web")
        name, port, pid, net = out.decode().split()
        assert (name, port, pid) == ("web", "0", "1")
        assert net != os.readlink("/proc/self/ns/net")
        out, _, _ = await box.run("readlink", "/proc/self/ns/net", network="host")
        assert out.decode().strip() == os.readlink("/proc/self/ns/net")

    boxed(body)


def test_init_is_pid_1_and_keeps_the_code(boxed):
    async def body(box: Box) -> None:
        out, _, end = await box.run("sh", "-c", "cat /proc/1/cmdline; exit 9", init=True)
        assert out.startswith(b"/sbin/docker-init\0--\0")
        assert end.code == 9

    boxed(body)


def test_user_and_groups(boxed):
    async def body(box: Box) -> None:
        out, _, _ = await box.run("id", user=User(uid=1000, gid=100, groups=(50, 60)))
        assert out == b"uid=1000(alice) gid=100(users) groups=50(extra),60,100(users)\n"

    boxed(body)


def test_only_three_descriptors_are_inherited(boxed):
    async def body(box: Box) -> None:
        out, _, _ = await box.run("sh", "-c", "ls /proc/$$/fd; true")
        assert set(out.split()) == {b"0", b"1", b"2"}

    boxed(body)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("foo",), 'exec: "foo": executable file not found in $PATH: unknown'),
        (("/foo",), 'exec: "/foo": stat /foo: no such file or directory: unknown'),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied: unknown'),
        (("/etc",), 'exec: "/etc": is a directory'),
    ],
)
def test_what_cannot_start_says_so_in_dockers_words(boxed, args, words):
    async def body(box: Box) -> None:
        with pytest.raises(HavreError) as failure:
            await box.run(*args)
        assert "OCI runtime create failed" in str(failure.value)
        assert words in str(failure.value)
        assert box.runtime.leftovers() == []
        async with box.started("sleep", "1000") as process:
            for tty in (False, True):
                with pytest.raises(HavreError) as failure:
                    await execute(process, *args, tty=tty)
                assert "OCI runtime exec failed" in str(failure.value)
                assert words in str(failure.value)

    boxed(body)


def test_exec(boxed):
    async def body(box: Box) -> None:
        async with box.started("sleep", "1000", env=("A=1",), cap_drop=("CHOWN",)) as process:
            out, err, end = await execute(process, "sh", "-c", "echo $A$B; echo e >&2; exit 4", env=("B=2",))
            assert (out, err, end.code) == (b"12\n", b"e\n", 4)
            out, _, _ = await execute(process, "id", user=User(uid=1000, gid=1000, groups=(50, 100)))
            assert out == b"uid=1000(alice) gid=1000 groups=50(extra),100(users),1000\n"
            out, _, _ = await execute(process, "cat", "/proc/self/status")
            assert b"CapInh:\t0000000000000000" in out
            assert b"CapEff:\t00000000a80425fa" in out
            for _ in range(5):
                out, _, end = await execute(process, "stty", "size", tty=True, console_size=(11, 22))
                assert (out, end.code) == (b"11 22\r\n", 0)
            assert len(await process.pids()) == 1
            assert process.exited() is None

    boxed(body)


def test_exec_input(boxed):
    async def body(box: Box) -> None:
        async with box.started("sleep", "1000") as process:
            exec = process.exec(ExecPlan(args=("wc", "-c"), open_stdin=True))
            output = exec.output.subscribe()
            await exec.start()
            await exec.write_stdin(b"x" * 100_000)
            await exec.close_stdin()
            assert b"".join([data async for _, data in output]) == b"100000\n"
            assert (await exec.wait()).code == 0

    boxed(body)


def test_log_is_written(boxed, tmp_path: Path):
    async def body(box: Box) -> None:
        async with box.started("sh", "-c", "echo a; echo b >&2", log=tmp_path / "ctr.log") as process:
            await process.wait()
            lines = [line.split(" ", 3)[1:] for line in (tmp_path / "ctr.log").read_text().splitlines()]
            assert sorted(lines) == [["stderr", "F", "b"], ["stdout", "F", "a"]]

    boxed(body)


def test_a_slow_reader_makes_the_container_wait_and_loses_nothing(boxed):
    async def body(box: Box) -> None:
        total = 16 << 20
        async with box.started("sh", "-c", f"read x; exec head -c {total} /dev/zero", open_stdin=True) as process:
            output = process.output.subscribe()
            await process.write_stdin(b"go\n")
            await stuck(process.pid)
            size = 0
            async for _, data in output:
                size += len(data)
            assert (await process.wait()).code == 0
            assert size == total

    boxed(body)


def test_a_reader_that_stops_does_not_hide_the_end(boxed):
    async def body(box: Box) -> None:
        async with box.started("cat", "/dev/zero") as process:
            output = process.output.subscribe()
            await stuck(process.pid)
            await process.kill(signal.SIGKILL)
            assert (await asyncio.wait_for(process.wait(), 10)).code == 137
            output.close()

    boxed(body)


def test_a_reader_that_leaves_sets_the_container_free(boxed):
    async def body(box: Box) -> None:
        async with box.started("sh", "-c", f"exec head -c {16 << 20} /dev/zero") as process:
            output = process.output.subscribe()
            await stuck(process.pid)
            output.close()
            assert (await asyncio.wait_for(process.wait(), 10)).code == 0

    boxed(body)
