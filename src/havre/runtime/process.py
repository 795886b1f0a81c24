"""A container's first process, and the operations on it while it runs.

Signals and files are used in place of OCI runtime calls where they do the same.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from havre.aio import in_thread, owned
from havre.errors import Conflict, Failed
from havre.linux import cgroups, pidfd
from havre.linux.cgroups import Cgroups
from havre.linux.oom import NOTE
from havre.runtime import checkpoints, messages, spawn
from havre.runtime.bundle import State
from havre.runtime.exec import ExecProcess
from havre.runtime.held import Held, Monitor
from havre.runtime.plan import ExecPlan, Resources
from havre.runtime.resources import render_limits
from havre.runtime.runtimes import OciRuntime
from havre.runtime.spec import render_exec

if TYPE_CHECKING:
    from havre.runtime.monitor import Runtime


class Process(Held):
    """A container's first process. `runtime` is its OCI runtime, `rootfs` the mounted root file system.

    `apparmor_profile` is "" where the kernel has no AppArmor. The owner sets `recorded` when the container's state
    reports the end.
    """

    def __init__(
        self, owner: Runtime, container_id: str, runtime: OciRuntime, state: State, spec: Mapping[str, Any]
    ) -> None:
        super().__init__(owner.bundle(container_id), ends_input=state.ends_input)
        self.id = container_id
        self.restored = False
        self.recorded = asyncio.Event()
        self.has_hooks = "hooks" in spec
        self.runtime = runtime.name
        self.rootfs = Path(spec["root"]["path"])
        self._base: Mapping[str, Any] = spec["process"]
        self.apparmor_profile: str = spec["process"].get("apparmorProfile", "")
        self._owner = owner
        self._oci = runtime
        self._cgroup = state.cgroup

    def hold(self, state: State, child: subprocess.Popen[bytes] | None = None) -> None:
        """Attach to its conmon, which is `child` if this daemon started it, and watch for its end."""
        try:
            self._attach()
        except (FileNotFoundError, ConnectionRefusedError):  # conmon has ended
            self.output.close()
        first = pidfd.open_process(state.pid, state.pid_started)
        conmon = Monitor(state.conmon, state.conmon_started, child)
        self._watch(state.pid, first, conmon, self._directory / "exit" / self.id)

    async def start(self) -> None:
        """Start the created process, unless it was restored and already runs.

        InvalidInput or Failed, with the runtime's reason in Docker's words; then nothing is left behind.
        """
        if self.restored:
            return
        if not self.has_hooks and self._oci.release(self.id):
            return
        try:
            result = await spawn.run(self._oci.command("start", self.id))
        except Failed as error:
            await self._owner.cleanup(self.id)
            raise messages.start_failed(error.message) from None
        if result.code != 0:
            await self._owner.cleanup(self.id)
            raise messages.start_failed(result.stderr or result.stdout)

    async def pause(self) -> None:
        """Freeze all processes of the container. Conflict when it has ended."""
        await self._ask("pause")

    async def resume(self) -> None:
        """Thaw the processes. Conflict when it has ended."""
        await self._ask("resume")

    async def _ask(self, verb: str) -> None:
        result = await spawn.run(self._oci.command(verb, self.id))
        if result.code != 0:
            if self.has_ended():
                raise Conflict(f"Container {self.id} is not running")
            raise Failed(f"cannot {verb} container {self.id}: {messages.translate(result.stderr)}")

    async def checkpoint(self, images: Path, *, leave_running: bool) -> None:
        """Write a checkpoint to the directory `images`; the processes end, unless `leave_running`.

        Conflict when it has ended, Unavailable without criu, Failed with criu's reason; the container keeps running
        then.
        """
        checkpoints.check_criu()
        options = checkpoints.dump_options(images, self._directory, leave_running=leave_running)
        result = await spawn.run(self._oci.command("checkpoint", *options, self.id), limited=False)
        if result.code != 0:
            if self.has_ended():
                raise Conflict(f"container {self.id} is not running")
            raise Failed(await in_thread(checkpoints.read_reason, self._directory / "dump.log", result.stderr))

    async def update(self, limits: Resources) -> None:
        """Change the running container's limits; unset fields stay. Failed with the runtime's reason."""
        file = self._directory / "update.json"
        rendered = render_limits(limits, self._owner.host.cgroups)
        if limits.pids_limit is not None and limits.pids_limit <= 0:
            rendered["pids"] = {"limit": -1}
        await in_thread(file.write_bytes, msgspec.json.encode(rendered))
        result = await spawn.run(self._oci.command("update", "--resources", str(file), self.id))
        if result.code != 0:
            raise Failed(f"cannot update container {self.id}: {messages.translate(result.stderr)}")

    async def pids(self) -> list[int]:
        """PIDs of all processes of the container in the host's PID namespace, ascending."""
        host = self._owner.host.cgroups
        return await in_thread(lambda: cgroups.pids(host.path(self._cgroup)))

    @property
    def cgroup(self) -> tuple[Cgroups, str]:
        """The host's control groups, and the container's group in them."""
        return self._owner.host.cgroups, self._cgroup

    async def open_root(self) -> int:
        """Open its root directory, with everything mounted for it. Conflict when it has ended."""
        try:
            root = await owned(os.close, os.open, f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Conflict(f"container {self.id} is not running") from error
        try:
            await self.kill(0)  # it still runs, so the PID was its own
        except BaseException:
            os.close(root)
            raise
        return root

    def exec(self, plan: ExecPlan) -> ExecProcess:
        """Prepare an additional process; its `start` runs it. InvalidInput for an invalid plan."""
        if self.exited() is not None:
            raise Conflict(f"container {self.id} is not running")
        process = render_exec(plan, self._base, self._owner.host)
        return ExecProcess(
            conmon=self._owner.conmon,
            set_apart=self._owner.set_apart,
            load_profile=self._owner.load_profile,
            runtime=self._oci.for_exec(tty=plan.tty),
            container_id=self.id,
            bundle=self._directory,
            process=process,
            open_stdin=plan.open_stdin,
            room=self._owner.room,
        )

    def _oom_killed(self) -> bool:
        return (self._directory / NOTE).exists() or cgroups.oom_kills(self._owner.host.cgroups, self._cgroup) > 0
