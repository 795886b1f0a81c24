"""havred: configure, recover, serve, stop.

    flags, daemon.json --> PID file --> storage, runtime, networks ... --> recovery --> sockets --> READY
                                                                                          |
    SIGHUP: reload the configuration        SIGTERM, SIGINT: close listeners, disconnect --'

A clean stop leaves the containers running, like `kill -9`, unless the host is shutting down, which is known from
SIGPWR or by asking systemd. This module only composes the rooms; decisions are made in the rooms below.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from havre import __version__
from havre.aio import end_background, spawn
from havre.api.authorization import Authorization
from havre.api.server import serve
from havre.api.services import Services
from havre.builds.cache import Cache
from havre.builds.contexts import Contexts
from havre.builds.outputs import Outputs
from havre.builds.running import Remapping
from havre.builds.solve import Builder
from havre.containers.container import Container
from havre.containers.containers import Containers, Parts, Placement
from havre.containers.create.creation import Creation
from havre.containers.files.commit import Commit
from havre.containers.files.copying import Copying
from havre.containers.files.files import Files
from havre.containers.files.views import Views
from havre.containers.imageusers import image_users
from havre.containers.life.checkpoints import Checkpoints
from havre.containers.life.control import Control
from havre.containers.life.draining import Draining
from havre.containers.life.erasure import Erasure
from havre.containers.life.health import HealthChecks
from havre.containers.life.lifecycle import Around, Lifecycle
from havre.containers.life.recovery import Recovery
from havre.containers.life.removal import Removal
from havre.containers.life.shutdown import Shutdown
from havre.containers.life.updates import Updates
from havre.containers.live import Index
from havre.containers.streams.exec import Execs
from havre.containers.streams.logbook import Logbook
from havre.containers.streams.stats import Stats
from havre.containers.surroundings.assembly import Assembly, DaemonDefaults
from havre.containers.surroundings.hosts import LinkedHosts
from havre.containers.surroundings.idranges import IdRanges, read_remap
from havre.containers.surroundings.membership import Membership
from havre.containers.surroundings.subpaths import Subpaths
from havre.daemon.config import DaemonConfig, load, parse_arguments
from havre.daemon.configvalues import check_values
from havre.daemon.confinement import default_security
from havre.daemon.directives import usage
from havre.daemon.hosts import plan_listeners
from havre.daemon.process import bound_stop, pid_file
from havre.daemon.reloading import Current, Steered
from havre.daemon.report import log_configuration
from havre.daemon.servicemanager import host_goes_down, inherited_sockets, notify, refuse_waiting
from havre.daemon.settings import (
    container_defaults,
    daemon_defaults,
    host_limits,
    identity_of,
    network_options,
    oldest_version,
    plugins_of,
    registries_of,
)
from havre.errors import Failed, HavreError, NotFound
from havre.events import Events
from havre.images.images import Images
from havre.linux.heap import limit_arenas
from havre.linux.idmap import IdRange
from havre.linux.nofile import raise_limit
from havre.logtext import configure_logging
from havre.networks.networks import Networks
from havre.networks.spec import Network
from havre.registry import Policy, Registry
from havre.registry.proxies import override_environment
from havre.runtime import Runtime
from havre.storage import Storage
from havre.system.info import System
from havre.volumes.local import LocalVolumes
from havre.volumes.plugged import PluginMount, PluginVolumes
from havre.volumes.spec import Volume
from havre.volumes.volumes import Volumes

log = logging.getLogger("havre.daemon.program")

UNDO_S = 15  # for the cleanup of work under way, after `shutdown-timeout`
_ARENAS = 2  # malloc arenas: 35 MB less during a push, and no slower (docs/why/storage.md#intake)


@dataclass(frozen=True, slots=True)
class _ImageFacts:
    """The facts about images that containers ask for."""

    images: Images

    def size_of(self, id: str) -> int:
        return self.images.size(id)

    def named(self, name: str) -> Collection[str]:
        try:
            return self.images.platforms_of(name)
        except NotFound:
            return ()

    def descended(self, name: str) -> Collection[str]:
        try:
            return self.images.made_from(name)
        except NotFound:
            return ()


@asynccontextmanager
async def open_engine(config: DaemonConfig) -> AsyncIterator[tuple[Services, Steered]]:
    """Open all nouns, recovered and ready, and the parts that a reload changes; closed in reverse order."""
    defaults = daemon_defaults(config, default_security(config))
    events, ranges = Events(), IdRanges(read_remap(config.userns_remap))
    async with AsyncExitStack() as stack:
        storage = await _open_storage(config, ranges.remap)
        stack.push_async_callback(storage.close)
        runtime = await _open_runtime(config)
        registry = Registry(registries_of(config))
        stack.push_async_callback(registry.close)
        index = Index(storage.db.table("containers", Container))
        directory = config.data_root / "containers"
        directory.mkdir(mode=0o700, exist_ok=True)
        networks = _open_networks(config, storage, events, directory)
        volumes = await _open_volumes(config, storage, events)

        subpaths = Subpaths(config.exec_root / "subpaths")
        assembly = Assembly(index, storage.snapshots, volumes, networks, events, directory, defaults, subpaths, ranges)
        execs = Execs(index, events)
        erasure = Erasure(index, assembly, runtime, storage.snapshots, volumes)
        around = Around(assembly, runtime, HealthChecks(execs), Draining(networks.withdraw), erasure)
        lifecycle = Lifecycle(index, around, events, Logbook(directory))
        control = Control(lifecycle, config.default_stop_timeout)

        cache = await Cache.open(storage)
        images = await _open_images(config, storage, registry, events, index, cache)
        limits = host_limits(runtime)
        given = container_defaults(config, runtime)
        creation = Creation(
            index, images, storage.snapshots, volumes, networks, lifecycle, directory, limits, given, ranges
        )
        membership = Membership(index, networks, assembly)
        removal = Removal(lifecycle, control)
        parts = Parts(index, creation, lifecycle, control, removal, execs, storage.snapshots, membership)
        containers = Containers(parts, _ImageFacts(images), _placer(config, storage, lifecycle, assembly))
        files = await _open_files(config, storage, parts, assembly, images)
        system = _make_system(config, storage, runtime, images, containers, volumes)
        await Recovery(index, lifecycle, erasure, runtime, networks, volumes, storage.snapshots, ranges, subpaths).run()
        stack.push_async_callback(networks.stop)
        remapping = Remapping(ranges.remap, subpaths)
        builder, contexts = await _open_builder(config, defaults, images, storage, runtime, networks, cache, remapping)
        await _tidy(images)
        services = Services(
            images=images,
            containers=containers,
            execs=execs,
            membership=membership,
            checkpoints=Checkpoints(index, lifecycle, assembly.directory, enabled=config.experimental),
            files=files,
            stats=Stats(index),
            updates=Updates(index, lifecycle, limits),
            networks=networks,
            volumes=volumes,
            events=events,
            system=system,
            builder=builder,
            contexts=contexts,
            outputs=Outputs(storage),
        )
        yield services, Steered(registry, runtime, creation, Shutdown(index, lifecycle, control))


async def _open_storage(config: DaemonConfig, remap: IdRange | None) -> Storage:
    """Open the storage, so that containers can have the IDs of `remap`."""
    driver, layer_limit = config.storage_driver or None, config.registry_limits.layer_bytes
    storage = await Storage.open(config.data_root, config.exec_root, driver=driver, layer_limit=layer_limit)
    try:
        if remap is not None:
            await storage.check_mapping(remap)
    except BaseException:
        await storage.close()
        raise
    return storage


async def _open_runtime(config: DaemonConfig) -> Runtime:
    """Find conmon and the OCI runtimes."""
    default = config.default_runtime or None
    timed = config.features.get("time-namespaces", True)
    return await Runtime.open(config.exec_root, config.runtimes, default, init=config.init_path, time_namespaces=timed)


def _open_networks(config: DaemonConfig, storage: Storage, events: Events, directory: Path) -> Networks:
    """Open the networks with their sockets; changes of links are written to the files of containers in `directory`."""
    table, relink = storage.db.table("networks", Network), LinkedHosts(directory).relink
    networks = Networks(table, config.exec_root, network_options(config), events, relink)
    networks.open()
    return networks


async def _open_images(
    config: DaemonConfig, storage: Storage, registry: Registry, events: Events, index: Index, cache: Cache
) -> Images:
    """Open the images; images of containers and layers of the build cache are not collected."""
    policy = Policy.read(config.signature_keys)
    images = await Images.open(storage, registry, events.publish, image_users(index), policy, cache.live_layers)
    images.limit_transfers(config.max_concurrent_downloads, config.max_concurrent_uploads)
    return images


async def _open_builder(
    config: DaemonConfig,
    defaults: DaemonDefaults,
    images: Images,
    storage: Storage,
    runtime: Runtime,
    networks: Networks,
    cache: Cache,
    remapping: Remapping,
) -> tuple[Builder, Contexts]:
    """Create the builder, and the clients' contexts."""
    directory = config.data_root / "build"
    contexts = Contexts(directory / "contexts")
    builder = await Builder.open(
        directory,
        config.exec_root / "build",
        images,
        storage,
        runtime,
        networks,
        cache,
        contexts,
        remapping,
        ulimits=defaults.ulimits,
        seccomp=defaults.security.seccomp,
        cgroup_parent=config.cgroup_parent,
        cgroupns=config.default_cgroupns_mode,
        gc=config.builder,
        agreed=config.build_entitlements,
        history=config.build_history,
        cdi_directories=defaults.cdi_directories,
    )
    await contexts.open()
    return builder, contexts


