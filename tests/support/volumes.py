"""Volumes without a daemon, for tests of storage and plugins."""

from __future__ import annotations

from pathlib import Path

from havre.events import Events
from havre.plugins import Directories, Patience, Plugins
from havre.storage import Database
from havre.volumes.local import LocalVolumes
from havre.volumes.plugged import PluginMount, PluginVolumes
from havre.volumes.spec import Volume
from havre.volumes.volumes import Volumes


def open_volumes(
    root: Path, database: Database, events: Events, plugins: Path | None = None, patience: Patience | None = None
) -> Volumes:
    """The volumes below `root`, and those of the plugins in `plugins`."""
    found = (plugins,) if plugins else ()
    plugged = PluginVolumes(
        Plugins(Directories(sockets=found, specs=found), patience), database.table("plugin_mounts", PluginMount)
    )
    return Volumes(LocalVolumes(root), plugged, database.table("volumes", Volume), events)
