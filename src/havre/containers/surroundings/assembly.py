"""Sets up the surroundings of a container's process (root file system, volumes, network, files) and tears them down.

The three slow steps (mounts, network sandbox, volumes) run concurrently. Each has an idempotent inverse, which is
registered before the step is tried, so a failure leaves nothing behind.

    assemble --+-- snapshots.mount ----+
               +-- networks.open ------+--> files, user, namespaces --> Surroundings, Sandbox
               +-- volumes, binds -----+
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs

from havre.aio import in_thread
from havre.containers.container import Container, MountOptions, MountPoint
from havre.containers.live import Index
from havre.containers.networking import guest_of
from havre.containers.surroundings import cdi
from havre.containers.surroundings.devices import cdi_names, read_block_limits, read_host_devices
from havre.containers.surroundings.idranges import IdRanges, check_namespaces
from havre.containers.surroundings.mounts import image_snapshot, image_snapshots
from havre.containers.surroundings.plan import Surroundings, parse_device_rule
from havre.containers.surroundings.subpaths import Subpaths
from havre.errors import Conflict, Failed, InvalidInput
from havre.events import Events
from havre.linux import mounts as kernel_mounts
from havre.linux.idmap import IdRange, as_root_of
from havre.linux.namespaces import user_namespace_at
from havre.linux.openat2 import open_in_root
from havre.networks.networks import Networks
from havre.networks.sandbox import Sandbox
from havre.runtime import resolve_user
from havre.runtime.plan import HOST, PRIVATE, Bind, Security
from havre.runtime.security import parse_security_opts
from havre.storage import Snapshots
from havre.volumes.volumes import Volumes
from havre.wire.config import HostConfig, Ulimit
from havre.wire.values import ContainerId

log = logging.getLogger(__name__)

T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")

_NO_SECURITY = Security()
FILES = {"hosts": "/etc/hosts", "hostname": "/etc/hostname", "resolv.conf": "/etc/resolv.conf"}


@dataclass(frozen=True, slots=True)
class DaemonDefaults:
    """The daemon's defaults for all containers."""

    ulimits: tuple[Ulimit, ...] = ()
    init: bool = False
    cgroup_parent: str = ""
    cdi_directories: tuple[Path, ...] = ()
    security: Security = _NO_SECURITY

    def security_of(self, host: HostConfig) -> Security:
        """The daemon's security defaults for a container; privileged ones have no seccomp profile, as in dockerd."""
        return replace(self.security, seccomp=None) if host.privileged else self.security


