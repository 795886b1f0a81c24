"""Exec: an additional process in a running container.

Always started by `--process FILE`: crun 1.19 to 1.26 ignore the user given on the command line (CVE-2026-30892). Each
exec has its own directory, because conmon names its exit file after the container.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from havre.aio import in_thread
from havre.aio import spawn as spawn_task
from havre.errors import Conflict, Failed
from havre.linux import pidfd
from havre.runtime import messages, spawn
from havre.runtime.conmon import Handshake, Launch, Report, read_failure
from havre.runtime.held import Held, Monitor
from havre.runtime.room import Room


class ExecProcess(Held):
    """An exec: subscribe to `output`, then `start` it. Creates nothing before, leaves nothing after its end."""

    def __init__(
        self,
        *,
        conmon: Path,
        set_apart: Callable[[int], None],
        load_profile: Callable[[Mapping[str, Any]], Awaitable[None]],
        runtime: Sequence[str],
        container_id: str,
        bundle: Path,
        process: Mapping[str, Any],
        open_stdin: bool,
        room: Room,
    ) -> None:
        """`runtime` is the OCI runtime's command line up to the verb, `process` the OCI `process` object."""
        name = secrets.token_hex(16)
        directory = bundle / "exec" / name
        tty = bool(process["terminal"])
        super().__init__(directory, ends_input=open_stdin and not tty)
        self._process = process
        self._set_apart = set_apart
        self._room = room
        self._load_profile = load_profile
        self._started = False
        self._launch = Launch(
            program=conmon,
            directory=directory,
            runtime=runtime,
            name=name,
            container_id=container_id,
            log_path=None,
            tty=tty,
            open_stdin=open_stdin,
            shield=not tty,
            arguments=("--exec", "--exec-attach", "--exec-process-spec", str(directory / "process.json")),
        )

    async def start(self) -> None:
        """Start it. Failed, with the reason in Docker's words, when that fails; Conflict when it was started before."""
        if self._started:
            raise Conflict("the exec has been started already")
        self._started = True
        try:
            await self._load_profile(self._process)
            self._make_directory()
            async with self._room.for_start():
                with self._begin() as handshake:
                    report = await self._shake_hands_in_time(handshake)
                    child = handshake.child
                    process = pidfd.open_process(report.data)
                    self._watch(report.data, process, Monitor(child.pid, child=child), self._launch.exit_file)
        except BaseException:
            await self._clear()
            raise
        spawn_task(self._clear_after(), f"exec {self._launch.name} in {self._launch.container_id}")

    def _make_directory(self) -> None:
        """Below the container's directory, which must not be recreated when the container has just been cleaned up."""
        try:
            self._directory.parent.mkdir(mode=0o700, exist_ok=True)
            self._directory.mkdir(mode=0o700)
            (self._directory / "exit").mkdir(mode=0o700)
            (self._directory / "process.json").write_bytes(msgspec.json.encode(self._process))
        except FileNotFoundError as error:
            raise self._too_late() from error

    def _begin(self) -> Handshake:
        try:
            return Handshake(self._launch, self._set_apart, attach_first=True)
        except FileNotFoundError as error:
            raise self._too_late() from error

    def _too_late(self) -> Conflict:
        return Conflict(f"container {self._launch.container_id} is not running")

    async def _shake_hands_in_time(self, handshake: Handshake) -> Report:
        try:
            async with asyncio.timeout(spawn.LIMIT_S):
                return await self._shake_hands(handshake)
        except TimeoutError:
            await handshake.abandon()
            raise Failed(messages.exec_failed(f"the OCI runtime {spawn.too_long()}")) from None
        except asyncio.CancelledError:
            await handshake.abandon()
            raise

    async def _shake_hands(self, handshake: Handshake) -> Report:
        report = await handshake.attach_report()
        if report is not None and report.data == 0:
            try:
                self._attach()
                handshake.proceed()
            except OSError as error:  # the container has ended and its directory is removed
                handshake.child.kill()
                await handshake.finish()
                raise self._too_late() from error
            report = await handshake.report()
            if report is not None and report.data > 0:
                return report
        await handshake.finish()
        reason = await in_thread(read_failure, self._launch, report.message if report else "")
        raise Failed(messages.exec_failed(reason))

    async def _clear_after(self) -> None:
        await self.wait()
        await self._clear()

    async def _clear(self) -> None:
        if self._attachment is None:
            self.output.close()
        await in_thread(shutil.rmtree, self._directory, ignore_errors=True)
