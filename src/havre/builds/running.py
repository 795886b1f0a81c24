"""RUN: runs one command in a container, on the writable snapshot of its step.

    network sandbox --+
    mounts, files ----+--> plan --> runtime.create --> output to the log --> start --> wait --> code
                                          |
                      undone in reverse in all cases: process killed, sandbox closed, mount points removed

Mounts are not part of the layer, and neither are the empty files and directories created as mount points.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from havre.aio import finish, in_thread, to_its_end
from havre.builds.cachemounts import CacheMounts
from havre.builds.devices import choose_devices, parse_device_grants
from havre.builds.request import BuildRequest, ContextSource
from havre.builds.trees import Tree
from havre.containers.surroundings import cdi
from havre.containers.surroundings.idranges import check_namespaces
from havre.containers.surroundings.plan import plan_rlimits
from havre.containers.surroundings.subpaths import Subpaths
from havre.dockerfile.mounts import RunMount, secret_id
from havre.dockerfile.plan import DEFAULT_PATH, RunAction
from havre.errors import Failed, InvalidInput
from havre.linux import trees
from havre.linux.idmap import IdRange, as_root_of
from havre.linux.namespaces import user_namespace_at
from havre.linux.openat2 import open_in_root, resolve_in_root
from havre.networks.guest import Guest
from havre.networks.sandbox import Sandbox
from havre.runtime import Runtime, resolve_user
from havre.runtime.plan import HOST, PRIVATE, Bind, ContainerPlan, Mount, Profile, Resources, Security, Tmpfs
from havre.wire.config import EndpointSettings, HostConfig, Ulimit
from havre.wire.values import ContainerId

_SECRETS = "/run/secrets"
_AGENT = "/run/buildkit/ssh_agent.0"
_PIPES = "/dev/pipes"

Output = Callable[[int, bytes], None]


class RunFailed(Failed):
    """The command of a RUN exited with a status other than 0."""

    def __init__(self, argv: Sequence[str], code: int) -> None:
        super().__init__(f'process "{" ".join(argv)}" did not complete successfully: exit code: {code}')
        self.command = " ".join(argv)
        self.code = code


class Sandboxes(Protocol):
    """The part of the networks that RUN uses."""

    async def open_sandbox(self, guest: Guest) -> Sandbox: ...
    async def close_sandbox(self, id: ContainerId) -> None: ...


class Views(Protocol):
    """The files that a step copies or mounts: of a stage, an image or a context."""

    async def tree(self, name: str, wanted: str) -> Tree: ...
    async def mounted(self, name: str, ids: IdRange) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Remapping:
    """The ID range of builds' commands on the host (None: not remapped), and mounts of files for it."""

    ids: IdRange | None
    places: Subpaths


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """The place of a command: the step's mounted root file system, and a private directory for files to mount.

    `devices` are the names of CDI devices.
    """

    id: str
    rootfs: Path
    files: Path
    image: str = ""
    devices: tuple[str, ...] = ()


@dataclass
class _Gathered:
    """The mounts of a command for the OCI plan, variables for its environment, and what its CDI devices add."""

    edits: cdi.Edits
    mounts: list[Mount] = field(default_factory=list)
    env: list[str] = field(default_factory=list)


