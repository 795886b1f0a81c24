"""One more process in a running container.

Always by `--process FILE`: crun 1.19 to 1.26 forget the user that is given on the command line (CVE-2026-30892). Each
exec has a directory of its own, as conmon names its exit file after the container.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from havre.aio import in_thread
from havre.errors import Failed
from havre.runtime import messages, spawn
from havre.runtime.conmon import Handshake, Launch, read_failure
from havre.runtime.held import Held
from havre.runtime.plan import ExecPlan, Exit
from havre.runtime.runtimes import OciRuntime


class ExecProcess(Held):
    """A prepared exec: subscribe to `output`, then `start` it. Its directory goes when its end is known."""

    def __init__(self, launch: Launch, plan: ExecPlan) -> None:
        super().__init__(launch.directory, tty=plan.tty, ends_input=plan.open_stdin and not plan.tty)
        self._launch = launch
        self._handshake: Handshake | None = None

    @classmethod
    async def prepare(
        cls,
        conmon: Path,
        runtime: OciRuntime,
        container_id: str,
        bundle: Path,
        plan: ExecPlan,
        process: Mapping[str, Any],
    ) -> ExecProcess:
        """Start conmon and connect to it; the process itself waits for `start`."""
        name = secrets.token_hex(16)
        directory = bundle / "exec" / name
        await in_thread(_make_directory, directory, process)
        launch = Launch(
            program=conmon,
            directory=directory,
            runtime=runtime.command(),
            name=name,
            container_id=container_id,
            log_path=None,
            tty=plan.tty,
            open_stdin=plan.open_stdin,
            arguments=("--exec", "--exec-attach", "--exec-process-spec", str(directory / "process.json")),
        )
        prepared = cls(launch, plan)
        try:
            await prepared._connect()
        except BaseException:
            prepared._discard()
            raise
        return prepared

    async def _connect(self) -> None:
        self._handshake = Handshake(self._launch, attach_first=True)
        report = await self._handshake.attach_report()
        if report is None or report.data != 0:
            raise await self._failure(report.message if report else "")
        self._attach()

    async def start(self) -> None:
        """Let it run. Failed, with the reason in Docker's words, when it cannot; then nothing is left of it."""
        if self._handshake is None:
            raise Failed("this exec was started before")
        handshake, self._handshake = self._handshake, None
        with handshake:
            handshake.proceed()
            report = await handshake.report()
            if report is None or report.data <= 0:
                await spawn.finish(handshake.child)
                error = await self._failure(report.message if report else "")
                self._discard()
                raise error
        self._watch(report.data, handshake.child, self._launch.exit_file, lambda: False)

    async def _failure(self, message: str) -> Failed:
        return Failed(messages.exec_failed(await in_thread(read_failure, self._launch, message)))

    async def wait(self) -> Exit:
        """The end of the process."""
        end = await super().wait()
        await in_thread(shutil.rmtree, self._directory, ignore_errors=True)
        return end

    def _discard(self) -> None:
        if self._handshake is not None:
            self._handshake.close()  # the start pipe's end makes conmon go on, and the runtime's log says how it went
            self._handshake = None
        self._release()
        shutil.rmtree(self._directory, ignore_errors=True)


def _make_directory(directory: Path, process: Mapping[str, Any]) -> None:
    (directory / "exit").mkdir(mode=0o700, parents=True)
    (directory / "process.json").write_bytes(msgspec.json.encode(process))
