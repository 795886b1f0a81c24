"""The engine's nouns, as passed to the HTTP server.

`daemon.program` creates them; this value has no methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from havre.builds.contexts import Contexts
    from havre.builds.outputs import Outputs
    from havre.builds.solve import Builder
    from havre.containers.containers import Containers
    from havre.containers.files.files import Files
    from havre.containers.life.checkpoints import Checkpoints
    from havre.containers.life.updates import Updates
    from havre.containers.streams.exec import Execs
    from havre.containers.streams.stats import Stats
    from havre.containers.surroundings.membership import Membership
    from havre.events import Events
    from havre.images.images import Images
    from havre.networks.networks import Networks
    from havre.system.info import System
    from havre.volumes.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Services:
    """One collaborator per noun."""

    images: Images
    containers: Containers
    execs: Execs
    membership: Membership
    checkpoints: Checkpoints
    files: Files
    stats: Stats
    updates: Updates
    networks: Networks
    volumes: Volumes
    events: Events
    system: System
    builder: Builder
    contexts: Contexts
    outputs: Outputs