class Runner:
    """Runs commands of builds. `memory` is an empty directory of the run root (tmpfs), for secrets."""

    def __init__(
        self,
        runtime: Runtime,
        networks: Sandboxes,
        caches: CacheMounts,
        memory: Path,
        ulimits: Sequence[Ulimit],
        seccomp: Profile,
        cgroup_parent: str,
        cgroupns: str,
        remapping: Remapping,
        cdi_directories: Sequence[Path] = (),
    ) -> None:
        self._secrets = memory
        self._cdi_directories = cdi_directories
        self._runtime = runtime
        self._networks = networks
        self._caches = caches
        self._ulimits = tuple(ulimits)
        self._seccomp = seccomp
        self._cgroup_parent = cgroup_parent
        self._cgroupns = cgroupns or (PRIVATE if runtime.host.cgroups.layout == "v2" else "")
        self._places = remapping.places
        self.ids = remapping.ids

    async def devices_of(self, action: RunAction, request: BuildRequest) -> tuple[str, ...]:
        """The CDI devices that the command gets. Raises `NotFound` or `Forbidden` for what the build may not have."""
        if not action.devices:
            return ()
        known = await in_thread(cdi.known_devices, self._cdi_directories)
        return choose_devices(action.devices, parse_device_grants(request.entitlements), known)

    async def run(
        self,
        action: RunAction,
        place: RunPlace,
        request: BuildRequest,
        client: ContextSource,
        views: Views,
        output: Output,
    ) -> None:
        """Run the command. Raises `RunFailed`. Cleans up in all cases, including cancellation."""
        undo = AsyncExitStack()
        try:
            await self._run(action, place, request, client, views, output, undo)
        finally:
            await finish(undo.aclose())

    async def _run(
        self,
        action: RunAction,
        place: RunPlace,
        request: BuildRequest,
        client: ContextSource,
        views: Views,
        output: Output,
        undo: AsyncExitStack,
    ) -> None:
        network = action.network if action.network not in ("", "default") else request.network or "default"
        guest = self._guest(place, action, request, network)
        undo.push_async_callback(self._places.close, place.id)
        edits = await in_thread(cdi.resolve, place.devices, self._cdi_directories)
        gathered = _Gathered(edits, [*edits.mounts], [*edits.env])
        for mount in action.mounts:
            await self._add_mount(mount, place, client, views, gathered, undo)
        gathered.mounts += [
            self._file(place, f"pipe-{each.name}", f"{_PIPES}/{each.name}", each.text.encode(), 0o755)
            for each in action.files
        ]
        undo.push_async_callback(self._networks.close_sandbox, ContainerId(place.id))
        sandbox = await self._networks.open_sandbox(guest)
        gathered.mounts += [
            self._file(place, "hosts", "/etc/hosts", sandbox.hosts.encode(), 0o644),
            self._file(place, "resolv.conf", "/etc/resolv.conf", sandbox.resolv_conf.encode(), 0o644),
        ]
        stubs = await in_thread(_make_stubs, place.rootfs, gathered.mounts, self.ids)
        undo.push_async_callback(in_thread, _clear_stubs, place.rootfs, stubs)
        plan = await in_thread(self._plan, action, place, request, gathered, sandbox)
        if self.ids is not None:
            plan = replace(plan, rootfs=await self._places.show(place.id, place.rootfs, self.ids))
        undo.push_async_callback(self._runtime.cleanup, place.id)
        async with self._runtime.room.for_start():
            process = await self._runtime.create(place.id, plan, None)
        reading = asyncio.ensure_future(_forward(process.output.subscribe(), output))
        undo.callback(reading.cancel)
        await process.start()
        exit = await process.wait()
        await reading
        if exit.code != 0:
            raise RunFailed(action.argv, exit.code)

    def _plan(
        self, action: RunAction, place: RunPlace, request: BuildRequest, gathered: _Gathered, sandbox: Sandbox
    ) -> ContainerPlan:
        edits, user = gathered.edits, resolve_user(place.rootfs, action.user)
        env = dict(each.partition("=")[::2] for each in (*action.proxies, f"PATH={DEFAULT_PATH}", *action.env))
        env |= dict(each.partition("=")[::2] for each in gathered.env)
        return ContainerPlan(
            rootfs=place.rootfs,
            args=action.argv,
            env=tuple(f"{key}={value}" for key, value in env.items()),
            cwd=action.cwd,
            user=replace(user, groups=(*user.groups, *edits.groups)),
            hostname="buildkitsandbox",
            mounts=tuple(sorted(gathered.mounts, key=lambda mount: mount.destination.count("/"))),
            devices=edits.devices,
            hooks=edits.hooks,
            intel_rdt=edits.intel_rdt,
            network=HOST if sandbox.netns is None else str(sandbox.netns),
            user_namespace=str(user_namespace_at(sandbox.netns)) if self.ids and sandbox.netns else "",
            ids=self.ids,
            cgroupns=self._cgroupns,
            privileged=action.security == "insecure",
            security=Security(seccomp=None if action.security == "insecure" else self._seccomp),
            rlimits=plan_rlimits(request.ulimits, self._ulimits),
            shm_size=request.shm_size or 64 << 20,
            cgroup_parent=request.cgroup_parent or self._cgroup_parent,
            resources=Resources(
                memory=request.memory,
                memory_swap=request.memory_swap,
                cpu_shares=request.cpu_shares,
                cpu_quota_us=request.cpu_quota_us,
                cpu_period_us=request.cpu_period_us,
                cpuset_cpus=request.cpuset_cpus,
                cpuset_mems=request.cpuset_mems,
            ),
        )

    async def _add_mount(
        self,
        mount: RunMount,
        place: RunPlace,
        client: ContextSource,
        views: Views,
        gathered: _Gathered,
        undo: AsyncExitStack,
    ) -> None:
        if mount.type == "tmpfs":
            options = ("exec", f"size={mount.size}") if mount.size else ("exec",)
            gathered.mounts.append(Tmpfs(destination=mount.target, options=options))
        elif mount.type == "bind":
            source = await self._shown(mount, place, views)
            gathered.mounts.append(Bind(source=source, destination=mount.target, read_only=mount.read_only))
        elif mount.type == "cache":
            seed = await self._source(mount, place, views) if mount.from_ else None
            directory = await undo.enter_async_context(self._caches.borrow(mount.id or mount.target, mount, seed))
            source = await self._mapped(place, directory)
            gathered.mounts.append(Bind(source=source, destination=mount.target, read_only=mount.read_only))
        elif mount.type == "secret":
            await self._add_secret(mount, client, gathered, undo)
        else:
            await self._add_agent(mount, client, gathered)

    async def _add_secret(
        self, mount: RunMount, client: ContextSource, gathered: _Gathered, undo: AsyncExitStack
    ) -> None:
        """Add a secret: a file in memory or a variable, for the duration of the command only."""
        id = secret_id(mount)
        value = await client.secret(id)
        if value is None:
            if mount.required:
                raise InvalidInput(f"secret {id}: not found", "give it with --secret")
            return
        if mount.env:
            gathered.env.append(f"{mount.env}={value.decode(errors='surrogateescape')}")
        if mount.target or not mount.env:
            file = self._secrets / secrets.token_hex(16)
            undo.callback(file.unlink, missing_ok=True)
            _write_new(file, value, 0o400 if mount.mode is None else mount.mode)
            self._give(file, mount.uid, mount.gid)
            gathered.mounts.append(Bind(source=file, destination=mount.target or f"{_SECRETS}/{id}", read_only=True))

    async def _shown(self, mount: RunMount, place: RunPlace, views: Views) -> Path:
        """The host path of a bind mount's source, with owners that are valid for the command's ID range."""
        if self.ids is not None and mount.read_only:
            root = await views.mounted(mount.from_, self.ids)
            if root is not None:  # an overlay, which can be ID-mapped only through its layers
                return await in_thread(_existing, root, mount.source)
        return await self._mapped(place, await self._source(mount, place, views))

    async def _mapped(self, place: RunPlace, path: Path) -> Path:
        if self.ids is None:
            return path
        return await self._places.open(place.id, path.parent, path.name, self.ids)

    def _give(self, file: Path, uid: int = 0, gid: int = 0) -> None:
        """chown a file to these IDs of the container."""
        os.chown(file, *(self.ids.outside(uid, gid) if self.ids else (uid, gid)))

    def _file(self, place: RunPlace, name: str, target: str, content: bytes, mode: int) -> Bind:
        path = place.files / name
        _write_new(path, content, mode)
        self._give(path)
        return Bind(source=path, destination=target, read_only=True)

    async def _add_agent(self, mount: RunMount, client: ContextSource, gathered: _Gathered) -> None:
        socket = await client.ssh(mount.id or "default")
        if socket is None:
            if mount.required:
                raise InvalidInput(f"ssh agent {mount.id or 'default'}: not forwarded", "give it with --ssh")
            return
        target = mount.target or _AGENT
        self._give(socket, mount.uid, mount.gid)
        socket.chmod(0o600 if mount.mode is None else mount.mode)
        gathered.mounts.append(Bind(source=socket, destination=target))
        gathered.env.append(f"SSH_AUTH_SOCK={target}")

    def _guest(self, place: RunPlace, action: RunAction, request: BuildRequest, network: str) -> Guest:
        """The request of a RUN to the networks."""
        if self.ids is not None:
            privileged = action.security == "insecure"
            check_namespaces(
                HostConfig(network_mode=network, privileged=privileged), "the daemon runs with userns-remap"
            )
        name = "bridge" if network == "default" else network
        return Guest(
            id=place.id,
            name=f"build-{place.id[:12]}",
            mode=name,
            asked={} if network == "none" else {name: EndpointSettings()},
            extra_hosts=request.extra_hosts,
            ids=self.ids,
        )

    async def _source(self, mount: RunMount, place: RunPlace, views: Views) -> Path:
        """The host path of a mount's source; for a writable mount, a copy that is discarded."""
        tree = await views.tree(mount.from_, mount.source or ".")
        inside = await in_thread(_existing, await to_its_end(tree.directory), mount.source)
        if mount.read_only or mount.type == "cache":
            return inside
        copy = place.files / f"bind-{secrets.token_hex(4)}"
        await to_its_end(_copy_aside, inside, copy)
        return copy


