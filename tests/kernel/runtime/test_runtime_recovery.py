"""The daemon, conmon or both are gone: containers run on, and their true end is known."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from havre.errors import Failed, Unavailable
from havre.linux import pidfd
from havre.linux.cgroups import groups_of, read_cgroups, service_trees
from havre.runtime import Runtime, spawn
from support.boxes import Box, execute, soon

# A daemon in small: it creates a container, maybe starts it, tells its PID and is killed with -9.
DAEMON = """
import asyncio, os, signal, sys
from pathlib import Path
from havre.linux.cgroups import read_cgroups, service_trees
from havre.runtime import ContainerPlan, Runtime

async def main(run_root, rootfs, name, container_id, start, script):
    if start == "service":
        for tree in service_trees(read_cgroups()).values():
            (tree / "havre-service/cgroup.procs").write_text(str(os.getpid()))
    runtime = await Runtime.open(Path(run_root), {}, name)
    plan = ContainerPlan(rootfs=Path(rootfs), args=("sh", "-c", script), env=("PATH=/bin",), open_stdin=True)
    process = await runtime.create(container_id, plan, Path(run_root) / "ctr.log")
    if start:
        await process.start()
    print(process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


def abandoned(box: Box, container_id: str, script: str, start: str = "start") -> int:
    """A container whose daemon is dead; the PID of its first process."""
    command = [sys.executable, "-c", DAEMON, str(box.run_root), str(box.rootfs), box.name, container_id, start, script]
    daemon = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    assert daemon.returncode == -signal.SIGKILL
    return int(daemon.stdout)


def conmon_of(pid: int) -> int:
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert Path(f"/proc/{parent}/comm").read_text() == "conmon\n"
    return parent


def test_a_running_container_is_adopted(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        pid = abandoned(box, container_id, "while read x; do echo got $x; done; exit 4")
        assert box.runtime.leftovers() == [container_id]
        process = await box.runtime.adopt(container_id)
        assert process is not None
        assert (process.pid, process.runtime, process.rootfs) == (pid, box.name, box.rootfs)
        assert process.exited() is None
        output = process.output.subscribe()
        await process.write_stdin(b"hello\n")
        assert await anext(output) == (1, b"got hello\n")
        out, _, end = await execute(process, "sh", "-c", "echo in; exit 3")
        assert (out, end.code) == (b"in\n", 3)
        assert pid in await process.pids()
        await process.kill(signal.SIGKILL)
        assert (await process.wait()).code == 137
        assert [chunk async for chunk in output] == []
        assert "got hello" in (box.run_root / "ctr.log").read_text()
        await box.runtime.cleanup(container_id)

    boxed(body)


def test_many_are_adopted_without_a_process_for_each(boxed, monkeypatch):
    """A daemon that starts again among hundreds of containers reads files; it does not ask the OCI runtime."""

    async def body(box: Box) -> None:
        container_id = box.new_id()
        pid = abandoned(box, container_id, "sleep 1000")
        with monkeypatch.context() as patched:
            patched.setattr(spawn, "start", None)
            process = await box.runtime.adopt(container_id)
        assert process is not None
        assert (process.pid, process.exited()) == (pid, None)
        await box.runtime.cleanup(container_id)

    boxed(body)


def test_an_end_without_a_daemon_is_known(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        before = time.time()
        abandoned(box, container_id, "exit 42")
        exit_file = box.runtime.bundle(container_id) / "exit" / container_id
        await soon(exit_file.exists, "the end of the container")
        ended = exit_file.stat().st_mtime
        process = await box.runtime.adopt(container_id)
        assert process is not None
        end = await process.wait()
        assert end.code == 42
        assert ended <= end.finished_at < ended + 0.1
        assert before - 1 < ended < time.time() + 1
        assert [chunk async for chunk in process.output.subscribe()] == []
        await box.runtime.cleanup(container_id)

    boxed(body)


def test_what_was_never_started_is_cleared_away(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        pid = abandoned(box, container_id, "exit 42", start="")
        assert await box.runtime.adopt(container_id) is None
        assert not Path(f"/proc/{pid}").exists()
        assert await box.runtime.adopt(container_id) is None

    boxed(body)


def test_a_bundle_without_a_container_is_cleared_away(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        box.runtime.bundle(container_id).mkdir()
        assert await box.runtime.adopt(container_id) is None

    boxed(body)


@pytest.mark.parametrize("code", [0, 11])
def test_a_killed_conmon_does_not_hide_the_end(boxed, code):
    async def body(box: Box) -> None:
        async with box.started("sh", "-c", f"read x; exit {code}", open_stdin=True) as process:
            os.kill(conmon_of(process.pid), signal.SIGKILL)
            # Without conmon nobody holds the other end of its standard input: it reads the end of it.
            assert (await process.wait()).code == code

    boxed(body)


def test_conmon_and_daemon_killed(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        pid = abandoned(box, container_id, "sleep 1000")
        conmon = conmon_of(pid)
        descriptor = pidfd.open_process(conmon)
        os.kill(conmon, signal.SIGKILL)
        await pidfd.ended(descriptor)
        os.close(descriptor)
        process = await box.runtime.adopt(container_id)
        assert process is not None
        assert process.exited() is None
        await process.kill(signal.SIGTERM)
        await process.kill(signal.SIGKILL)
        assert (await process.wait()).code == 137
        await box.runtime.cleanup(container_id)

    boxed(body)


def test_conmon_killed_then_its_container_then_adopted_again(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        process = await box.runtime.create(container_id, box.plan("sh", "-c", "read x; exit 12", open_stdin=True), None)
        await process.start()
        os.kill(conmon_of(process.pid), signal.SIGKILL)
        assert (await process.wait()).code == 12
        again = await Runtime.open(box.run_root, {}, box.name)
        adopted = await again.adopt(container_id)
        assert adopted is not None
        assert (await adopted.wait()).code == 12
        await again.cleanup(container_id)

    boxed(body)


def test_cleanup_ends_whatever_runs_and_is_idempotent(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        process = await box.runtime.create(container_id, box.plan("sh", "-c", "sleep 1000 & sleep 1000"), None)
        await process.start()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        await soon(lambda: children.read_text().split(), "the second sleep")
        pids = await process.pids()
        assert len(pids) >= 2
        await box.runtime.cleanup(container_id)
        await box.runtime.cleanup(container_id)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert (await process.wait()).code == 137

    boxed(body)


def test_a_failed_start_leaves_nothing(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        process = await box.runtime.create(container_id, box.plan("sleep", "1000"), None)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        with pytest.raises(Failed):
            await process.start()
        assert box.runtime.leftovers() == []

    boxed(body)


def test_a_cancelled_create_leaves_nothing(boxed):
    async def body(box: Box) -> None:
        for delay_ms in (0, 2, 5, 10, 20):
            creating = asyncio.create_task(box.runtime.create(box.new_id(), box.plan("sleep", "1000"), None))
            await asyncio.wait([creating], timeout=delay_ms / 1000)
            creating.cancel()
            try:
                process = await creating
            except asyncio.CancelledError:
                continue
            await box.runtime.cleanup(process.id)
        await soon(lambda: box.runtime.leftovers() == [], "no leftovers")

    boxed(body)


def test_the_bundle_of_an_earlier_run_goes_without_harm_to_the_next(boxed):
    """A daemon killed after a restart, before the first run's bundle was removed."""

    async def body(box: Box) -> None:
        async with box.started("sleep", "1000") as process:
            bundle = box.runtime.bundle(process.id)
            left = bundle.with_name(f"{process.id}.0123abcd.gone")
            left.mkdir()
            shutil.copy(bundle / "config.json", left)
            assert box.runtime.leftovers() == [process.id]
            await Runtime.open(box.run_root, {}, box.name)
            assert not left.exists()
            assert process.exited() is None
            out, _, end = await execute(process, "/bin/sh", "-c", "echo alive")
            assert (out, end.code) == (b"alive\n", 0)

    boxed(body)


def test_nothing_of_a_container_is_stopped_with_the_daemons_service(boxed):
    trees = service_trees(read_cgroups())
    services = [tree / "havre-service" for tree in trees.values()]
    for service in services:
        service.mkdir()

    async def body(box: Box) -> None:
        container_id = box.new_id()
        pid = abandoned(box, container_id, "sleep 1000", start="service")
        assert {groups_of(conmon_of(pid))[tree] for tree in trees} == {"/havre/conmon"}
        assert {groups_of(pid)[tree] for tree in trees} <= {"/havre/conmon", f"/havre/{container_id}"}
        await box.runtime.cleanup(container_id)

    try:
        boxed(body)
    finally:
        for service in services:
            service.rmdir()


def test_a_paused_container_can_be_cleaned_up(boxed):
    async def body(box: Box) -> None:
        async with box.started("sleep", "1000") as process:
            await process.pause()
        assert (await process.wait()).code == 137

    boxed(body)


def test_a_container_whose_runtime_was_uninstalled_is_held_all_the_same(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        pid = abandoned(box, container_id, "while read x; do echo got $x; done")
        state = box.runtime.bundle(container_id) / "state.json"
        told = state.read_text()
        state.write_text(told.replace(f'"runtime":"{box.name}"', '"runtime":"gone"'))
        process = await box.runtime.adopt(container_id)
        assert process is not None
        assert (process.pid, process.runtime) == (pid, "gone")
        with pytest.raises(Unavailable, match="gone is not installed"):
            await process.pause()
        await process.kill(signal.SIGKILL)
        assert (await process.wait()).code == 137
        await box.runtime.cleanup(container_id)

    boxed(body)
