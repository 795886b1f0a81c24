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
from typing import Any

import msgspec

from havre.aio import in_thread
from havre.containers.container import Container
from havre.containers.containers import Containers
from havre.errors import NotFound
from havre.images.images import Images
from havre.linux.room import free_bytes, full_hint, lacks_inodes
from havre.registry import proxies
from havre.runtime import Release, Runtime
from havre.storage import Storage
from havre.volumes.volumes import Volumes
from havre.wire.times import from_seconds

_FULL_BYTES = 4 << 20  # below this, a file system counts as full
_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}
DOCKER_COMPATIBLE = "26.1.5"
"""The Docker release whose behaviour havre reports; clients compare it with their own."""
_FEATURES = "org.opencontainers.runtime-spec.features"  # key in `Runtimes`, as dockerd has it


@dataclass(frozen=True, slots=True)
class Identity:
    """The daemon's own facts; `version` is havre's."""

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
    buildkit: bool = True
    started_at: float = field(default_factory=time.time)

    @property
    def roots(self) -> Sequence[Path]:
        """The directories of its files."""
        return [root for root in (self.data_root, self.exec_root) if root is not None]


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

    async def version(self, newest: str, oldest: str) -> dict[str, Any]:
        """`GET /version`; the arguments are the API versions that the edge speaks."""
        kernel, built = platform.release(), from_seconds(self._identity.started_at)
        details = {
            "ApiVersion": newest,
            "Arch": go_architecture(platform.machine()),
            "BuildTime": built,
            "Experimental": str(self._identity.experimental).lower(),
            "GitCommit": "",
            "GoVersion": "",
            "KernelVersion": kernel,
            "MinAPIVersion": oldest,
            "Os": "linux",
        }
        engine = {"Name": "Engine", "Version": DOCKER_COMPATIBLE, "Details": details}
        havre = {
            "Name": "havre",
            "Version": self._identity.version,
            "Details": {"Python": platform.python_version(), "Implementation": sys.implementation.name},
        }
        programs = [
            {"Name": name, "Version": release.version, "Details": {"GitCommit": release.commit, "Path": path}}
            for name, (path, release) in (await self._runtime.releases()).items()
        ]
        return {
            "Platform": {"Name": f"havre {self._identity.version}"},
            "Components": [engine, havre, *programs],
            "Version": DOCKER_COMPATIBLE,
            "ApiVersion": newest,
            "MinAPIVersion": oldest,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": details["Arch"],
            "KernelVersion": kernel,
            "BuildTime": built,
        }

    async def info(self) -> dict[str, Any]:
        """`GET /info`."""
        host = await in_thread(read_host)
        cgroups = self._runtime.host.cgroups
        warnings = await in_thread(_warn_of_room, self._identity.roots)
        if self._identity.seccomp_profile != "builtin":
            warnings.append("WARNING: daemon is not using the default seccomp profile")
        releases = await self._runtime.releases()
        init = self._runtime.host.init.name if self._runtime.host.init else ""
        http_proxy, https_proxy, no_proxy = proxies.configured()
        return {
            "ID": self.id,
            **self._counts(),
            "Images": len(self._images.list()),
            "Driver": self._storage.driver,
            "DriverStatus": [list(line) for line in self._storage.driver_status],
            "Plugins": {
                "Volume": self._volumes.drivers(),
                "Network": ["bridge", "host", "null"],
                "Authorization": list(self._identity.authorization_plugins) or None,
                "Log": ["fluentd", "gelf", "journald", "json-file", "local", "syslog"],
            },
            "MemoryLimit": True,
            "SwapLimit": cgroups.swap_limit,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "IPv4Forwarding": host["forwarding"],
            "BridgeNfIptables": False,
            "BridgeNfIp6tables": False,
            "Debug": self._identity.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "OomKillDisable": cgroups.layout != "v2",
            "NGoroutines": len(asyncio.all_tasks()) + threading.active_count(),
            "SystemTime": from_seconds(time.time()),
            "LoggingDriver": self._identity.log_driver,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if cgroups.layout == "v2" else "1",
            "NEventsListener": 0,
            "KernelVersion": platform.release(),
            "OperatingSystem": host["name"],
            "OSVersion": host["version"],
            "OSType": "linux",
            "Architecture": platform.machine(),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": self._registries(),
            "NCPU": os.cpu_count() or 1,
            "MemTotal": host["memory"],
            "GenericResources": None,
            "DockerRootDir": str(self._identity.data_root),
            "HttpProxy": http_proxy,
            "HttpsProxy": https_proxy,
            "NoProxy": no_proxy,
            "Name": socket.gethostname(),
            "Labels": list(self._identity.labels),
            "ExperimentalBuild": self._identity.experimental,
            "ServerVersion": DOCKER_COMPATIBLE,
            "Runtimes": await self._runtimes(),
            "DefaultRuntime": self._runtime.default,
            "DefaultRuntimeReason": self._runtime.reason,
            "Swarm": _NO_SWARM,
            "LiveRestoreEnabled": self._identity.live_restore,
            "Isolation": "",
            "InitBinary": init,
            "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": _release_of(releases, self._runtime.default),
            "InitCommit": _release_of(releases, init),
            "SecurityOptions": self._security_options(),
            "CDISpecDirs": list(self._identity.cdi_directories),
            "Warnings": ([] if cgroups.swap_limit else ["WARNING: No swap limit support"]) + warnings,
        }

    async def _runtimes(self) -> dict[str, dict[str, Any]]:
        """The OCI runtimes, each with the features that it reports."""
        features = await self._runtime.features()
        return {
            name: {"path": path, **({"status": {_FEATURES: features[name]}} if features.get(name) else {})}
            for name, path in self._runtime.binaries.items()
        }

    def _counts(self) -> dict[str, int]:
        states = [container.state for container in self._containers.list(all=True)]
        paused = sum(state.paused for state in states)
        running = sum(state.running for state in states) - paused
        return {
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
        }

    def _registries(self) -> dict[str, Any]:
        insecure = self._identity.insecure_registries
        networks = [each for each in dict.fromkeys(insecure) if "/" in each]
        # with a trailing slash, as dockerd stores them
        mirrors = [mirror.rstrip("/") + "/" for mirror in self._identity.mirrors]
        hub = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
        others = {
            each: {"Name": each, "Mirrors": [], "Secure": False, "Official": False}
            for each in insecure
            if "/" not in each
        }
        return {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            "InsecureRegistryCIDRs": [*networks, "127.0.0.0/8"],
            "IndexConfigs": {"docker.io": hub, **others},
            "Mirrors": mirrors or None,
        }

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

    async def disk_usage(self, kinds: Collection[str] = ("container", "image", "volume")) -> dict[str, Any]:
        """`GET /system/df`: images, containers with their sizes, volumes; only these kinds are measured."""
        sized, volumes = await asyncio.gather(
            self._sized_containers() if "container" in kinds else _nothing(),
            self._volumes.usage() if "volume" in kinds else _nothing(),
        )
        images = self._images.list(shared_size=True, containers=True) if "image" in kinds else []
        return {
            "LayersSize": self._images.layers_size() if "image" in kinds else 0,
            "Images": msgspec.to_builtins(images),
            "Containers": sized,
            "Volumes": msgspec.to_builtins(volumes),
        }

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


def _release_of(releases: Mapping[str, tuple[str, Release]], name: str) -> dict[str, str]:
    """A program's commit, or its version if unknown, in the shape of `GET /info`."""
    _, release = releases.get(name, ("", Release("", "")))
    commit = release.commit or release.version
    return {"ID": commit, "Expected": commit}


def go_architecture(machine: str) -> str:
    """Go's name of a machine (uname(2))."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(machine, machine)


def read_host() -> Mapping[str, Any]:
    """Name and version of the distribution, bytes of memory, whether IPv4 is forwarded. Blocking."""
    release = platform.freedesktop_os_release()
    pages, page_size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    return {
        "name": release.get("PRETTY_NAME", "Linux"),
        "version": release.get("VERSION_ID", ""),
        "memory": pages * page_size,
        "forwarding": forwarding,
    }
