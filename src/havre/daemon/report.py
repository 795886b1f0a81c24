"""What the daemon reports of its configuration: in its log at the start, in the event of a reload.

Source: moby's daemon/reload.go for the attributes; clients watch them for changes.
"""

from __future__ import annotations

import json
import logging
import socket

from havre.containers.create.configure import Defaults
from havre.daemon.config import DaemonConfig
from havre.images.pull import DOWNLOADS
from havre.images.push import UPLOADS
from havre.registry.limits import Limits

log = logging.getLogger(__name__)

_FEATURES = ("buildkit", "cdi", "time-namespaces")


def log_configuration(config: DaemonConfig) -> None:
    """Log the directives without effect, and the settings at debug level."""
    for key in config.ignored:
        log.warning("the directive %s has no effect here", key)
    for name in config.features:
        if name not in _FEATURES:
            log.warning("the feature %s has no effect here", name)
    for host in config.hosts:
        log.debug("will listen on %s", host)
    log.debug("data root %s, exec root %s", config.data_root, config.exec_root)
    log.debug("default logging driver %s with options %s", config.log_driver, json.dumps(dict(config.log_opts)))
    log.debug("CDI directories: %s", ", ".join(config.cdi_spec_dirs) or "none, as the feature cdi is off")
    log.debug("configured OCI runtimes: %s", json.dumps(dict(config.runtimes)))


def reload_attributes(config: DaemonConfig, defaults: Defaults) -> dict[str, str]:
    """The attributes of the event `reload`; `defaults` are those of new containers."""
    features = " ".join(f"{name}:{str(on).lower()}" for name, on in sorted(config.features.items()))
    return {
        "name": socket.gethostname(),
        "allow-nondistributable-artifacts": "[]",
        "debug": "true" if config.debug else "false",
        "default-cgroupns-mode": defaults.cgroupns_mode,
        "default-ipc-mode": defaults.ipc_mode,
        "default-runtime": defaults.runtime,
        "default-shm-size": str(defaults.shm_size),
        "features": f"map[{features}]",
        "insecure-registries": json.dumps(config.insecure_registries, separators=(",", ":")),
        "labels": json.dumps(config.labels, separators=(",", ":")),
        "live-restore": "true",
        "max-concurrent-downloads": str(config.max_concurrent_downloads or DOWNLOADS),
        "max-concurrent-uploads": str(config.max_concurrent_uploads or UPLOADS),
        "max-download-attempts": str(config.max_download_attempts or Limits().attempts),
        "registry-mirrors": json.dumps(config.registry_mirrors, separators=(",", ":")),
        "runtimes": " ".join(f"{name}:{path}" for name, path in config.runtimes.items()),
        "shutdown-timeout": str(config.shutdown_timeout),
    }
