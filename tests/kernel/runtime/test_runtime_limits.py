"""OCI runtimes that hang: they are killed when their time is over, or when nobody wants the result; nothing is left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from havre.errors import Failed
from havre.runtime import spawn
from havre.runtime.plan import Hook
from support.boxes import Box, execute, soon


@contextmanager
def blocking(box: Box) -> Iterator[None]:
    """An OCI runtime that looks for the user's home directory waits for ever."""
    passwd = box.rootfs / "etc/passwd"
    passwd.rename(passwd.with_name("passwd.kept"))
    os.mkfifo(passwd)
    try:
        yield
    finally:
        passwd.with_name("passwd.kept").replace(passwd)


@contextmanager
def half_a_second() -> Iterator[None]:
    """All that OCI runtimes are given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spawn, "LIMIT_S", 0.5)
        with pytest.raises(Failed, match=r"did not end within 0\.5 s and was killed"):
            yield


def test_a_create_that_hangs_is_killed(boxed):
    async def body(box: Box) -> None:
        with blocking(box), half_a_second():
            await box.runtime.create(box.new_id(), box.plan("true"), None)
        assert box.runtime.leftovers() == []
        assert (await box.run("true"))[2].code == 0

    boxed(body)


def test_a_create_that_hangs_can_be_broken_off(boxed):
    async def body(box: Box) -> None:
        container_id = box.new_id()
        with blocking(box):
            creating = asyncio.create_task(box.runtime.create(container_id, box.plan("true"), None))
            await soon((box.runtime.bundle(container_id) / "runtime.log").exists, "the OCI runtime to begin")
            creating.cancel()
            async with asyncio.timeout(20):
                with pytest.raises(asyncio.CancelledError):
                    await creating
        assert box.runtime.leftovers() == []

    boxed(body)


def test_an_exec_that_hangs_is_killed(boxed):
    async def body(box: Box) -> None:
        async with box.started("sleep", "1000") as process:
            with blocking(box), half_a_second():
                await execute(process, "true")
            assert len(await process.pids()) == 1
            assert (await execute(process, "true"))[2].code == 0

    boxed(body)


def test_a_start_whose_hook_has_no_end(boxed):
    async def body(box: Box) -> None:
        hook = Hook(when="poststart", path="/bin/sleep", args=("sleep", "1000"))
        with half_a_second():
            # runc runs these hooks in `create` already.
            process = await box.runtime.create(box.new_id(), box.plan("sleep", "1000", hooks=(hook,)), None)
            await process.start()
        assert box.runtime.leftovers() == []

    boxed(body)