async def _tidy(images: Images) -> None:
    """Remove leftovers of aborted pulls and builds. Best effort: failures are logged."""
    try:
        if freed := await images.collect_garbage():
            log.info("removed %d bytes of unreferenced data", freed)
    except (HavreError, OSError) as error:
        log.warning("garbage was not collected: %s", error)


async def _open_volumes(config: DaemonConfig, storage: Storage, events: Events) -> Volumes:
    """Open the volumes, local ones and those of plugins."""
    plugged = PluginVolumes(plugins_of(config), storage.db.table("plugin_mounts", PluginMount))
    local = LocalVolumes(config.data_root / "volumes")
    volumes = Volumes(local, plugged, storage.db.table("volumes", Volume), events)
    await volumes.load()
    return volumes


async def _open_files(
    config: DaemonConfig, storage: Storage, parts: Parts, assembly: Assembly, images: Images
) -> Files:
    """Open the containers' files, without the views that an earlier daemon left."""
    views = Views(assembly, storage.snapshots, config.exec_root / "views")
    await views.sweep()
    commit = Commit(images, storage, parts.control, parts.lifecycle)
    return Files(parts.index, Copying(views, parts.lifecycle), storage.snapshots, commit)


def _make_system(
    config: DaemonConfig, storage: Storage, runtime: Runtime, images: Images, containers: Containers, volumes: Volumes
) -> System:
    """Create what reports on the daemon."""
    id = _read_id(config.data_root / "engine-id")
    return System(identity_of(config), id, storage, runtime, images, containers, volumes)


