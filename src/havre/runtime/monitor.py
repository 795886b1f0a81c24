"""The OCI runtimes of this host, and containers as running processes: create, adopt, clean up.

The daemon may be killed at any point. Without `state.json` nothing was started, and `adopt` cleans up; with it, the
PIDs (checked by start time against recycling) and the exit file are sufficient (`bundle`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from havre.aio import finish, in_thread
from havre.aio import spawn as spawn_task
from havre.errors import Conflict, Failed, InvalidInput, Unavailable
from havre.linux import cgroups, pidfd
from havre.linux.openat2 import resolve_in_root
from havre.runtime import checkpoints, messages, newcalls, spawn
from havre.runtime.apparmor import Profiles
from havre.runtime.bundle import State, group_of, is_gone, make_bundle, read_bundle, set_aside, sweep, write_state
from havre.runtime.conmon import Handshake, Launch, read_failure
from havre.runtime.destinations import settle_destinations
from havre.runtime.devices import all_devices
from havre.runtime.host import read_host
from havre.runtime.null import is_own, null_device
from havre.runtime.plan import PRIVATE, Bind, ContainerPlan
from havre.runtime.process import Process
from havre.runtime.room import Room
from havre.runtime.runtimes import AbsentRuntime, OciRuntime, Runtimes, find_runtimes
from havre.runtime.spec import (
    HostFacts,
    cgroup_path,
    render_spec,
)
from havre.runtime.versions import Release, Releases, knows_mount_option, knows_time_namespaces

CONMON_GROUP = "/havre/conmon"
SETTLE_S = 5.0
GRACE_S = 1.0

log = logging.getLogger(__name__)


class Runtime:
    """Creates and adopts containers. `reason` explains why `default` is the default runtime; reloads change
    `binaries`."""

    def __init__(self, run_root: Path, conmon: Path, runtimes: Runtimes, host: HostFacts) -> None:
        self._containers = run_root / "containers"
        self._ever: dict[str, OciRuntime] = {}  # runtimes removed by a reload may still have containers
        self._processes: dict[str, Process] = {}
        self.room = Room()
        own = cgroups.groups_of("self")
        self._service_trees = cgroups.service_trees(host.cgroups)
        self._in_service = any(own.get(tree, "/") != "/" for tree in self._service_trees)
        self.conmon = conmon
        self.host = host
        self.profiles = Profiles()
        self._run_root = run_root
        self.binaries: dict[str, str] = {}
        self._releases = Releases()
        self._use(runtimes)

    @classmethod
    async def open(
        cls,
        run_root: Path,
        binaries: Mapping[str, str],
        default: str | None,
        *,
        init: str = "",
        time_namespaces: bool = True,
    ) -> Runtime:
        """Find the host's facts and installed runtimes. Unavailable when conmon or every OCI runtime is missing.

        `init` is the program for containers with an init; "" searches for one. `time_namespaces`: containers get one,
        where kernel and OCI runtime have them.
        """
        conmon = shutil.which("conmon", path=spawn.ENVIRONMENT["PATH"])
        if conmon is None:
            raise Unavailable("conmon is not installed", "install the package conmon")
        host = await in_thread(read_host, init)
        if not time_namespaces:
            host = dataclasses.replace(host, time_namespaces=False)
        runtimes = await find_runtimes(run_root, binaries, default, host.cgroups.layout)
        await in_thread(null_device)
        (run_root / "containers").mkdir(mode=0o700, parents=True, exist_ok=True)
        await in_thread(sweep, run_root / "containers")
        if not pidfd.tells_exit_of_others():
            pidfd.become_subreaper()
        return cls(run_root, Path(conmon), runtimes, host)

    def _use(self, runtimes: Runtimes) -> None:
        for each in runtimes.all.values():
            each.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runtimes = runtimes
        self._ever |= runtimes.all
        self.default, self.reason = runtimes.default, runtimes.reason
        self.binaries.clear()
        self.binaries |= {name: str(each.program) for name, each in runtimes.all.items()}

    async def reconfigure(self, binaries: Mapping[str, str], default: str | None) -> None:
        """Change the OCI runtimes for later containers. InvalidInput or Unavailable, and nothing changes."""
        self._use(await find_runtimes(self._run_root, binaries, default, self.host.cgroups.layout))

    async def releases(self) -> dict[str, tuple[str, Release]]:
        """Path and version, by name, of the programs that containers depend on: the OCI runtimes, conmon, the init."""
        programs = {**self.binaries, "conmon": str(self.conmon)}
        if self.host.init:
            programs[self.host.init.name] = str(self.host.init)
        return {name: (path, await self._releases.of(Path(path))) for name, path in programs.items()}

    async def features(self) -> dict[str, str]:
        """The feature report of each OCI runtime by name: a line of JSON, "" for one without."""
        return {name: await self._releases.features(Path(path)) for name, path in self.binaries.items()}

    def bundle(self, container_id: str) -> Path:
        """The container's directory, whether it exists or not."""
        return self._containers / container_id

    def leftovers(self) -> list[str]:
        """IDs that have a directory here, running or not."""
        return sorted(each.name for each in os.scandir(self._containers) if each.is_dir() and not is_gone(each.name))

    async def create(
        self, container_id: str, plan: ContainerPlan, log_path: Path | None, images: Path | None = None
    ) -> Process:
        """Create a container without starting its process; `start` of the result does.

        With `images`, the directory of a checkpoint, its processes are restored and run at once. Raises Conflict when
        it exists here, InvalidInput for an invalid plan, Failed with the OCI runtime's reason in Docker's words. A
        failure leaves nothing behind.
        """
        if log_path is not None and ":" in str(log_path):
            raise InvalidInput(f"conmon cannot write a log whose path has a colon: {log_path}")
        if images is not None:
            checkpoints.check_criu()
        runtime = self._runtimes.fitting(plan)
        _check_image(plan)
        plan = settle_destinations(plan)
        spec = render_spec(plan, await self._facts(plan, runtime), container_id)
        if runtime.program.name == "crun":
            await newcalls.add_compiled(spec)
        await self.load_profile(spec["process"])
        bundle = self.bundle(container_id)
        try:
            make_bundle(bundle, spec)
        except FileExistsError as error:
            raise Conflict(f"container {container_id} has a running process already") from error
        # A task, not aio.spawn: its failure is the caller's to handle, and logged only by the caller.
        launching = asyncio.create_task(self._launch(container_id, plan, spec, runtime, log_path, images))
        try:
            async with asyncio.timeout(spawn.LIMIT_S if images is None else None):
                return await asyncio.shield(launching)
        except TimeoutError:
            await finish(self._abort(container_id, launching))
            raise messages.create_failed(runtime.name, f"{runtime.name} {spawn.too_long()}") from None
        except BaseException:
            await finish(self._abort(container_id, launching))
            raise

    async def load_profile(self, process: Mapping[str, Any]) -> None:
        """Load the AppArmor profile of an OCI `process`, unless loaded. Failed, InvalidInput."""
        if profile := process.get("apparmorProfile"):
            await in_thread(self.profiles.load, profile)

    async def _abort(self, container_id: str, launching: asyncio.Task[Process]) -> None:
        # A running OCI runtime gets a grace period to finish; then what it created is deleted.
        await asyncio.wait([launching], timeout=GRACE_S)
        if not launching.done():
            log.error("killing the OCI runtime, which hangs while creating container %s", container_id)
            launching.cancel()
            await asyncio.wait([launching])
        await self.cleanup(container_id)

    async def _facts(self, plan: ContainerPlan, runtime: OciRuntime) -> HostFacts:
        facts = self.host
        if any(isinstance(mount, Bind) and mount.read_only for mount in plan.mounts):
            features = await self._releases.features(runtime.program)
            facts = dataclasses.replace(facts, recursive_read_only=knows_mount_option(features, "rro"))
        if facts.time_namespaces:
            known = knows_time_namespaces(await self._releases.features(runtime.program))
            facts = dataclasses.replace(facts, time_namespaces=known)
        return dataclasses.replace(facts, devices=tuple(all_devices())) if plan.privileged else facts

    async def _launch(
        self,
        container_id: str,
        plan: ContainerPlan,
        spec: Mapping[str, Any],
        runtime: OciRuntime,
        log_path: Path | None,
        images: Path | None,
    ) -> Process:
        ends_input = plan.stdin_once and not plan.tty
        launch = Launch(
            program=self.conmon,
            directory=self.bundle(container_id),
            runtime=runtime.for_create(),
            name=container_id,
            container_id=container_id,
            log_path=log_path,
            tty=plan.tty,
            open_stdin=plan.open_stdin,
            leave_stdin_open=plan.open_stdin and not ends_input,
            kept=plan.kept_descriptors,
            shield=not is_own(plan),
            arguments=("--restore", str(images)) if images else (),
        )
        with Handshake(launch, self.set_apart) as handshake:
            try:
                report = await handshake.report()
            except asyncio.CancelledError:
                await handshake.abandon()
                raise
            if report is None or report.data <= 0:
                await handshake.finish()
                reason = await in_thread(read_failure, launch, report.message if report else "")
                if images is not None:
                    raise Failed(await in_thread(checkpoints.read_reason, launch.directory / "restore.log", reason))
                raise messages.create_failed(runtime.name, reason)
            child = handshake.child
        state = State(
            pid=report.data,
            pid_started=pidfd.start_time(report.data),
            conmon=child.pid,
            conmon_started=pidfd.start_time(child.pid),
            runtime=runtime.name,
            cgroup=cgroup_path(plan, container_id),
            ends_input=ends_input,
        )
        write_state(launch.directory, state)
        # a private cgroup namespace shows the group it was created in
        if runtime.create_prefix and plan.cgroupns != PRIVATE:
            await in_thread(self._enter_own_group, report.data, state.cgroup)
        elif self._in_service:
            await in_thread(self._leave_service, report.data)
        process = self._hold(container_id, runtime, state, spec, child)
        process.restored = images is not None
        return process

    def set_apart(self, conmon: int) -> None:
        """Move a conmon out of the daemon's cgroup: a service manager that stops the daemon must not stop it as well.

        Done while the OCI runtime starts: a first move of a process waits for an RCU grace period (6 to 10 ms), during
        which later moves, such as the OCI runtime's, pass at once. Blocking.
        """
        try:
            for tree in self._service_trees.values():
                cgroups.move(tree, CONMON_GROUP, conmon)
        except ProcessLookupError:
            return  # creating has already failed
        except OSError as error:
            log.warning("conmon stays in the daemon's cgroup and would be stopped with it: %s", error)

    def _enter_own_group(self, init: int, group: str) -> None:
        """Move a container's first process into its group of the v2 tree, which was hidden from its OCI runtime.

        Later execs enter that group by themselves: nothing is hidden from an exec. Blocking.
        """
        try:
            cgroups.move(self._service_trees[""], group, init)
        except ProcessLookupError:
            return
        except OSError as error:
            log.warning("the container has no cgroup of its own in the v2 tree: %s", error)

    def _leave_service(self, init: int) -> None:
        """As above, where the OCI runtime has not moved `init`, in a v2 tree that was hidden from it. Blocking."""
        own, others = cgroups.groups_of("self"), cgroups.groups_of(init)
        try:
            for name, tree in self._service_trees.items():
                if others.get(name) == own.get(name):
                    cgroups.move(tree, CONMON_GROUP, init)
        except OSError as error:
            log.warning("the container stays in the daemon's cgroup and would be stopped with it: %s", error)

    def _hold(
        self,
        container_id: str,
        runtime: OciRuntime,
        state: State,
        spec: Mapping[str, Any],
        child: subprocess.Popen[bytes] | None = None,
    ) -> Process:
        process = Process(self, container_id, runtime, state, spec)
        process.hold(state, child)
        self._processes[container_id] = process
        return process

    async def adopt(self, container_id: str) -> Process | None:
        """Take over a container created by an earlier daemon.

        Attaches to a running one again; one that has ended has its exit status in `exited()`. One that was never
        started is cleaned up, and None returned. If its OCI runtime was uninstalled, operations that need it fail.
        """
        try:
            state, spec = await in_thread(read_bundle, self.bundle(container_id))
        except (FileNotFoundError, msgspec.DecodeError):
            await self.cleanup(container_id)
            return None
        runtime = self._runtimes.all.get(state.runtime)
        if runtime is None:
            log.error("container %s runs by the OCI runtime %s, which is not installed", container_id, state.runtime)
            runtime = AbsentRuntime(state.runtime, Path(), Path())
        elif runtime.holds_back(container_id) and await self._was_created(runtime, container_id):
            await self.cleanup(container_id)
            return None
        process = self._hold(container_id, runtime, state, spec)
        if not process.has_ended():
            process.rootfs = await in_thread(_seen_root, process.rootfs, state.pid)
        return process

    async def _was_created(self, runtime: OciRuntime, container_id: str) -> bool:
        """Report whether it was created and never started."""
        result = await spawn.run(runtime.command("state", container_id))
        return result.code == 0 and json.loads(result.stdout).get("status") == "created"

    async def cleanup(self, container_id: str) -> None:
        """Kill and delete everything of a container: its processes, conmon, cgroup and bundle. Idempotent."""
        process = self._processes.pop(container_id, None)
        bundle = self.bundle(container_id)
        if not bundle.exists():
            return
        if process is None:  # a killed conmon or daemon may have left a running OCI runtime
            await in_thread(spawn.end_workers, bundle)
        if process is None or process.has_hooks or not process.has_ended():
            await in_thread(self._thaw, bundle)
            for runtime in self._holders(container_id):
                try:
                    await spawn.run(runtime.command("delete", "--force", container_id))
                except Failed as error:  # what the runtime has not removed is removed below
                    log.error("container %s is deleted without its OCI runtime: %s", container_id, error)
        if process is not None:
            await process.settle(SETTLE_S)
        gone = await in_thread(self._clear_away, container_id)
        # An ending exec may remove its part concurrently.
        spawn_task(in_thread(shutil.rmtree, gone, ignore_errors=True), f"discard the bundle {gone.name}")

    def _thaw(self, bundle: Path) -> None:
        cgroups.thaw(self.host.cgroups, group_of(bundle))

    def _clear_away(self, container_id: str) -> Path:
        """Remove what remains of a container whose first process has ended. Blocking.

        Returns its bundle, renamed first so that a late exec cannot recreate part of it.
        """
        bundle = self.bundle(container_id)
        group = group_of(bundle)
        cgroups.thaw(self.host.cgroups, group)
        try:
            cgroups.remove(self.host.cgroups, group, SETTLE_S)
        except OSError as error:  # the OCI runtime was killed, and the kernel has not released it yet
            log.error("the cgroup %s is not removed: %s", group, error)
        for runtime in self._holders(container_id):  # not asked to `delete`, or unable to read its state
            runtime.forget(container_id, bundle)
        return set_aside(bundle)

    def _holders(self, container_id: str) -> list[OciRuntime]:
        """The runtimes that have state of this container: one or none."""
        return [each for each in self._ever.values() if (each.state / container_id).exists()]


def _seen_root(rootfs: Path, pid: int) -> Path:
    """The path of a process's root file system, even if it was mounted in another mount namespace."""
    own = Path(f"/proc/{pid}/root")
    try:
        return rootfs if rootfs.is_mount() or rootfs.samefile(own) else own
    except OSError:  # it has ended
        return rootfs


def _check_image(plan: ContainerPlan) -> None:
    """Reject links in the image through which the OCI runtime would mount or create outside of it. InvalidInput.

    runc 1.1 creates /dev/fd and similar links through a link /dev, outside of the image (as in CVE-2025-31133).
    """
    for directory in ("/dev", "/proc", "/sys"):
        if resolve_in_root(plan.rootfs, directory) != directory:
            raise InvalidInput(f"the image's {directory} is a link, an ordinary directory is expected")
