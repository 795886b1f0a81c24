"""What the HTTP edge is given: one collaborator per noun, and nothing more.

`daemon.py` builds each of them and hands them over as this value; no method ever lives here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from havre.build.contexts import Contexts
    from havre.build.outputs import Outputs
    from havre.build.solve import Builder
    from havre.engine.checkpoints import Checkpoints
    from havre.engine.containers import Containers
    from havre.engine.events import Events
    from havre.engine.files import Files
    from havre.engine.images import Images
    from havre.engine.networks import Networks
    from havre.engine.stats import Stats
    from havre.engine.system import System
    from havre.engine.updates import Updates
    from havre.engine.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Services:
    """The engine's nouns, as `api` sees them."""

    images: Images
    containers: Containers
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
