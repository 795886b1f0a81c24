"""Containers without an engine: a Runtime in its own run directory, with busybox."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from havre.runtime import ContainerPlan, ExecPlan, Exit, Process, Runtime

# The directories of this test process; other processes test at the same time.
PLACE = f"/tmp/havre-runtime-{os.getpid()}-"
CGROUP = f"/havre/runtime-{os.getpid()}"

_APPLETS = ("sh", "ls", "cat", "sleep", "id", "true", "stty", "head", "wc", "dd", "hostname", "mount", "readlink")
_APPLETS += ("touch", "seq", "grep")


def place(name: str) -> Path:
    """A new directory with a short path, as sockets are created below it."""
    return Path(tempfile.mkdtemp(prefix=f"{PLACE}{name}-"))


def make_rootfs(root: Path) -> None:
    """A root file system of busybox with some users and groups, readable by all users."""
    root.chmod(0o755)
    for directory in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (root / directory).mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nusers:x:100:alice,bob\nextra:x:50:alice\n")


@dataclass
class Box:
    """A Runtime in its own run directory."""

    run_root: Path
    rootfs: Path
    runtime: Runtime
    name: str
    count: int = 0

    def plan(self, *args: str, **more: Any) -> ContainerPlan:
        """A plan for busybox."""
        env = ("PATH=/bin", *more.pop("env", ()))
        return ContainerPlan(
            rootfs=self.rootfs, args=args, env=env, runtime=self.name, **{"cgroup_parent": CGROUP, **more}
        )

    def new_id(self) -> str:
        """64 hexadecimal digits, as an engine's IDs."""
        self.count += 1
        return f"{abs(hash(str(self.run_root))):016x}{self.count:048x}"

    @asynccontextmanager
    async def started(self, *args: str, log: Path | None = None, **more: Any) -> AsyncIterator[Process]:
        """A running container, removed at the end."""
        container_id = self.new_id()
        process = await self.runtime.create(container_id, self.plan(*args, **more), log)
        try:
            await process.start()
            yield process
        finally:
            await self.runtime.cleanup(container_id)

    async def run(self, *args: str, **more: Any) -> tuple[bytes, bytes, Exit]:
        """Run to the end. Returns stdout, stderr and the exit."""
        container_id = self.new_id()
        process = await self.runtime.create(container_id, self.plan(*args, **more), None)
        try:
            return await collect(process)
        finally:
            await self.runtime.cleanup(container_id)


async def collect(process: Any) -> tuple[bytes, bytes, Exit]:
    """Start it and read everything. Returns stdout, stderr and the exit."""
    output = process.output.subscribe()
    await process.start()
    streams = {1: bytearray(), 2: bytearray()}
    async for stream, data in output:
        streams[stream] += data
    return bytes(streams[1]), bytes(streams[2]), await process.wait()


async def execute(process: Process, *args: str, **more: Any) -> tuple[bytes, bytes, Exit]:
    """Run an exec to its end."""
    return await collect(process.exec(ExecPlan(args=args, **more)))


async def soon(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> None:
    """Wait until `condition` is true, polled every 10 ms."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s} s for {what}") from None


def written_by(pid: int) -> int:
    """The number of bytes that a process has written, to any file."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar:")))


async def stuck(pid: int) -> None:
    """Wait until a process that writes continuously is blocked."""
    seen = [-1] * 20

    def same() -> bool:
        seen.append(written_by(pid))
        return len(set(seen[-20:])) == 1 and seen[-1] > 0

    await soon(same, "a writer to be held up")


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    """A busybox root file system shared by all tests."""
    root = place("rootfs")
    make_rootfs(root)
    yield root
    shutil.rmtree(root)
    for group in Path("/sys/fs/cgroup").glob(f"**{CGROUP}"):
        group.rmdir()


Body = Callable[[Box], Awaitable[None]]


@pytest.fixture(params=["crun", "runc"])
def boxed(request: pytest.FixtureRequest, rootfs: Path) -> Iterator[Callable[[Body], None]]:
    """Runs an async test body with a Box, in its own event loop."""
    run_root = place("run")

    async def body_with_box(body: Body) -> None:
        runtime = await Runtime.open(run_root, {}, request.param)
        try:
            await body(Box(run_root, rootfs, runtime, request.param))
            assert runtime.leftovers() == []
        finally:
            for container_id in runtime.leftovers():
                await runtime.cleanup(container_id)

    yield lambda body: asyncio.run(asyncio.wait_for(body_with_box(body), 60))
    shutil.rmtree(run_root)
