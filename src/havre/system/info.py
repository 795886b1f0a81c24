"""The responses of `info`, `version` and `system df`.

Source: Docker Engine API, "SystemInfo", "SystemVersion", "SystemDataUsage". What havre lacks (swarm, managed
plugins, containerd) is reported as absent, in the shape that clients expect.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET

from havre.aio import in_thread
from havre.containers.container import Container
from havre.containers.containers import Containers
from havre.containers.surroundings.cdi import list_devices
from havre.errors import NotFound
from havre.images.images import Images
from havre.linux.room import free_bytes, full_hint, lacks_inodes
from havre.registry import proxies
from havre.runtime import Release, Runtime
from havre.storage import Storage
from havre.volumes.spec import Volume
from havre.volumes.volumes import Volumes
from havre.wire.images import ImageSummary
from havre.wire.system import (
    Commit,
    Component,
    DiscoveredDevice,
    FirewallInfo,
    Info,
    PlatformName,
    Plugins,
    RegistryConfig,
    RegistryIndex,
    RuntimeEntry,
    SwarmInfo,
    VersionAnswer,
)
from havre.wire.times import from_seconds
from havre.wire.versions import OLDEST

_FULL_BYTES = 4 << 20  # below this, a file system counts as full
DOCKER_COMPATIBLE = "26.1.5"
"""The Docker release whose behaviour havre reports; clients compare it with their own."""
_FEATURES = "org.opencontainers.runtime-spec.features"  # key in `Runtimes`, as dockerd has it


@dataclass(frozen=True, slots=True)
class Identity:
    """The daemon's own facts; `version` is havre's. `rules`: it filters packets; `relays`: it serves ports itself."""

    version: str
    data_root: Path
    exec_root: Path | None = None
    debug: bool = False
    experimental: bool = False
    mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    live_restore: bool = True
    log_driver: str = "json-file"
    remapped: bool = False
    cdi_directories: tuple[str, ...] = ()
    authorization_plugins: tuple[str, ...] = ()
    seccomp_profile: str = "builtin"
    no_new_privileges: bool = False
    rules: bool = True
    relays: bool = True
    buildkit: bool = True
    oldest_api: str = str(OLDEST)
    started_at: float = field(default_factory=time.time)

    @property
    def roots(self) -> Sequence[Path]:
        """The directories of its files."""
        return [root for root in (self.data_root, self.exec_root) if root is not None]


@dataclass(frozen=True, slots=True)
class Usage:
    """What is on the disk: bytes of all layers and of those that only unused images have, images, containers with their
    two sizes, volumes with theirs."""

    layers_bytes: int
    unused_images_bytes: int
    images: Sequence[ImageSummary]
    containers: Sequence[tuple[Container, int, int]]
    volumes: Sequence[Volume]


class System:
    """Reads facts for clients; changes nothing."""

    def __init__(
        self,
        identity: Identity,
        id: str,
        storage: Storage,
        runtime: Runtime,
        images: Images,
        containers: Containers,
        volumes: Volumes,
    ) -> None:
        self._identity = identity
        self.id = id
        self._storage = storage
        self._runtime = runtime
        self._images = images
        self._containers = containers
        self._volumes = volumes

    def reload(self, identity: Identity) -> None:
        """Apply a new configuration; the start time is kept."""
        self._identity = replace(identity, started_at=self._identity.started_at)

    @property
    def builder_version(self) -> str:
        """The builder that docker's command line is to ask for: "2" is BuildKit, "1" the classic one."""
        return "2" if self._identity.buildkit else "1"

    async def version(self, newest: str) -> VersionAnswer:
        """`GET /version`; `newest` is the API version that the edge speaks."""
        kernel, built = platform.release(), from_seconds(self._identity.started_at)
        architecture = go_architecture(platform.machine())
        details = {
            "ApiVersion": newest,
            "Arch": architecture,
            "BuildTime": built,
            "Experimental": str(self._identity.experimental).lower(),
            "GitCommit": "",
            "GoVersion": "",
            "KernelVersion": kernel,
            "MinAPIVersion": self._identity.oldest_api,
            "Os": "linux",
        }
        python = {"Python": platform.python_version(), "Implementation": sys.implementation.name}
        programs = [
            Component(name=name, version=release.version, details={"GitCommit": release.commit, "Path": path})
            for name, (path, release) in (await self._runtime.releases()).items()
        ]
        return VersionAnswer(
            platform=PlatformName(name=f"havre {self._identity.version}"),
            components=[
                Component(name="Engine", version=DOCKER_COMPATIBLE, details=details),
                Component(name="havre", version=self._identity.version, details=python),
                *programs,
            ],
            version=DOCKER_COMPATIBLE,
            api_version=newest,
            min_api_version=self._identity.oldest_api,
            arch=architecture,
            kernel_version=kernel,
            build_time=built,
        )

    async def info(self) -> Info:
        """`GET /info`."""
        identity, cgroups = self._identity, self._runtime.host.cgroups
        host = await in_thread(read_host)
        releases = await self._runtime.releases()
        init = self._runtime.host.init.name if self._runtime.host.init else ""
        http_proxy, https_proxy, no_proxy = proxies.configured()
        running, paused, stopped = self._count_containers()
        devices, problems = await self._devices()
        return Info(
            id=self.id,
            containers=running + paused + stopped,
            containers_running=running,
            containers_paused=paused,
            containers_stopped=stopped,
            images=len(self._images.list()),
            driver=self._storage.driver,
            driver_status=[list(line) for line in self._storage.driver_status],
            plugins=self._plugins(),
            swap_limit=cgroups.swap_limit,
            ipv4_forwarding=host.forwarding,
            debug=identity.debug,
            open_files=len(os.listdir("/proc/self/fd")),
            oom_kill_disable=cgroups.layout != "v2",
            tasks=len(asyncio.all_tasks()) + threading.active_count(),
            system_time=from_seconds(time.time()),
            logging_driver=identity.log_driver,
            cgroup_version="2" if cgroups.layout == "v2" else "1",
            kernel_version=platform.release(),
            operating_system=host.name,
            os_version=host.version,
            architecture=platform.machine(),
            index_server_address="https://index.docker.io/v1/",
            registry_config=self._registries(),
            cpus=os.cpu_count() or 1,
            memory_bytes=host.memory_bytes,
            docker_root_dir=str(identity.data_root),
            http_proxy=http_proxy,
            https_proxy=https_proxy,
            no_proxy=no_proxy,
            name=socket.gethostname(),
            labels=list(identity.labels),
            experimental_build=identity.experimental,
            server_version=DOCKER_COMPATIBLE,
            runtimes=await self._runtimes(),
            default_runtime=self._runtime.default,
            default_runtime_reason=self._runtime.reason,
            swarm=SwarmInfo(),
            live_restore_enabled=identity.live_restore,
            init_binary=init,
            containerd_commit=Commit(),
            runc_commit=_release_of(releases, self._runtime.default),
            init_commit=_release_of(releases, init),
            security_options=self._security_options(),
            firewall_backend=self._firewall(),
            cdi_spec_dirs=list(identity.cdi_directories),
            discovered_devices=devices or UNSET,
            warnings=await self._warnings() + problems,
        )

    def _count_containers(self) -> tuple[int, int, int]:
        """How many containers run, are paused, are stopped."""
        states = [container.state for container in self._containers.list(all=True)]
        paused = sum(state.paused for state in states)
        running = sum(state.running for state in states) - paused
        return running, paused, len(states) - running - paused

    def _plugins(self) -> Plugins:
        return Plugins(
            volume=self._volumes.drivers(),
            network=["bridge", "host", "null"],
            authorization=list(self._identity.authorization_plugins) or None,
            log=["fluentd", "gelf", "journald", "json-file", "local", "syslog"],
        )

    async def _warnings(self) -> list[str]:
        warnings = [] if self._runtime.host.cgroups.swap_limit else ["WARNING: No swap limit support"]
        warnings += await in_thread(_warn_of_room, self._identity.roots)
        if self._identity.seccomp_profile != "builtin":
            warnings.append("WARNING: daemon is not using the default seccomp profile")
        return warnings

    async def _runtimes(self) -> dict[str, RuntimeEntry]:
        """The OCI runtimes, each with what it says that it can."""
        features = await self._runtime.features()
        return {
            name: RuntimeEntry(path=path, status={_FEATURES: features[name]} if features.get(name) else UNSET)
            for name, path in self._runtime.binaries.items()
        }

    def _firewall(self) -> FirewallInfo:
        relays = [("EnableUserlandProxy", "true")] if self._identity.relays else []
        return FirewallInfo(driver="nftables" if self._identity.rules else "none", info=relays)

    async def _devices(self) -> tuple[list[DiscoveredDevice], list[str]]:
        """The devices that CDI describes on this host, and what is wrong with their descriptions."""
        names, problems = await in_thread(list_devices, [Path(each) for each in self._identity.cdi_directories])
        return [DiscoveredDevice(source="cdi", id=name) for name in names], problems

    def _registries(self) -> RegistryConfig:
        insecure = self._identity.insecure_registries
        networks = [each for each in dict.fromkeys(insecure) if "/" in each]
        mirrors = [mirror.rstrip("/") + "/" for mirror in self._identity.mirrors]  # as dockerd keeps them
        hub = RegistryIndex(name="docker.io", mirrors=mirrors, secure=True, official=True)
        others = {
            each: RegistryIndex(name=each, mirrors=[], secure=False, official=False)
            for each in insecure
            if "/" not in each
        }
        return RegistryConfig(
            insecure_registry_cidrs=[*networks, "127.0.0.0/8"],
            index_configs={"docker.io": hub, **others},
            mirrors=mirrors or None,
        )

    def _security_options(self) -> list[str]:
        options = [f"name=seccomp,profile={self._identity.seccomp_profile}"]
        if self._runtime.host.apparmor_profile:
            options.insert(0, "name=apparmor")
        if self._runtime.host.cgroups.layout == "v2":
            options.append("name=cgroupns")
        if self._identity.remapped:
            options.append("name=userns")
        if self._identity.no_new_privileges:
            options.append("name=no-new-privileges")
        return options

    async def disk_usage(self, kinds: Collection[str] = ("container", "image", "volume")) -> Usage:
        """Images, containers with their sizes, volumes; only what is of these kinds is measured."""
        sized, volumes = await asyncio.gather(
            self._sized_containers() if "container" in kinds else _nothing(),
            self._volumes.usage() if "volume" in kinds else _nothing(),
        )
        if "image" not in kinds:
            return Usage(0, 0, [], sized, volumes)
        images = self._images.list(shared_size=True, containers=True)
        return Usage(self._images.layers_size(), self._images.unused_size(), images, sized, volumes)

    async def _sized_containers(self) -> list[tuple[Container, int, int]]:
        sized = []
        for container in self._containers.list(all=True):
            try:
                writable, root = await self._containers.size(container.id)
            except NotFound:
                continue  # removed meanwhile
            sized.append((container, writable, root))
        return sized


async def _nothing() -> list[Any]:
    return []


def _warn_of_room(roots: Sequence[Path]) -> list[str]:
    """Warnings for file systems of ours that are full or nearly so. Blocking."""
    full = [root for root in roots if free_bytes(root) < _FULL_BYTES or lacks_inodes(root)]
    return [f"WARNING: {full_hint(root)}" for root in full]


def _release_of(releases: Mapping[str, tuple[str, Release]], name: str) -> Commit:
    """A program's commit, or its version where it tells none, in the shape of `GET /info`."""
    _, release = releases.get(name, ("", Release("", "")))
    commit = release.commit or release.version
    return Commit(id=commit)


def go_architecture(machine: str) -> str:
    """Go's name of a machine (uname(2))."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(machine, machine)


class HostFacts(NamedTuple):
    """Name and version of the distribution, its memory, whether IPv4 packets are passed on."""

    name: str
    version: str
    memory_bytes: int
    forwarding: bool


def read_host() -> HostFacts:
    """Look at the host. Blocking."""
    release = platform.freedesktop_os_release()
    pages, page_size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    name, version = release.get("PRETTY_NAME", "Linux"), release.get("VERSION_ID", "")
    return HostFacts(name, version, pages * page_size, forwarding)
