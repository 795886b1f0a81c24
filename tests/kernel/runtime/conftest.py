"""A Runtime for each OCI runtime that is installed, over a busybox root file system."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from havre.runtime import Runtime
from support.boxes import Box, make_rootfs


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="havre-runtime-rootfs-"))
    make_rootfs(root)
    yield root
    shutil.rmtree(root)


Body = Callable[[Box], Awaitable[None]]


@pytest.fixture(params=["crun", "runc"])
def boxed(request: pytest.FixtureRequest, rootfs: Path) -> Iterator[Callable[[Body], None]]:
    """Runs an async test body with a Box, in an event loop of its own."""
    run_root = Path(tempfile.mkdtemp(prefix="havre-runtime-run-"))

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
