"""What broke OCI runtimes and engines around exec, mounts and users; each test is named after its CVE."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from havre.errors import HavreError, InvalidInput
from havre.runtime import resolve_user
from havre.runtime.plan import Bind, ExecPlan, User
from support.boxes import Box, boxed, collect, execute, make_rootfs, place, rootfs

__all__ = ["boxed", "rootfs"]


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    """A root file system to spoil."""
    root = place("hostile")
    make_rootfs(root)
    yield root
    shutil.rmtree(root)


def test_cve_2019_5736_the_runtimes_program_is_not_written(boxed, hostile: Path):
    (hostile / "bin/evil").symlink_to("/proc/self/exe")

    async def body(box: Box) -> None:
        programs = [Path(path) for path in box.runtime.binaries.values()]
        before = [hashlib.sha256(path.read_bytes()).digest() for path in programs]
        box.rootfs = hostile
        script = "for i in 1 2 3; do for p in /proc/[0-9]*; do echo x > $p/exe; done; done"
        async with box.started("sh", "-c", f"{script}; sleep 1000", cap_add=("SYS_PTRACE",)) as process:
            for args in (("/bin/evil",), ("sh", "-c", script)):
                try:
                    await execute(process, *args)
                except HavreError:
                    continue
        assert [hashlib.sha256(path.read_bytes()).digest() for path in programs] == before

    boxed(body)


@pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/x/../proc/sys", "/link", "/link/self", "/far/sys"])
def test_cve_2019_16884_nothing_is_mounted_over_proc(boxed, hostile: Path, tmp_path: Path, target: str):
    (hostile / "link").symlink_to("tmp/../proc")
    (hostile / "far").symlink_to("/link")

    async def body(box: Box) -> None:
        box.rootfs = hostile
        with pytest.raises(HavreError):
            await box.run("true", mounts=(Bind(source=tmp_path, destination=target),))

    boxed(body)


@pytest.mark.parametrize("cwd", ["/proc/self/fd/7", "/proc/self/fd/7/../..", "/link"])
def test_cve_2024_21626_no_way_out_by_a_leaked_descriptor(boxed, hostile: Path, cwd: str):
    async def body(box: Box) -> None:
        for number in range(3, 20):
            (hostile / "link").unlink(missing_ok=True)
            (hostile / "link").symlink_to(f"/proc/self/fd/{number}")
            box.rootfs = hostile
            with pytest.raises(HavreError):
                await box.run("ls", cwd=cwd)
            if cwd != "/link":
                break
        async with box.started("sh", "-c", "exec sleep 1000") as process:
            with pytest.raises(HavreError):
                await execute(process, "ls", cwd=cwd)
            out, _, _ = await execute(process, "sh", "-c", "ls /proc/$$/fd; true")
            assert out.split() == [b"0", b"1", b"2"]

    boxed(body)


@pytest.mark.parametrize("name", ["dev", "dev/null", "dev/console", "dev/pts", "dev/shm"])
def test_cve_2025_31133_dev_is_fresh_whatever_the_image_holds(boxed, hostile: Path, tmp_path: Path, name: str):
    victim = tmp_path / "victim"
    victim.mkdir()
    shutil.rmtree(hostile / "dev")
    if "/" in name:
        (hostile / "dev").mkdir()
    (hostile / name).symlink_to(victim)

    async def body(box: Box) -> None:
        box.rootfs = hostile
        for tty in (False, True):
            try:
                out, _, _ = await box.run("sh", "-c", "ls -l /dev/null; echo x > /dev/null", tty=tty)
            except HavreError:
                continue  # refused is as good
            assert out.startswith(b"crw")
        assert list(victim.iterdir()) == []

    boxed(body)


def test_cve_2022_24769_nothing_is_inheritable(boxed):
    async def body(box: Box) -> None:
        async with box.started("sleep", "1000") as process:
            for privileged in (False, True):
                out, _, _ = await execute(process, "cat", "/proc/self/status", privileged=privileged)
                assert b"CapInh:\t0000000000000000" in out
                assert b"CapAmb:\t0000000000000000" in out

    boxed(body)


def test_cve_2026_30892_exec_runs_as_whom_it_was_told(boxed):
    async def body(box: Box) -> None:
        async with box.started("sleep", "1000") as process:
            out, _, _ = await execute(process, "id", user=User(uid=1, gid=1))
            assert out == b"uid=1 gid=1 groups=1\n"
            plain, _, _ = await collect(process.exec(ExecPlan(args=("id",))))
            assert plain.startswith(b"uid=0(root)")

    boxed(body)


def test_cve_2022_36109_supplementary_groups_are_those_configured(boxed):
    async def body(box: Box) -> None:
        user = resolve_user(box.rootfs, "alice", ["60"])
        async with box.started("sh", "-c", "exec sleep 1000", user=user) as process:
            for whom in (None, user):
                out, _, _ = await execute(process, "id", "-G", user=whom)
                assert sorted(map(int, out.split())) == [50, 60, 100, 1000]
            out, _, _ = await execute(process, "id", "-G", user=replace(user, groups=()))
            assert out == b"1000\n"

    boxed(body)


@pytest.mark.parametrize("user", ["4294967296", "4294967295", "2147483648", "18446744073709551616", "0:4294967296"])
def test_cve_2024_40635_numbers_do_not_wrap(rootfs: Path, user: str):
    with pytest.raises(InvalidInput):
        resolve_user(rootfs, user)