def _placer(
    config: DaemonConfig, storage: Storage, lifecycle: Lifecycle, assembly: Assembly
) -> Callable[[Container], Placement]:
    def place(container: Container) -> Placement:
        netns = config.exec_root / "netns" / container.id
        running = container.state.running and not container.state.restarting
        joins = container.spec.host_config.network_mode.startswith("container:")
        return Placement(
            driver=storage.driver,
            log_path=_log_path(lifecycle, container),
            mounted_at=str(config.exec_root / "snapshots" / container.id) if running else "",
            sandbox_key=str(netns) if running and not joins else "",
            network_files=assembly.network_files(container),
        )

    return place


def _log_path(lifecycle: Lifecycle, container: Container) -> str:
    """The log path for other programs: Docker shows it for the driver json-file only."""
    is_json = container.spec.host_config.log_config.type == "json-file"
    return str(lifecycle.logs.path(container)) if is_json else ""


def _read_id(file: Path) -> str:
    """The daemon's ID, created at its first start."""
    with contextlib.suppress(FileNotFoundError):
        if known := file.read_text().strip():  # a power failure may have left it empty
            return known
    identity = secrets.token_hex(16)
    with file.open("w") as out:
        out.write(identity + "\n")
        out.flush()
        os.fsync(out.fileno())
    return identity


