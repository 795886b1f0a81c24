"""Containers as running processes: create, adopt, clean up, and what can be done to one that runs.

One container has one directory `run_root/containers/ID`, which is its OCI bundle and conmon's place too:

    config.json   the OCI specification          state.json   PIDs with start times: written once created
    attach, ctl   conmon's socket and fifo       exit/ID      conmon's record of the end
    dump.log, restore.log                        what criu said of a checkpoint
    exec/EXECID/  one like this per exec         oom          conmon saw the kernel kill for want of memory

`ID.HEX.gone` beside it is the bundle of a run that is over; it goes in the background, or when the next daemon opens.

The daemon may be killed anywhere. Without `state.json` nothing has been started, and `adopt` clears it away; with it,
the PIDs (told from recycled ones by their start times) and the exit file say all that is to know.

Nothing here waits for an OCI runtime where a signal or a file does the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import secrets
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
from havre.linux.cgroups import Cgroups
from havre.linux.oom import NOTE
from havre.linux.openat2 import resolve_in_root
from havre.runtime import checkpoints, messages, newcalls, spawn
from havre.runtime.apparmor import Profiles
from havre.runtime.conmon import Handshake, Launch, read_failure
from havre.runtime.destinations import settle_destinations
from havre.runtime.devices import all_devices
from havre.runtime.exec import ExecProcess
from havre.runtime.held import Held, Monitor
from havre.runtime.host import read_host
from havre.runtime.null import is_own, null_device
from havre.runtime.plan import PRIVATE, Bind, ContainerPlan, ExecPlan, Resources
from havre.runtime.room import Room
from havre.runtime.runtimes import AbsentRuntime, OciRuntime, Runtimes, find_runtimes
from havre.runtime.spec import (
    DEFAULT_CGROUP_PARENT,
    HostFacts,
    cgroup_path,
    render_exec,
    render_limits,
    render_spec,
)
from havre.runtime.versions import Release, Releases, knows_mount_option

CONMON_GROUP = "/havre/conmon"
SPEC = "config.json"
STATE = "state.json"
GONE = ".gone"
SETTLE_S = 5.0
GRACE_S = 1.0

log = logging.getLogger(__name__)


class _State(msgspec.Struct):
    """What `adopt` needs and the kernel does not tell."""

    pid: int
    pid_started: int
    conmon: int
    conmon_started: int
    runtime: str
    cgroup: str
    ends_input: bool


class _Spec(msgspec.Struct):
    """What `Process` reads of a specification: a small part, so that taking over many containers is quick."""

    root: dict[str, Any]
    process: dict[str, Any]
    hooks: dict[str, Any] | None = None


class Process(Held):
    """A container's first process; `runtime` names its OCI runtime, `rootfs` is the mounted root file system.

    `apparmor_profile` is "" where the kernel has no AppArmor.
    `recorded` is set by the owner, when whoever asks for the container's state is told of the end.
    """

    def __init__(
        self, owner: Runtime, container_id: str, runtime: OciRuntime, state: _State, spec: Mapping[str, Any]
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

    async def start(self) -> None:
        """Let the created process run, unless it was restored and runs already.

        InvalidInput or Failed, with the runtime's reason in Docker's words; then nothing is left.
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
        """Freeze every process of the container. Conflict when it has ended."""
        await self._ask("pause")

    async def resume(self) -> None:
        """Thaw what `pause` froze. Conflict when it has ended."""
        await self._ask("resume")

    async def _ask(self, verb: str) -> None:
        result = await spawn.run(self._oci.command(verb, self.id))
        if result.code != 0:
            if self.has_ended():
                raise Conflict(f"Container {self.id} is not running")
            raise Failed(f"cannot {verb} container {self.id}: {messages.translate(result.stderr)}")

    async def checkpoint(self, images: Path, *, leave_running: bool) -> None:
        """Write the state of its processes to the directory `images`; they end, unless they are to be left running.

        Conflict when it has ended, Unavailable without criu, Failed with criu's reason; it runs on then.
        """
        checkpoints.check_criu()
        options = checkpoints.dump_options(images, self._directory, leave_running=leave_running)
        result = await spawn.run(self._oci.command("checkpoint", *options, self.id), limited=False)
        if result.code != 0:
            if self.has_ended():
                raise Conflict(f"container {self.id} is not running")
            raise Failed(await in_thread(checkpoints.read_reason, self._directory / "dump.log", result.stderr))

    async def update(self, limits: Resources) -> None:
        """Give the running container other limits; what is not given stays. Failed with the runtime's reason."""
        file = self._directory / "update.json"
        rendered = render_limits(limits, self._owner.host)
        if limits.pids_limit is not None and limits.pids_limit <= 0:
            rendered["pids"] = {"limit": -1}
        await in_thread(file.write_bytes, msgspec.json.encode(rendered))
        result = await spawn.run(self._oci.command("update", "--resources", str(file), self.id))
        if result.code != 0:
            raise Failed(f"cannot update container {self.id}: {messages.translate(result.stderr)}")

    async def pids(self) -> list[int]:
        """All processes of the container, as the host numbers them, in ascending order."""
        host = self._owner.host.cgroups
        return await in_thread(lambda: cgroups.pids(host.path(self._cgroup)))

    @property
    def cgroup(self) -> tuple[Cgroups, str]:
        """The host's control groups and the container's in them."""
        return self._owner.host.cgroups, self._cgroup

    async def open_root(self) -> int:
        """A descriptor of its root directory and of all that is mounted there for it. Conflict when it has ended."""
        try:
            root = await in_thread(os.open, f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Conflict(f"container {self.id} is not running") from error
        try:
            await self.kill(0)  # it is still there, so that PID was its own
        except BaseException:
            os.close(root)
            raise
        return root

    def exec(self, plan: ExecPlan) -> ExecProcess:
        """Prepare one more process; it runs once its `start` is called. InvalidInput for a bad plan."""
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


class Runtime:
    """The composition of the room. `reason` says why `default` is the default runtime, `binaries` follows reloads."""

    def __init__(self, run_root: Path, conmon: Path, runtimes: Runtimes, host: HostFacts) -> None:
        self._containers = run_root / "containers"
        self._ever: dict[str, OciRuntime] = {}  # those that a reload has taken out may still have containers
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
    async def open(cls, run_root: Path, binaries: Mapping[str, str], default: str | None, *, init: str = "") -> Runtime:
        """Look at the host and the installed runtimes. Unavailable when conmon or every OCI runtime is missing.

        `init` is the program that containers' own first process runs under, if they want one; "" finds one.
        """
        conmon = shutil.which("conmon", path=spawn.ENVIRONMENT["PATH"])
        if conmon is None:
            raise Unavailable("conmon is not installed", "install the package conmon")
        host = await in_thread(read_host, init)
        runtimes = await find_runtimes(run_root, binaries, default, host.cgroups.layout)
        await in_thread(null_device)
        (run_root / "containers").mkdir(mode=0o700, parents=True, exist_ok=True)
        await in_thread(_sweep, run_root / "containers")
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
        """Other OCI runtimes for what is created from now on; InvalidInput or Unavailable, and nothing changes."""
        self._use(await find_runtimes(self._run_root, binaries, default, self.host.cgroups.layout))

    async def releases(self) -> dict[str, tuple[str, Release]]:
        """Path and version of the programs that containers rest upon, by name: the OCI runtimes, conmon, the init."""
        programs = {**self.binaries, "conmon": str(self.conmon)}
        if self.host.init:
            programs[self.host.init.name] = str(self.host.init)
        return {name: (path, await self._releases.of(Path(path))) for name, path in programs.items()}

    async def features(self) -> dict[str, str]:
        """What each OCI runtime says that it can, by its name: a line of JSON, "" for one that says nothing."""
        return {name: await self._releases.features(Path(path)) for name, path in self.binaries.items()}

    def bundle(self, container_id: str) -> Path:
        """The container's directory, whether it exists or not."""
        return self._containers / container_id

    def leftovers(self) -> list[str]:
        """IDs that have a directory here, running or not."""
        return sorted(each.name for each in os.scandir(self._containers) if each.is_dir() and not _is_gone(each.name))

    async def create(
        self, container_id: str, plan: ContainerPlan, log_path: Path | None, images: Path | None = None
    ) -> Process:
        """Create a container up to the point where its process would start; `start` of the result lets it run.

        With `images`, the directory of a checkpoint, its processes go on from there, at once.
        Raises Conflict when it exists here, InvalidInput for a bad plan, Failed with the OCI runtime's reason in
        Docker's words. After a failure nothing is left.
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
            _make_bundle(bundle, spec)
        except FileExistsError as error:
            raise Conflict(f"container {container_id} has a running process already") from error
        # A task, not aio.spawn: its failure is the caller's to hear of, and the log's only if the caller says so.
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
        """Load the AppArmor profile that an OCI `process` names, if it is not. Failed, InvalidInput."""
        if profile := process.get("apparmorProfile"):
            await in_thread(self.profiles.load, profile)

    async def _abort(self, container_id: str, launching: asyncio.Task[Process]) -> None:
        # An OCI runtime that is half-way is let finish, if it does so soon; then what it made is deleted.
        await asyncio.wait([launching], timeout=GRACE_S)
        if not launching.done():
            log.error("the OCI runtime hangs while it creates container %s, and is killed", container_id)
            launching.cancel()
            await asyncio.wait([launching])
        await self.cleanup(container_id)

    async def _facts(self, plan: ContainerPlan, runtime: OciRuntime) -> HostFacts:
        facts = self.host
        if any(isinstance(mount, Bind) and mount.read_only for mount in plan.mounts):
            features = await self._releases.features(runtime.program)
            facts = dataclasses.replace(facts, recursive_read_only=knows_mount_option(features, "rro"))
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
        state = _State(
            pid=report.data,
            pid_started=pidfd.start_time(report.data),
            conmon=child.pid,
            conmon_started=pidfd.start_time(child.pid),
            runtime=runtime.name,
            cgroup=cgroup_path(plan, container_id),
            ends_input=ends_input,
        )
        _write_state(launch.directory / STATE, state)
        if runtime.create_prefix and plan.cgroupns != PRIVATE:  # a private one shows where it was when it was made
            await in_thread(self._enter_own_group, report.data, state.cgroup)
        elif self._in_service:
            await in_thread(self._leave_service, report.data)
        process = self._hold(container_id, runtime, state, spec, child)
        process.restored = images is not None
        return process

    def set_apart(self, conmon: int) -> None:
        """Move a monitor out of the daemon's group: a service manager that stops the daemon must not stop it as well.

        Done while the OCI runtime starts, and wherever the daemon runs: the first move of any process waits for an RCU
        grace period (6 to 10 ms), within the next one all others, such as the OCI runtime's, pass at once. Blocking.
        """
        try:
            for tree in self._service_trees.values():
                cgroups.move(tree, CONMON_GROUP, conmon)
        except ProcessLookupError:
            return  # creating has failed already
        except OSError as error:
            log.warning("the monitor stays in the daemon's cgroup and would be stopped with it: %s", error)

    def _enter_own_group(self, init: int, group: str) -> None:
        """Move a container's first process into its group of the v2 tree that was hidden from its OCI runtime.

        What is executed later enters that group by itself: for an exec nothing is hidden. Blocking.
        """
        try:
            cgroups.move(self._service_trees[""], group, init)
        except ProcessLookupError:
            return
        except OSError as error:
            log.warning("the container has no cgroup of its own in the v2 tree: %s", error)

    def _leave_service(self, init: int) -> None:
        """As above, where the OCI runtime has not moved `init`: in a v2 tree that was hidden from it. Blocking."""
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
        state: _State,
        spec: Mapping[str, Any],
        child: subprocess.Popen[bytes] | None = None,
    ) -> Process:
        process = Process(self, container_id, runtime, state, spec)
        try:
            process._attach()
        except (FileNotFoundError, ConnectionRefusedError):  # conmon has ended
            process.output.close()
        first = pidfd.open_process(state.pid, state.pid_started)
        process._watch(
            state.pid, first, Monitor(state.conmon, state.conmon_started, child), self._exit_file(container_id)
        )
        self._processes[container_id] = process
        return process

    def _exit_file(self, container_id: str) -> Path:
        return self.bundle(container_id) / "exit" / container_id

    async def adopt(self, container_id: str) -> Process | None:
        """Take over a container that an earlier daemon created.

        One that runs is attached to again; one that ended meanwhile has its true end in `exited()`. None, and nothing
        left of it, when it was never started. Its OCI runtime may have been uninstalled: what asks it then fails.
        """
        try:
            state, spec = await in_thread(_read_bundle, self.bundle(container_id))
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
        """Whether it was created and never started."""
        result = await spawn.run(runtime.command("state", container_id))
        return result.code == 0 and json.loads(result.stdout).get("status") == "created"

    async def cleanup(self, container_id: str) -> None:
        """Kill and delete whatever is left of a container: its processes, conmon, cgroup and bundle. Idempotent."""
        process = self._processes.pop(container_id, None)
        bundle = self.bundle(container_id)
        if not bundle.exists():
            return
        if process is None:  # a monitor or daemon killed half-way may have left an OCI runtime that goes on
            await in_thread(spawn.end_workers, bundle)
        if process is None or process.has_hooks or not process.has_ended():
            await in_thread(self._thaw, bundle)
            for runtime in self._holders(container_id):
                try:
                    await spawn.run(runtime.command("delete", "--force", container_id))
                except Failed as error:  # what it has not done is done without it
                    log.error("container %s is deleted without its OCI runtime: %s", container_id, error)
        if process is not None:
            await process._settle(SETTLE_S)
        gone = await in_thread(self._clear_away, container_id)
        # An exec that ends may clear away its part at the same time.
        spawn_task(in_thread(shutil.rmtree, gone, ignore_errors=True), f"discard the bundle {gone.name}")

    def _thaw(self, bundle: Path) -> None:
        cgroups.thaw(self.host.cgroups, _group_of(bundle))

    def _clear_away(self, container_id: str) -> Path:
        """Remove what is left of a container whose first process has ended. Blocking.

        Its bundle is returned, renamed first so that an exec that comes too late cannot bring it back half-removed.
        """
        bundle = self.bundle(container_id)
        group = _group_of(bundle)
        cgroups.thaw(self.host.cgroups, group)
        try:
            cgroups.remove(self.host.cgroups, group, SETTLE_S)
        except OSError as error:  # the OCI runtime was killed half-way, and the kernel has not let go yet
            log.error("the cgroup %s stays: %s", group, error)
        for runtime in self._holders(container_id):  # not asked for `delete`, or what it could not read
            runtime.forget(container_id, bundle)
        return bundle.rename(bundle.with_name(f"{container_id}.{secrets.token_hex(4)}{GONE}"))

    def _holders(self, container_id: str) -> list[OciRuntime]:
        """The runtimes that have a state of this container: one, or none."""
        return [each for each in self._ever.values() if (each.state / container_id).exists()]


def _seen_root(rootfs: Path, pid: int) -> Path:
    """Where the root file system of a process is found, if a daemon has mounted it whose mounts are not ours."""
    own = Path(f"/proc/{pid}/root")
    try:
        return rootfs if rootfs.is_mount() or rootfs.samefile(own) else own
    except OSError:  # it has just ended, or is gone
        return rootfs


def _check_image(plan: ContainerPlan) -> None:
    """Refuse links in the image that would lead the OCI runtime's mounts astray. InvalidInput.

    runc 1.1 makes /dev/fd and its like through a link /dev, outside of the image (as in CVE-2025-31133).
    """
    for directory in ("/dev", "/proc", "/sys"):
        if resolve_in_root(plan.rootfs, directory) != directory:
            raise InvalidInput(f"the image's {directory} is a link, an ordinary directory is expected")


def _group_of(bundle: Path) -> str:
    """The cgroup that a container was to have."""
    try:
        spec = json.loads((bundle / SPEC).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):  # killed while it was written: nothing was created
        return f"{DEFAULT_CGROUP_PARENT}/{bundle.name}"
    group: str = spec["linux"]["cgroupsPath"]
    return group


def _read_bundle(bundle: Path) -> tuple[_State, Mapping[str, Any]]:
    """What `adopt` needs of a bundle. Blocking."""
    state = msgspec.json.decode((bundle / STATE).read_bytes(), type=_State)
    spec = msgspec.json.decode((bundle / SPEC).read_bytes(), type=_Spec)
    return state, {name: value for name, value in msgspec.structs.asdict(spec).items() if value is not None}


def _make_bundle(bundle: Path, spec: Mapping[str, Any]) -> None:
    bundle.mkdir(mode=0o700)
    (bundle / "exit").mkdir(mode=0o700)
    (bundle / SPEC).write_bytes(msgspec.json.encode(spec))


def _is_gone(name: str) -> bool:
    return name.endswith(GONE)


def _sweep(containers: Path) -> None:
    """Remove the bundles that an earlier daemon had not come to remove."""
    for entry in os.scandir(containers):
        if _is_gone(entry.name):
            shutil.rmtree(entry.path)


def _write_state(file: Path, state: _State) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.rename(file)
