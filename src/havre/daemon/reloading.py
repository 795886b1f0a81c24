"""The configuration in force, and its reload at SIGHUP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from havre.api.authorization import Authorization
from havre.api.services import Services
from havre.containers.create.creation import Creation
from havre.containers.life.shutdown import Shutdown
from havre.daemon.config import DaemonConfig, load
from havre.daemon.configvalues import check_values
from havre.daemon.directives import DEFAULT_FILE
from havre.daemon.report import reload_attributes
from havre.daemon.settings import container_defaults, identity_of, registries_of
from havre.errors import HavreError
from havre.logtext import set_level
from havre.registry import Registry
from havre.runtime import Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Steered:
    """The parts that the daemon changes while running: at a reload, or when the host shuts down."""

    registry: Registry
    runtime: Runtime
    creation: Creation
    shutdown: Shutdown


_RELOADED = (
    "debug", "log_level", "shutdown_timeout", "labels", "registry_mirrors", "insecure_registries", "runtimes",
    "default_runtime", "max_concurrent_downloads", "max_concurrent_uploads", "authorization_plugins",
    "max_download_attempts", "registry_limits", "default_shm_size", "default_ipc_mode", "default_cgroupns_mode",
    "default_stop_timeout", "features",
)  # fmt: skip


class Current:
    """The configuration in force, and the parts that depend on it."""

    def __init__(self, config: DaemonConfig, services: Services, parts: Steered, authorization: Authorization) -> None:
        self.config = config
        self._authorization = authorization
        self._services = services
        self._parts = parts
        self._reloading = asyncio.Lock()

    async def reload(self, flags: Mapping[str, Any]) -> None:
        """Reload at SIGHUP. Changes without restart: log level, labels, mirrors, insecure registries, OCI runtimes,
        limits on registries and of concurrent transfers, shutdown timeout, authorization plugins, the feature buildkit
        (others: at the next start, as with dockerd).

        An invalid configuration changes nothing.
        """
        log.info("Got signal to reload configuration, reloading from: %s", flags.get("config-file", DEFAULT_FILE))
        async with self._reloading:
            try:
                fresh = load(flags)
                check_values(fresh)
                container_defaults(fresh, self._parts.runtime)
                await self._authorization.check(fresh.authorization_plugins)
                await self._parts.runtime.reconfigure(fresh.runtimes, fresh.default_runtime or None)
            except (HavreError, OSError) as error:
                log.error("configuration not reloaded: %s", error)
                return
            self._follow(fresh)

    def _follow(self, fresh: DaemonConfig) -> None:
        self.config = replace(self.config, **{name: getattr(fresh, name) for name in _RELOADED})
        self._authorization.use(fresh.authorization_plugins)
        set_level("debug" if fresh.debug else fresh.log_level)
        self._parts.registry.reconfigure(registries_of(fresh))
        self._parts.creation.defaults = container_defaults(self.config, self._parts.runtime)
        self._parts.shutdown.control.default_timeout_s = fresh.default_stop_timeout
        self._services.images.limit_transfers(fresh.max_concurrent_downloads, fresh.max_concurrent_uploads)
        self._services.images.limit_layers(fresh.registry_limits.layer_bytes)
        self._services.system.reload(identity_of(self.config))
        attributes = reload_attributes(self.config, self._parts.creation.defaults)
        self._services.events.publish("daemon", "reload", self._services.system.id, attributes)
        log.info("Reloaded configuration: %s", json.dumps(attributes))