async def _forward(output: AsyncIterator[tuple[int, bytes]], into: Output) -> None:
    async for stream, data in output:
        into(stream, data)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with open(path, "xb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
        file.write(content)
    path.chmod(mode)


def _existing(root: Path, path: str) -> Path:
    """`path` resolved inside `root`, without links; the tree must not change meanwhile."""
    try:
        resolved = resolve_in_root(root, path).lstrip("/")
        os.close(open_in_root(root, resolved or ".", os.O_PATH | os.O_NOFOLLOW))
    except OSError as error:
        raise InvalidInput(f'cannot mount "{path}": {error.strerror}') from error
    return root / resolved


def _copy_aside(source: Path, copy: Path) -> None:
    if not source.is_dir():
        if not source.is_file():
            raise InvalidInput(f"cannot mount {source.name} for writing: it is neither a file nor a directory")
        shutil.copy(source, copy)
        return
    copy.mkdir(mode=0o755)
    from_, to = trees.open_directory(source), trees.open_directory(copy)
    try:
        trees.copy_tree(from_, to)
    finally:
        os.close(from_)
        os.close(to)


# -- creating mount points


def _make_stubs(rootfs: Path, mounts: Sequence[Mount], ids: IdRange | None) -> list[str]:
    """Create missing mount points; directories above keep their times. Returns what was created, deepest first."""
    made: list[str] = []
    for mount in sorted(mounts, key=lambda each: each.destination.count("/")):
        if mount.destination.startswith(("/dev/", "/proc/", "/sys/")):
            continue  # created in the file systems mounted there
        is_file = isinstance(mount, Bind) and not mount.source.is_dir()
        names = resolve_in_root(rootfs, mount.destination).strip("/").split("/")
        for depth in range(1, len(names) + 1):
            path = "/".join(names[:depth])
            with as_root_of(ids):
                if _make_stub(rootfs, path, is_file=is_file and depth == len(names)):
                    made.insert(0, path)
    return made


def _make_stub(rootfs: Path, path: str, *, is_file: bool) -> bool:
    """Create `path` if missing. Returns whether it was created."""
    above, name = posixpath.split(path)
    with _keeping_times(rootfs, above) as parent:
        try:
            if is_file:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
            else:
                os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            return False
        return True


def _clear_stubs(rootfs: Path, stubs: Sequence[str]) -> None:
    """Remove mount points that are still empty; others were changed by the command and belong to the layer."""
    for path in stubs:
        above, name = posixpath.split(path)
        with suppress(FileNotFoundError, NotADirectoryError), _keeping_times(rootfs, above) as parent:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and not os.listdir(f"/proc/self/fd/{parent}/{name}"):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                os.unlink(name, dir_fd=parent)


@contextmanager
def _keeping_times(rootfs: Path, directory: str) -> Iterator[int]:
    """Open a directory and restore its times at the end of the block."""
    parent = open_in_root(rootfs, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = os.fstat(parent)
        yield parent
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(parent)
