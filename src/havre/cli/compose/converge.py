"""Converges a project's images and containers to their definition, for `up` and `watch`."""

from __future__ import annotations

import os
import sys

from havre.cli.compose.stage import Stage
from havre.cli.compose.supply import supplied
from havre.compose.images import ImageOptions, plan_images
from havre.compose.plan import UpOptions, orphans, plan_up
from havre.compose.state import inspect_images, observe, used_images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from havre.compose.project import Project
    from havre.compose.state import State


def converge(
    stage: Stage,
    project: Project,
    wanted: UpOptions,
    images: ImageOptions,
    *,
    quiet: bool = False,
    timeout_s: float = 0,
    awaited: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Provide images, converge containers, and wait for `awaited` ones to be healthy. Raises HavreError."""
    project = supplied(stage, project)
    state = observe(stage.client, project)
    steps = plan_images(project, state.images, images)
    if steps:
        stage.carry_out(steps, quiet=quiet)
        state = state._replace(images=inspect_images(stage.client, used_images(project)))
    _tell_orphans(project, state, wanted)
    stage.carry_out(plan_up(project, state, wanted, awaited or {}), timeout_s=timeout_s)


def _tell_orphans(project: Project, state: State, wanted: UpOptions) -> None:
    found = [container.name for container in orphans(project, state)]
    ignored = os.environ.get("COMPOSE_IGNORE_ORPHANS", "").lower() in ("1", "true")
    if found and not wanted.remove_orphans and not ignored:
        sys.stdout.flush()
        print(
            f"warning: Found orphan containers ([{' '.join(found)}]) for this project. If you removed or renamed this "
            "service in your compose file, you can run this command with the --remove-orphans flag to clean it up.",
            file=sys.stderr,
        )