class Assembly:
    """Sets up and tears down the surroundings of a container's process."""

    def __init__(
        self,
        index: Index,
        snapshots: Snapshots,
        volumes: Volumes,
        networks: Networks,
        events: Events,
        directory: Path,
        defaults: DaemonDefaults,
        subpaths: Subpaths,
        ranges: IdRanges,
    ) -> None:
        self._index = index
        self._snapshots = snapshots
        self._volumes = volumes
        self._networks = networks
        self._events = events
        self._directory = directory
        self._defaults = defaults
        self._subpaths = subpaths
        self._ranges = ranges

    def directory(self, container: Container) -> Path:
        """The directory of the container's own files."""
        return self._directory / container.id

    def network_files(self, container: Container) -> Path:
        """The directory of its hosts, hostname and resolv.conf: that of the container whose network it shares."""
        owner, seen = container, set[str]()
        while (kind := owner.spec.host_config.network_mode.partition(":"))[0] == "container" and owner.id not in seen:
            seen.add(owner.id)
            if (live := self._index.find(kind[2])) is None:
                break
            owner = live.container
        return self.directory(owner)

    async def put_up(self, container: Container, undo: AsyncExitStack) -> tuple[Surroundings, Sandbox]:
        """Set up everything for a run; the inverses are pushed to `undo`."""
        id = ContainerId(container.id)
        undo.callback(self.tell_unmounts, container)
        undo.push_async_callback(self._snapshots.unmount, container.id)
        undo.push_async_callback(self._close_volumes, container)
        undo.push_async_callback(self._networks.close_sandbox, id)
        joined = self._network_donor(container)
        if joined is not None:
            theirs = joined.spec.config
            config = structs.replace(container.spec.config, hostname=theirs.hostname, domainname=theirs.domainname)
            container.respecify(config=config)
        userns = self._choose_ids(container)
        rootfs, sandbox, sources = await all_of(
            self._snapshots.mount(container.id, container.run.ids),
            self._networks.open_sandbox(guest_of(container), userns, ContainerId(joined.id) if joined else None),
            self._open_sources(container),
        )
        self.tell_mounts(container)
        await self._fill_volumes(container, rootfs, sources)
        shown = await self._map_volumes(container, sources)
        if container.run.ids is not None:
            rootfs = await self._subpaths.show(container.id, rootfs, container.run.ids)

        def rest() -> Surroundings:
            self.directory(container).mkdir(
                mode=0o700, exist_ok=True
            )  # a power cut after the creation may have taken it
            files = self._write_files(container, sandbox, joined)
            if container.spec.host_config.ipc_mode == "shareable":
                self._mount_shm(container)
            return self._look_around(container, rootfs, shown, files, sandbox, userns)

        return await in_thread(rest), sandbox

    def is_held(self, container: Container) -> None:
        """The container was created: close descriptors that conmon inherited and keeps open."""
        self._networks.is_held(ContainerId(container.id))

    def _choose_ids(self, container: Container) -> Path | None:
        """Set the container's ID range for the start. Returns the user namespace to join, if it joins namespaces.

        setns(2) requires capabilities in the user namespace that owns the target: raises `Conflict` if that is another
        one.
        """
        container.note_run(ids=self._ranges.of(container))
        host = container.spec.host_config
        if container.run.ids is None:
            return None
        check_namespaces(host)
        modes = ((host.pid_mode, "PID"), (host.ipc_mode, "IPC"))
        found: Path | None = None
        joined = (self._network_donor(container), *(self._joined(mode, noun) for mode, noun in modes))
        for donor in filter(None, joined):
            own = Path(f"/proc/{donor.state.pid}/ns/user")
            if donor.run.ids != container.run.ids or (found is not None and not found.samefile(own)):
                raise Conflict(
                    f"cannot join a namespace of container {donor.id}: it has another user namespace",
                    "give both the same --userns",
                )
            found = own
        return found

    def leave(self, container: Container) -> None:
        """The process has ended: remove the container from network listings. Idempotent."""
        self._networks.leave(ContainerId(container.id))

    async def take_down(self, container: Container) -> None:
        """Tear down. Idempotent. Ports and addresses are released before volume plugins are called, which may hang."""
        if container.run.ids is not None:
            await self._subpaths.close(container.id)
        self._snapshots.unmount_later(container.id)
        try:
            await self._networks.close_sandbox(ContainerId(container.id))
        finally:
            await self._close_volumes(container)
        if container.spec.host_config.ipc_mode == "shareable":
            await in_thread(kernel_mounts.unmount_all, self._shm(container))

    async def remove_directory(self, container: Container) -> None:
        """Remove the container's own files. Idempotent."""
        await in_thread(_remove_directory, self.directory(container))

    async def sweep(self) -> None:
        """Remove files of deleted containers that an earlier daemon left."""
        known = {live.container.id for live in self._index}
        for directory in self._directory.iterdir():
            if directory.name not in known:
                try:
                    await in_thread(_remove_directory, directory)
                except OSError as error:
                    log.error("cannot remove the files of a deleted container: %s", error)

    async def _close_volumes(self, container: Container) -> None:
        """Release volumes and mounted images, after mounts of parts of them."""
        await self._subpaths.close(container.id)
        for snapshot in image_snapshots(container):
            self._snapshots.unmount_later(snapshot)
        await self._volumes.unmounted(container.id)

    def _shm(self, container: Container) -> Path:
        """The mount point of the shared memory of a container with ipc=shareable."""
        return self.directory(container) / "shm"

    def _mount_shm(self, container: Container) -> None:
        place = self._shm(container)
        place.mkdir(mode=0o700, exist_ok=True)
        kernel_mounts.unmount_all(place)
        attributes = kernel_mounts.ATTR_NOSUID | kernel_mounts.ATTR_NODEV | kernel_mounts.ATTR_NOEXEC
        uid, gid = container.run.ids.outside(0, 0) if container.run.ids else (0, 0)
        owner = (("uid", str(uid)), ("gid", str(gid)))
        options = (("source", "shm"), ("mode", "1777"), ("size", str(container.spec.host_config.shm_size)), *owner)
        kernel_mounts.mount_filesystem("tmpfs", options, place, attributes)

    async def open_mounts(self, container: Container) -> Mapping[str, Path]:
        """The host path of each bind, volume and image, by destination; missing sources of `-v` are created."""
        return await self._map_volumes(container, await self._open_sources(container))

    async def _open_sources(self, container: Container) -> dict[str, Path]:
        """As `open_mounts`, with volumes not ID-mapped, because filling a new volume may replace its directory."""
        sources: dict[str, Path] = {}
        for point in container.spec.mounts:
            options = container.spec.mount_options.get(point.destination, MountOptions())
            if point.type == "volume":
                volume = await self._volumes.mount_for(container.id, point.name)
                ids = self._ids_on(container, point)
                sources[point.destination] = await self._part(container, volume, options, ids)
            elif point.type == "bind":
                sources[point.destination] = await in_thread(open_bind_source, Path(point.source), options)
                if not options.slave_if_shared:
                    await in_thread(_check_propagation, Path(point.source), point.propagation)
            elif point.type == "image":
                path = await self._snapshots.mount(image_snapshot(container.id, point.destination), container.run.ids)
                sources[point.destination] = await self._part(container, path, options)
        return sources

    async def _part(self, container: Container, path: Path, options: MountOptions, ids: IdRange | None = None) -> Path:
        return await self._subpaths.open(container.id, path, options.subpath, ids) if options.subpath else path

    async def _map_volumes(self, container: Container, sources: Mapping[str, Path]) -> Mapping[str, Path]:
        """The sources, with whole volumes ID-mapped for a container with an ID range."""
        if container.run.ids is None:
            return sources
        mapped = dict(sources)
        for point in container.spec.mounts:
            options = container.spec.mount_options.get(point.destination, MountOptions())
            ids = self._ids_on(container, point)
            if ids is not None and not options.subpath:
                mapped[point.destination] = await self._subpaths.open(
                    container.id, sources[point.destination], ".", ids
                )
        return mapped

    def _ids_on(self, container: Container, point: MountPoint) -> IdRange | None:
        """The ID range to map a mount to; None: not mapped."""
        return container.run.ids if point.type == "volume" and self._volumes.get(point.name).is_closed else None

    async def close_mounts(self, container: Container) -> None:
        """Release root file system, volumes and images. Idempotent."""
        await self._snapshots.unmount(container.id)
        await self._close_volumes(container)

    def tell_mounts(self, container: Container) -> None:
        """Publish the mount events of volumes, before a run or a view of the files."""
        for point in container.spec.mounts:
            if point.type == "volume":
                attributes = {
                    "container": container.id,
                    "destination": point.destination,
                    "driver": point.driver,
                    "propagation": point.propagation,
                    "read/write": "true" if point.rw else "false",
                }
                self._events.publish("volume", "mount", point.name, attributes)

    def tell_unmounts(self, container: Container) -> None:
        """Publish the unmount events of volumes, after a run or a view of the files."""
        for point in container.spec.mounts:
            if point.type == "volume":
                attributes = {"container": container.id, "driver": point.driver}
                self._events.publish("volume", "unmount", point.name, attributes)

    async def _fill_volumes(self, container: Container, rootfs: Path, sources: Mapping[str, Path]) -> None:
        """Fill new volumes with the image's files at their destination."""
        for point in container.spec.mounts:
            options = container.spec.mount_options.get(point.destination, MountOptions())
            if point.type == "volume" and not options.no_copy:
                part = sources[point.destination] if options.subpath else None
                await self._volumes.fill(point.name, rootfs, point.destination, part, container.run.ids)

    def _write_files(self, container: Container, sandbox: Sandbox, joined: Container | None) -> tuple[Bind, ...]:
        """Write hosts, hostname and resolv.conf; for a shared network, use those of the other container."""
        directory = self.directory(joined or container)
        if joined is None:
            texts = {
                "hosts": sandbox.hosts,
                "hostname": container.spec.config.hostname + "\n",
                "resolv.conf": sandbox.resolv_conf,
            }
            for name, text in texts.items():
                (directory / name).write_text(text)
                if container.run.ids is not None:
                    os.chown(directory / name, *container.run.ids.outside(0, 0))
        return tuple(Bind(source=directory / name, destination=inside) for name, inside in FILES.items())

    @staticmethod
    def _check_working_directory(container: Container, rootfs: Path) -> None:
        """Refuse a working directory that is a file, as Docker; the OCI runtime creates missing ones. Blocking."""
        wanted = container.spec.config.working_dir or "/"
        mounted = {point.destination for point in container.spec.mounts} | {*(container.spec.host_config.tmpfs or ())}
        if any(f"{wanted}/".startswith(f"{destination.rstrip('/')}/") for destination in mounted):
            return  # on a mount: the OCI runtime checks it
        try:
            os.close(open_in_root(rootfs, wanted, os.O_PATH | os.O_DIRECTORY))
        except NotADirectoryError:
            raise Failed(f"Cannot mkdir: {wanted} is not a directory", "choose another working directory") from None
        except OSError:
            return  # missing, or a dangling link: the OCI runtime creates it or reports an error

    def _look_around(
        self,
        container: Container,
        rootfs: Path,
        sources: Mapping[str, Path],
        files: tuple[Bind, ...],
        sandbox: Sandbox,
        userns: Path | None,
    ) -> Surroundings:
        """Collect the other facts from the root file system and the host. Blocking."""
        config, host = container.spec.config, container.spec.host_config
        with as_root_of(container.run.ids):
            _mark(rootfs)
        self._check_working_directory(container, rootfs)
        edits = cdi.resolve(cdi_names(host, bool(self._defaults.cdi_directories)), self._defaults.cdi_directories)
        return Surroundings(
            rootfs=rootfs,
            sources=sources,
            files=files,
            user=resolve_user(rootfs, config.user, host.group_add or ()),
            network=HOST if sandbox.netns is None else str(sandbox.netns),
            user_namespace=_user_namespace(container, sandbox, userns),
            ipc=self._namespace(host.ipc_mode, "IPC", "ipc"),
            pid=self._namespace(host.pid_mode, "PID", "pid"),
            shm_source=self._shm_source(container),
            security=parse_security_opts(host.security_opt or (), self._defaults.security_of(host)),
            devices=read_host_devices(host),
            edits=edits,
            device_rules=tuple(parse_device_rule(rule) for rule in host.device_cgroup_rules or ()),
            blocks=read_block_limits(host),
            default_ulimits=self._defaults.ulimits,
            init=self._defaults.init,
            cgroup_parent=self._defaults.cgroup_parent,
            link_variables=sandbox.link_variables,
            kept_descriptors=sandbox.kept_descriptors,
        )

    def _namespace(self, mode: str, noun: str, file: str) -> str:
        if mode == "host":
            return HOST
        joined = self._joined(mode, noun)
        return PRIVATE if joined is None else f"/proc/{joined.state.pid}/ns/{file}"

    def _shm_source(self, container: Container) -> Path | None:
        """The source of /dev/shm if it is not private to the container."""
        mode = container.spec.host_config.ipc_mode
        if mode == "host":
            return Path("/dev/shm")
        if mode == "shareable":
            return self._shm(container)
        donor = self._joined(mode, "IPC")
        if donor is None:
            return None
        if donor.spec.host_config.ipc_mode != "shareable":
            raise Conflict(
                f"failed to join IPC namespace: container {donor.id}: non-shareable IPC "
                "(hint: use IpcMode:shareable for the donor container)"
            )
        return self._shm(donor)

    def _network_donor(self, container: Container) -> Container | None:
        """The running container whose network this one shares, followed through others that share it; None: its own.

        Raises `NotFound`, `Conflict` if one does not run, `Failed` for a cycle.
        """
        mode = container.spec.host_config.network_mode
        if container.spec.config.network_disabled:
            return None
        if mode.startswith("container:") and self._index.get(mode.partition(":")[2]).container is container:
            raise Failed("cannot join own network")
        found, seen = None, {container.id}
        while (donor := self._joined(mode, "network")) is not None:
            if donor.id in seen:
                raise Failed("cannot join own network")
            seen.add(donor.id)
            found, mode = donor, donor.spec.host_config.network_mode
        return found

    def _joined(self, mode: str, noun: str) -> Container | None:
        """The running container of a `container:ID` mode; None for other modes."""
        if not mode.startswith("container:"):
            return None
        ref = mode.partition(":")[2]
        live = self._index.get(ref)
        if live.process is None:
            if noun == "network":
                raise Conflict(f"cannot join network of a non running container: {ref}")
            refusal = Failed if noun == "PID" else Conflict  # as in dockerd
            raise refusal(f"failed to join {noun} namespace: container {live.container.id} is not running")
        return live.container