# -- life


async def run(config: DaemonConfig, flags: Mapping[str, Any]) -> None:
    """Serve until SIGTERM, SIGINT, or SIGPWR (the host is shutting down)."""
    stop, power = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def lose_power() -> None:
        power.set()
        stop.set()

    loop.add_signal_handler(signal.SIGPWR, lose_power)
    listeners = plan_listeners(config, inherited_sockets())
    log_configuration(config)
    with pid_file(config.pid_path):
        async with open_engine(config) as (services, steered):
            authorization = Authorization(plugins_of(config), config.authorization_plugins)
            await authorization.check(config.authorization_plugins)
            server = await serve(
                services,
                listeners,
                experimental=config.experimental,
                allowed_hosts=config.allowed_hosts,
                authorization=authorization,
                oldest=oldest_version(config),
            )
            current = Current(config, services, steered, authorization)
            loop.add_signal_handler(signal.SIGHUP, lambda: spawn(current.reload(flags), "reload"))
            for address in server.addresses:
                log.info("API listen on %s", address)
            log.info("Daemon has completed initialization")
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
            if goes_down := power.is_set() or await host_goes_down():
                await _end_containers(steered.shutdown)
            bound_stop(current.config.shutdown_timeout + UNDO_S, config.pid_path, with_host=goes_down)
            await server.close(current.config.shutdown_timeout)
            await end_background()  # while the engine is open, which their cleanup uses


async def _end_containers(shutdown: Shutdown) -> None:
    """Stop all containers. Clients are served meanwhile, so that `docker wait` returns."""
    limit_s = shutdown.begin()
    log.info("the host is shutting down: stopping all containers within %d s", limit_s)
    notify(f"EXTEND_TIMEOUT_USEC={(limit_s + UNDO_S) * 1_000_000}")  # beyond the unit's TimeoutStopSec
    await shutdown.run()
    log.info("all containers are stopped")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `havred`. Returns its exit status."""
    try:
        invocation = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        if invocation.wants:
            columns = shutil.get_terminal_size().columns - 1
            print(usage(columns) if invocation.wants == "help" else f"havre version {__version__}")
            return 0
        config = load(invocation.values)
        check_values(config)
        if config.validate:
            default_security(config)
            print("configuration OK", file=sys.stderr)
            return 0
        if os.geteuid() != 0:
            raise Failed("havred needs to be root", "run it with sudo, or as a systemd service")
        configure_logging("debug" if config.debug else config.log_level)
        override_environment(config.http_proxy, config.https_proxy, config.no_proxy)
        limit_arenas(_ARENAS)
        raise_limit()
        asyncio.run(run(config, invocation.values))
    except HavreError as error:
        print(f"havred: {error}", file=sys.stderr)
        refuse_waiting(inherited_sockets(), f"the daemon does not start: {error}")
        return 1
    except Exception as error:  # a bug
        refuse_waiting(inherited_sockets(), f"the daemon does not start: {type(error).__name__}: {error}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