def _remove_directory(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return


def _user_namespace(container: Container, sandbox: Sandbox, joined: Path | None) -> str:
    """The user namespace to run in: that of the joined namespaces, or the one created for its network."""
    if container.run.ids is None:
        return ""
    assert sandbox.netns is not None, "a container with mapped IDs has a network namespace of its own"
    return str(joined or user_namespace_at(sandbox.netns))


def _mark(rootfs: Path) -> None:
    """Create /.dockerenv, by which programs detect a container, unless the image has a file there."""
    try:
        os.close(os.open(rootfs / ".dockerenv", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755))
    except FileExistsError:
        return


def _check_propagation(source: Path, propagation: str) -> None:
    """Raise `Failed` unless the source's mount has the propagation required (mount_namespaces(7)). Blocking."""
    needed = {"shared": {"shared"}, "slave": {"shared", "slave"}}.get(propagation.removeprefix("r"))
    if needed is None:
        return
    mount = kernel_mounts.mount_of(source.resolve())
    if not mount.propagation & needed:
        kind = " or ".join(sorted(needed))
        raise Failed(f"path {source} is mounted on {mount.target} but it is not a {kind} mount")


def open_bind_source(source: Path, options: MountOptions) -> Path:
    """A host path to bind; if missing, created (`-v`) or refused (`--mount`). Blocking."""
    if source.exists():
        return source
    if not options.create_source:
        raise InvalidInput(f'invalid mount config for type "bind": bind source path does not exist: {source}')
    try:
        source.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"error while creating mount source path '{source}': {error.strerror}") from error
    return source


async def all_of(
    first: Coroutine[Any, Any, T1], second: Coroutine[Any, Any, T2], third: Coroutine[Any, Any, T3]
) -> tuple[T1, T2, T3]:
    """Run three steps concurrently. Waits for all of them, then raises the first failure."""
    one, two, three = asyncio.ensure_future(first), asyncio.ensure_future(second), asyncio.ensure_future(third)
    await asyncio.gather(one, two, three, return_exceptions=True)
    return one.result(), two.result(), three.result()
